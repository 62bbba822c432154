# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Small models of the demo with random weights, as a training would leave them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image


class Trained(NamedTuple):
    """A work directory: what a training leaves."""

    folder: Path
    config: Path
    checkpoint: Path
    pictures: list[Path]


def _write_data(root: Path, task: str) -> list[Path]:
    """A few pictures of different sizes with the demo's annotations, none of which prediction reads."""
    import json

    rng = np.random.RandomState(3)
    sizes = [(96, 128), (128, 96), (100, 77)] if task != 'segmentation' else [(64, 64), (64, 96), (48, 64)]
    if task == 'classification':
        sizes = [(32, 32), (40, 32), (33, 47)]
    folder = root / {'detection': 'val', 'classification': 'val/0', 'segmentation': 'images/validation'}[task]
    folder.mkdir(parents=True)
    paths = []
    for index, size in enumerate(sizes):
        small = Image.fromarray(rng.randint(0, 256, (*[side // 8 for side in size], 3), dtype=np.uint8))
        path = folder / f'{index}.{"jpg" if task == "segmentation" else "png"}'
        small.resize(size[::-1], Image.Resampling.BICUBIC).save(path)
        paths.append(path)
        if task == 'segmentation':
            labels = root / 'annotations' / 'validation' / f'{index}.png'
            labels.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.randint(0, 11, size, dtype=np.uint8)).save(labels)
    if task == 'classification':
        for digit in range(1, 10):
            (root / 'val' / str(digit)).mkdir()
            shutil.copy(paths[0], root / 'val' / str(digit) / 'x.png')
    if task == 'detection':
        images = [
            dict(id=i, file_name=path.name, height=size[0], width=size[1])
            for i, (path, size) in enumerate(zip(paths, sizes))
        ]
        categories = [dict(id=i + 1, name=str(i)) for i in range(10)]
        box = dict(image_id=0, category_id=1, bbox=[4, 4, 30, 30], area=900, iscrowd=0, id=1)
        box['segmentation'] = [[4, 4, 34, 4, 34, 34, 4, 34]]
        annotations = root / 'annotations' / 'val.json'
        annotations.parent.mkdir()
        annotations.write_text(json.dumps(dict(images=images, categories=categories, annotations=[box])))
    return paths


_CONFIGS = {
    'detection': 'mask_rcnn_lightvit_digits',
    'classification': 'lightvit_digits',
    'segmentation': 'semantic_fpn_lightvit_digits',
}


@pytest.fixture(scope='session')
def trained(tmp_path_factory, repo):
    """By task: the demo's model with random weights, saved as mmengine saves it."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    pytest.importorskip('mmseg')
    import torch
    from mmengine.config import Config

    from mmlightvit.toolboxes import build_model, import_toolbox

    found = {}
    for task, name in _CONFIGS.items():
        folder = tmp_path_factory.mktemp(task)
        pictures = _write_data(folder / 'data', task)
        cfg = Config.fromfile(repo / 'configs' / 'demo' / f'{name}.py')
        dataset = cfg.test_dataloader.dataset
        dataset.data_root = str(folder / 'data')
        cfg.val_dataloader = cfg.test_dataloader
        import_toolbox(cfg.default_scope)
        torch.manual_seed(0)
        model = build_model(cfg)
        model.init_weights()
        for parameter in model.parameters():  # far from their beginning, so that predictions differ
            parameter.data += 0.05 * torch.randn_like(parameter)
        config, checkpoint = folder / f'{name}.py', folder / 'best_metric_epoch_3.pth'
        cfg.dump(config)
        meta = dict(dataset_meta=dict(classes=tuple(dataset.metainfo.classes)))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
        found[task] = Trained(folder, config, checkpoint, pictures)
    return found
