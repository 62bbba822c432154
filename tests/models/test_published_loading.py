# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Published files load by anybody's loader: torch's, and mmengine's as it comes."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from mmlightvit.models.backbones import LightViT
from mmlightvit.models.layers.attention import relative_position_index
from mmlightvit.published import rename_to_published

ARCH = dict(embed_dims=[8, 16], num_heads=[1, 2], num_blocks=[1, 2], ffn_ratios=[2, 2], num_global_tokens=2)


def backbone(seed: int, **settings) -> LightViT:
    torch.manual_seed(seed)
    return LightViT(ARCH, out_indices=(0, 1), **settings)


class Detector(nn.Module):
    """A backbone and our neck."""

    def __init__(self, seed: int) -> None:
        from mmlightvit.models.necks import LightViTFPN

        super().__init__()
        self.backbone = backbone(seed)
        self.neck = LightViTFPN([8, 16], 4, num_outs=4, num_transposed=1)


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for key, value in one.state_dict().items():
        assert other.state_dict()[key].equal(value), key


def copies(model: nn.Module) -> list[nn.Module]:
    """The model, a deep copy and one that was pickled: loading has to survive both, each with its own model."""
    return [model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]


def test_torch_loads_a_published_backbone_strictly():
    source = backbone(1)
    state = rename_to_published(source.state_dict(), 'backbone')
    assert 'stages.1.0.res_proj.weight' in state
    for target in copies(backbone(2)):
        given = dict(state)
        target.load_state_dict(given)
        assert_equal(source, target)
        assert given.keys() == state.keys()  # the caller's dictionary stays as it was


def test_torch_loads_our_own_names_as_ever():
    source, target = backbone(1), backbone(2)
    target.load_state_dict(source.state_dict())
    assert_equal(source, target)
    missing, unexpected = target.load_state_dict({'stages.0.blocks.0.norm1.weights': torch.ones(8)}, strict=False)
    assert 'stages.0.blocks.0.norm1.weight' in missing and 'global_token' in missing
    assert unexpected == ['stages.0.blocks.0.norm1.weights']


def test_a_bare_backbone_leaves_out_a_classifiers_head():
    source = backbone(1, out_type='tokens')
    state = rename_to_published({f'backbone.{key}': value for key, value in source.state_dict().items()}, 'classifier')
    state |= {'norm.weight': torch.ones(16), 'neck.0.weight': torch.ones(4, 16), 'head.bias': torch.ones(3)}
    target = backbone(2, out_type='tokens')
    target.load_state_dict(state)
    assert_equal(source, target)


@pytest.mark.parametrize('published', [False, True])
def test_tables_of_another_window_are_resized(published):
    source, target = backbone(1), backbone(2, window_size=5)
    state = source.state_dict()
    target.load_state_dict(rename_to_published(state, 'backbone') if published else state)
    table = source.stages[1].blocks[0].attn.relative_position_bias_table.view(13, 13, -1)
    resized = target.stages[1].blocks[0].attn.relative_position_bias_table.view(9, 9, -1)
    for theirs, ours in ((0, 0), (6, 4), (12, 8)):  # the farthest offsets and the middle stay what they are
        torch.testing.assert_close(resized[ours, ours], table[theirs, theirs])
    assert_equal(source.patch_embed, target.patch_embed)


def test_an_index_of_another_order_is_an_error():
    state = rename_to_published(backbone(1).state_dict(), 'backbone')
    state['stages.0.0.attn.relative_position_index'] = relative_position_index(7).T.flatten()
    with pytest.raises(RuntimeError, match='is not the index of a 7 x 7 window'):
        backbone(2).load_state_dict(state)


def test_another_shape_is_an_error_as_ever():
    state = rename_to_published(backbone(1).state_dict(), 'backbone')
    state['stages.0.0.attn.relative_position_bias_table'] = torch.ones(100, 1)
    with pytest.raises(RuntimeError, match=r'size mismatch for stages\.0\.blocks\.0\.attn'):
        backbone(2).load_state_dict(state)


def test_torch_loads_a_published_detector_strictly():
    pytest.importorskip('mmcv')
    source = Detector(1)
    state = rename_to_published(source.state_dict(), 'detector')
    assert 'neck.extra_trans_convs.0.conv.weight' in state
    for target in copies(Detector(2)):
        target.load_state_dict(state)
        assert_equal(source, target)


STOCK = """
import sys
import torch
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import load_state_dict
from test_published_loading import Detector, assert_equal, backbone

files = sys.argv[1]
source, target, other = backbone(1), backbone(2), backbone(3)
load_checkpoint(target, f'{files}/backbone.pth', strict=True)
assert_equal(source, target)
other.init_cfg = dict(type='Pretrained', checkpoint=f'{files}/backbone.pth')
other.init_weights()
assert_equal(source, other)
target = Detector(2)
load_checkpoint(target, f'{files}/detector.pth', strict=True)
assert_equal(Detector(1), target)
print(sorted(name for name in sys.modules if name.startswith(('mmlightvit.checkpoint', 'mmlightvit.durable'))))
print('mmengine', not hasattr(load_state_dict, '_mmlightvit_replaces'))
"""


def test_mmengine_as_it_comes_loads_published_files(tmp_path, repo):
    pytest.importorskip('mmcv')
    kinds = {'backbone': backbone(1), 'detector': Detector(1)}
    for kind, model in kinds.items():
        torch.save({'state_dict': rename_to_published(model.state_dict(), kind)}, tmp_path / f'{kind}.pth')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', STOCK, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=repo,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(repo / 'tests' / 'models'), str(repo), *sys.path])},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-2:] == ['[]', 'mmengine True']


INFERENCER = """
import sys
import mmlightvit.operators.installed
import torch
from mmdet.apis import DetInferencer
from mmengine.runner import checkpoint
from mmlightvit.published import rename_to_published

folder = sys.argv[1]
source = DetInferencer(f'{folder}/config.py', device='cpu').model
torch.save({'state_dict': rename_to_published(source.state_dict(), 'detector')}, f'{folder}/published.pth')
target = DetInferencer(f'{folder}/config.py', f'{folder}/published.pth', device='cpu').model
differing = [key for key, value in source.state_dict().items() if not target.state_dict()[key].equal(value)]
print(len(source.state_dict()) > 100, differing)
print(sorted(name for name in sys.modules if name.startswith(('mmlightvit.checkpoint', 'mmlightvit.durable'))))
print('mmengine', not hasattr(checkpoint.load_state_dict, '_mmlightvit_replaces'))
"""


def test_mmdets_inferencer_loads_a_published_detector(tmp_path, repo):
    """With no import of ours but the model and the operators that mmcv may lack."""
    pytest.importorskip('mmdet')
    sizes = dict(embed_dims=[8, 16, 32], num_heads=[1, 2, 4], num_blocks=[1, 1, 1], ffn_ratios=[2, 2, 2])
    arch = dict(_delete_=True, **sizes, num_global_tokens=2)
    (tmp_path / 'config.py').write_text(
        f"_base_ = '{repo / 'configs' / 'mask_rcnn_lightvit_t_1x.py'}'\n"
        "custom_imports = dict(_delete_=True, imports=['mmlightvit.models.backbones'], allow_failed_imports=False)\n"
        f'model = dict(backbone=dict(arch={arch}, init_cfg=None), neck=dict(in_channels=[8, 16, 32]))\n'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', INFERENCER, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=repo,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(repo), *sys.path])},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-3:] == ['True []', '[]', 'mmengine True']
