# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Backbones with weights, by name, folder and file; torch.hub's entry points."""

from __future__ import annotations

import json

import pytest
import torch

from mmlightvit.checkpoint.convert import write_state_dict
from mmlightvit.errors import UserError
from mmlightvit.models.backbones import LightViT
from mmlightvit.published import rename_to_published

IMAGE = torch.rand(1, 3, 65, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope='module')
def tiny():
    torch.manual_seed(0)
    return LightViT('tiny', out_type='raw', out_indices=(0, 1, 2)).eval()


@pytest.fixture
def cache(tiny, tmp_path, monkeypatch):
    """The published file of the tiny classifier, as far as the backbone goes, where torch keeps downloads."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setenv('MMLIGHTVIT_OFFLINE', '1')
    folder = tmp_path / 'hub' / 'checkpoints'
    folder.mkdir(parents=True)
    state = {f'backbone.{key}': value for key, value in tiny.state_dict().items()}
    state['head.norm.weight'] = state['head.norm.bias'] = torch.zeros(256)
    torch.save({'state_dict': dict(rename_to_published(state, 'classifier'))}, folder / 'lightvit_tiny_78.7.ckpt')
    return folder


def same(model, tiny) -> None:
    with torch.no_grad():
        for ours, theirs in zip(model.eval()(IMAGE), tiny(IMAGE)):
            torch.testing.assert_close(ours, theirs)


def test_by_name(cache, tiny):
    same(LightViT.from_pretrained('lightvit_t_imagenet', out_type='raw', out_indices=(0, 1, 2)), tiny)
    dense = LightViT.from_pretrained('lightvit_t_imagenet')
    assert [feature.shape[1] for feature in dense(IMAGE)] == [64, 128, 256]


def test_by_file(cache, tiny):
    path = str(cache / 'lightvit_tiny_78.7.ckpt')
    same(LightViT.from_pretrained(path, out_type='raw', out_indices=(0, 1, 2)), tiny)


def test_by_folder(tmp_path):
    arch = dict(embed_dims=[8, 16], num_heads=[1, 2], num_blocks=[1, 1], ffn_ratios=[2, 2], num_global_tokens=3)
    torch.manual_seed(0)
    model = LightViT(arch, out_indices=(0, 1)).eval()
    backbone = dict(type='mmlightvit.LightViT', arch=arch, out_indices=[0, 1], init_cfg=dict(type='Pretrained'))
    (tmp_path / 'model.json').write_text(json.dumps(dict(model=dict(backbone=backbone))))
    write_state_dict({f'backbone.{k}': v for k, v in model.state_dict().items()}, tmp_path / 'model.safetensors')
    same(LightViT.from_pretrained(str(tmp_path)), model)
    write_state_dict(model.state_dict(), tmp_path / 'alone.safetensors')
    with pytest.raises(UserError, match='give its model folder'):
        LightViT.from_pretrained(str(tmp_path / 'alone.safetensors'))
    (tmp_path / 'model.json').write_text('{}')
    with pytest.raises(UserError, match='describes no backbone'):
        LightViT.from_pretrained(str(tmp_path))


def test_a_wrong_name_is_named():
    with pytest.raises(UserError, match='nearest: lightvit_t_imagenet'):
        LightViT.from_pretrained('lightvit_t_imagnet')


def test_hub(cache, tiny, repo):
    arguments = dict(pretrained=True, out_type='raw', out_indices=(0, 1, 2))
    same(torch.hub.load(str(repo), 'lightvit_tiny', source='local', **arguments), tiny)
