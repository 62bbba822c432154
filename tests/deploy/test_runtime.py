# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The runtime's arithmetic is the toolboxes', and it needs neither of them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F

from mmlightvit.deploy.formats import open_file
from mmlightvit.deploy.runtime import label_map, load_exported
from mmlightvit.errors import UserError
from mmlightvit.inference.preprocess import Prepared


def test_label_maps_are_grown_as_mmseg_does():
    logits = np.random.default_rng(0).standard_normal((11, 12, 20)).astype(np.float32)
    picture = Prepared(np.zeros((3, 96, 160), np.float32), (90, 150), (123, 211), (1.0, 1.0))
    padded = F.interpolate(torch.from_numpy(logits)[None], (96, 160), mode='bilinear')[..., :90, :150]
    want = F.interpolate(padded, (123, 211), mode='bilinear')[0].argmax(dim=0).numpy()
    assert (label_map(logits, picture) == want).mean() >= 0.9999


def test_without_torch_or_toolbox(exported, tmp_path):
    """In a process where they cannot be imported."""
    code = (
        'import sys\n'
        "for name in ('torch', 'mmengine', 'mmcv', 'cv2', 'onnx', 'scipy'): sys.modules[name] = None\n"
        'import numpy as np\n'
        'from mmlightvit import load_model\n'
        'picture = np.full((50, 70, 3), 90, np.uint8)\n'
        'print(*(load_model(path).predict(picture).summary() for path in sys.argv[1:]), sep="|")'
    )
    paths = [str(exported(task).path) for task in ('classification', 'instance', 'segmentation')]
    done = subprocess.run([sys.executable, '-c', code, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.strip().count('|') == 2


def test_devices(exported):
    path = exported('classification').path
    with pytest.raises(UserError, match="device 'tpu'"):
        load_exported(path, 'tpu')
    picture = np.full((50, 70, 3), 90, np.uint8)
    want = load_exported(path).predict(picture).probs
    np.testing.assert_allclose(load_exported(path, 'openvino:CPU').predict(picture).probs, want, atol=1e-5)
    with pytest.raises(UserError, match='cannot be opened on XPU: Device with "XPU" name is not registered'):
        load_exported(path, 'openvino:XPU')


@pytest.mark.parametrize('task', ['classification', 'instance', 'segmentation'])
def test_openvino_takes_any_size_in_any_order(exported, task):
    """The size that preprocessing gives has a form of its own; the others, and more pictures at once, share one."""
    path = exported(task).path
    model, reference = (open_file(path, device, 1) for device in ('openvino:CPU', 'cpu'))
    batch = 1 if task == 'instance' else 2
    own = load_exported(path).input.crop or (64, 96)
    for shape in ((1, 3, *own), (batch, 3, *own), (1, 3, 81, 57), (1, 3, *own)):
        arrays = {'image': np.random.default_rng(0).standard_normal(shape, np.float32)}
        arrays |= {'size': np.array(shape[2:], np.int64)} if task == 'instance' else {}
        found, want = model.run(arrays), reference.run(arrays)
        assert found.keys() == want.keys()
        for name in want:
            np.testing.assert_allclose(found[name], want[name], atol=2e-4, err_msg=f'{name} {shape}')


def test_a_file_for_one_size_stays_one_in_openvino(exported, tmp_path):
    """It would lay the graph out anew for whatever comes, constants for the one size and all."""
    graph = onnx.load(exported('classification').path)
    for place, side in ((2, 64), (3, 96)):
        graph.graph.input[0].type.tensor_type.shape.dim[place].dim_value = side
    onnx.save(graph, tmp_path / 'model.onnx')
    engine = open_file(tmp_path / 'model.onnx', 'openvino:CPU')
    with pytest.raises(UserError, match=r'it takes images \[.*3,64,96\], and this one is \[1, 3, 224, 224\]'):
        engine.run({'image': np.zeros((1, 3, 224, 224), np.float32)})
    assert engine.run({'image': np.zeros((1, 3, 64, 96), np.float32)})['probs'].shape[0] == 1


def test_what_is_no_graph(tmp_path):
    (tmp_path / 'model.onnx').write_bytes(b'no graph')
    with pytest.raises(UserError, match=r'model\.onnx cannot be opened'):
        load_exported(tmp_path / 'model.onnx')
