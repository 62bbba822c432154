# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Published weights in, published outputs out: through the converter, and given directly."""

from __future__ import annotations

import re

import golden
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')

from mmlightvit.checkpoint.convert import convert
from mmlightvit.checkpoint.identify import recognise
from mmlightvit.checkpoint.load import load_into
from mmlightvit.durable.safe_loading.read import read_checkpoint
from mmlightvit.models.backbones import LightViT
from mmlightvit.published import rename_to_published, to_published

WAYS = ['direct', 'converted', 'safetensors']


@pytest.fixture
def given(published_files, tmp_path):
    """A function that gives a published file as it is, converted, or converted to safetensors."""

    def give(name: str, way: str) -> str:
        if way == 'direct':
            return str(published_files[name])
        target = tmp_path / f'{name}.{"pth" if way == "converted" else "safetensors"}'
        convert(published_files[name], target)
        return str(target)

    return give


def build(config: str, repo) -> torch.nn.Module:
    cfg = Config.fromfile(repo / 'configs' / config)
    cfg.model.backbone.pop('init_cfg', None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model).eval()


def assert_gradients(model, kind, outputs, expected):
    """Gradient norms of the golden loss, under the published names."""
    loss = sum(
        (out * torch.from_numpy(np.random.RandomState(7 + i).standard_normal(out.shape).astype(np.float32))).mean()
        for i, out in enumerate(outputs)
    )
    model.zero_grad()
    loss.backward()
    checked = 0
    for name, parameter in model.named_parameters():
        norm = float(expected[f'gradnorm/{to_published(name, kind)}'])
        assert abs(float(parameter.grad.norm()) - norm) <= 1e-3 * norm + 1e-7, name
        checked += 1
    assert checked == sum(key.startswith('gradnorm/') for key in expected)


@pytest.mark.parametrize('way', WAYS)
def test_backbone(given, way):
    expected = golden.outputs('backbone_tiny')
    model = LightViT('tiny', init_cfg=dict(type='Pretrained', checkpoint=given('backbone_tiny', way))).eval()
    model.init_weights()
    for shape in ('75x101x2', '96x160x1'):
        height, width, batch = map(int, shape.split('x'))
        with torch.no_grad():
            for i, out in enumerate(model(golden.image(height, width, batch))):
                key = f'{shape}/feat{i}'
                np.testing.assert_allclose(golden.kept(key, out), expected[key], rtol=0, atol=1e-4)
    if way != 'safetensors':
        assert_gradients(model, 'backbone', model(golden.image(96, 160, 1)), expected)


@pytest.mark.parametrize('way', WAYS)
def test_classifier(given, repo, way):
    expected = golden.outputs('cls_tiny')
    model = build('lightvit_t_imagenet.py', repo)
    load_checkpoint(model, given('cls_tiny', way), map_location='cpu')
    logits = model(golden.image(224, 224, 2))
    np.testing.assert_allclose(logits.detach().numpy(), expected['224x224x2/logits'], rtol=0, atol=1e-4)
    if way == 'direct':
        assert_gradients(model, 'classifier', [logits], expected)


@pytest.fixture(scope='module')
def detector(repo):
    return build('mask_rcnn_lightvit_t_1x.py', repo)


@pytest.mark.parametrize('way', WAYS)
def test_detector(given, detector, way):
    expected = {key.split('/')[1]: value for key, value in golden.outputs('detector_tiny').items()}
    with torch.no_grad():
        for value in detector.parameters():
            value.zero_()
        load_checkpoint(detector, given('detector_tiny', way), map_location='cpu')
        levels = detector.extract_feat(golden.image(96, 160, 1))
        rpn_cls, rpn_reg = detector.rpn_head(levels)
        rois = torch.from_numpy(expected['rois'])
        box = detector.roi_head._bbox_forward(levels, rois)
        mask = detector.roi_head._mask_forward(levels, rois)
    got = {f'level{i}': level for i, level in enumerate(levels)}
    got |= {'rpn_cls_level1': rpn_cls[1], 'rpn_reg_level2': rpn_reg[2]}
    got |= {'roi_cls_score': box['cls_score'], 'roi_bbox_pred': box['bbox_pred']}
    got['roi_mask_logits'] = mask['mask_preds']
    assert got.keys() == expected.keys() - {'rois'}
    for key, value in got.items():
        np.testing.assert_allclose(golden.kept(key, value), expected[key], rtol=0, atol=1e-4, err_msg=key)


def published_keys(blocks: list[int]) -> set[str]:
    """The published backbone's keys for any numbers of blocks, written from T's list without our table."""
    keys = set()
    for key in golden.layout('backbone_tiny'):
        match = re.fullmatch(r'stages\.(\d)\.(\d+)\.(.*)', key)
        if match is None or (match[1] != '0' and match[2] == '0'):
            keys.add(key)
            continue
        first = 0 if match[1] == '0' else 1
        keys |= {f'stages.{match[1]}.{first + j}.{match[3]}' for j in range(blocks[int(match[1])])}
    return keys


@pytest.mark.parametrize(
    ('arch', 'blocks', 'tokens'), [('small', [2, 6, 6], 16), ('base', [3, 8, 6], 24), ('tiny', [2, 6, 6], 512)]
)
def test_other_variants_come_back_as_they_went(backbone, tmp_path, arch, blocks, tokens):
    model = backbone(1, arch, num_global_tokens=tokens)
    published = rename_to_published(model.state_dict(), 'backbone')
    assert published.keys() == published_keys(blocks)
    torch.save({'model': {f'module.{key}': value for key, value in published.items()}}, tmp_path / 'published.ckpt')
    source, differences = convert(tmp_path / 'published.ckpt', tmp_path / 'own.pth')
    assert (source.kind, source.architecture.arch, source.architecture.num_global_tokens) == ('backbone', arch, tokens)
    assert not differences
    image = torch.rand(1, 3, 57, 75)
    with torch.no_grad():
        expected = model(image)
        other = backbone(2, arch, num_global_tokens=tokens)
        for file in ('published.ckpt', 'own.pth'):
            for parameter in other.parameters():
                parameter.zero_()
            load_into(other, str(tmp_path / file))
            for a, b in zip(other(image), expected):
                assert a.equal(b)


def test_recognition_of_each_published_file(published_files):
    for name, kind in (('cls_tiny', 'classifier'), ('backbone_tiny', 'backbone'), ('detector_tiny', 'detector')):
        source = recognise(read_checkpoint(published_files[name])['state_dict'])
        assert (source.layout, source.kind, source.architecture.arch) == ('published', kind, 'tiny')
        assert source.architecture.window_size == 7
