# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Counts against loops, against torch's own counter, and against the published tables."""

from __future__ import annotations

import itertools
import math

import published_rows
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from variants import TEST_ARCH

from mmlightvit.cost.counting import FORMULAS, ZERO_COST, count
from mmlightvit.errors import UserError
from mmlightvit.models.backbones import LightViT
from mmlightvit.toolboxes import build_model


def loop_conv_macs(x, weight, stride, padding, groups, transposed):
    """Visit each product of a convolution; one that falls on padding counts, as it does everywhere."""
    height, width = x.shape[-2:]
    kernel = weight.shape[-1]
    if transposed:
        positions = height * width
        pairs = weight.shape[0] * weight.shape[1]
    else:
        positions = sum(
            1
            for top, left in itertools.product(
                range(-padding, height + padding - kernel + 1, stride),
                range(-padding, width + padding - kernel + 1, stride),
            )
        )
        pairs = sum(weight.shape[1] for _ in range(weight.shape[0]))
    return x.shape[0] * positions * pairs * kernel * kernel


@pytest.mark.parametrize('groups', [1, 2, 4])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('transposed', [False, True])
def test_convolutions_as_in_loops(groups, stride, transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(4, 8, 3, stride=stride, padding=1, groups=groups)
    x = torch.empty(1, 4, 9, 12)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), layer)
    result = count(model, (9, 12))
    assert result.module('1').macs == loop_conv_macs(x, layer.weight, stride, 1, groups, transposed)
    assert result.module('0').macs == 9 * 12 * 3 * 4


def loop_attention_macs(q, k, v):
    macs = 0
    for _head, _query, _key in itertools.product(range(q.shape[1]), range(q.shape[2]), range(k.shape[2])):
        macs += q.shape[3]  # the score
        macs += v.shape[3]  # the weighted value
    return q.shape[0] * macs


class _Attention(nn.Module):
    """Attention of 5 queries over 7 keys, 2 heads of width 4, values of width 6; fused or composed."""

    def __init__(self, fused: bool, mask: bool) -> None:
        super().__init__()
        self.fused, self.mask = fused, mask

    def forward(self, image):
        q, k, v = (image.new_empty(1, 2, length, width) for length, width in ((5, 4), (7, 4), (7, 6)))
        mask = image.new_zeros(5, 7) if self.mask else None
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        scores = q @ k.transpose(-2, -1) * 0.5
        return (scores if mask is None else scores + mask).softmax(-1) @ v


@pytest.mark.parametrize('mask', [False, True])
@pytest.mark.parametrize('fused', [False, True])
def test_attention_counts_the_same_fused_and_composed(fused, mask):
    expected = loop_attention_macs(torch.empty(1, 2, 5, 4), torch.empty(1, 2, 7, 4), torch.empty(1, 2, 7, 6))
    assert count(_Attention(fused, mask), (1, 1)).macs == expected == 2 * 5 * 7 * 10


def test_every_form_of_a_matrix_product():
    class Products(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 5)

        def forward(self, image):
            x = image.new_empty(2, 7, 3)
            self.linear(x)  # 2 * 7 * 3 * 5 = 210
            self.linear(x[:, ::2])  # 2 * 4 * 3 * 5 = 120
            x @ x.transpose(1, 2)  # 2 * 7 * 7 * 3 = 294
            torch.einsum('bik,bjk->bij', x, x)  # 294
            torch.addmm(x[0, 0], x[0], x.new_empty(3, 3))  # 7 * 3 * 3 = 63
            torch.baddbmm(x.new_empty(2, 7, 7), x, x.transpose(1, 2))  # 294
            x[0] @ x.new_empty(3)  # 21

    assert count(Products(), (1, 1)).macs == 210 + 120 + 294 + 294 + 63 + 294 + 21


def test_agrees_with_the_counter_of_torch():
    model = LightViT(arch=TEST_ARCH).eval().requires_grad_(False)
    image = torch.rand(1, 3, 75, 112)
    # Torch's counter knows neither fused attention on a CPU nor matrix times vector.
    mv = {torch.ops.aten.mv: lambda matrix, vector, **_: 2 * math.prod(matrix)}
    counter = FlopCounterMode(display=False, custom_mapping=mv)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(image)
    assert count(model, (75, 112)).macs == counter.get_total_flops() // 2


def test_an_operator_in_neither_list_stops_the_count():
    class Inverse(nn.Module):
        def forward(self, image):
            return torch.linalg.cholesky_ex(image[0])[0]

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inverse()

        def forward(self, image):
            return self.inner(image)

    with pytest.raises(
        UserError, match=r'aten\.linalg_cholesky_ex \(in module inner\) is neither counted nor declared'
    ):
        count(Outer(), (4, 4))


def test_a_model_that_looks_at_values_stops_the_count():
    class Peek(nn.Module):
        def forward(self, image):
            return image * image.sum().item()

    with pytest.raises(UserError, match='reads a value'):
        count(Peek(), (4, 4))


def test_no_operator_is_in_both_lists():
    assert not set(FORMULAS) & ZERO_COST


def test_the_model_stays_as_it_was():
    model = LightViT(arch=TEST_ARCH).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count(model, (64, 64))
    assert model.training and not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(value.device.type == 'cpu' and torch.equal(value, before[k]) for k, value in model.state_dict().items())


def test_bytes_read_inputs_once_and_write_outputs_once():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten())
    result = count(model, (5, 6))
    read, written = 4 * (3 * 30 + 12 + 4) + 4 * 120, 4 * 120 + 4 * 120
    assert result.bytes == read + written
    assert result.module('0').bytes == 4 * (3 * 30 + 12 + 4) + 4 * 120 and result.module('2').bytes == 0
    assert count(model, (5, 6), torch.bfloat16).bytes * 2 == result.bytes


def test_modules_add_up_to_the_whole():
    result = count(LightViT(arch=TEST_ARCH), (64, 96))
    total, *rows = result.rows(1)
    for column in ('macs', 'published', 'paper', 'bytes'):
        # Moving tokens between the stages is nobody's.
        loose = total.bytes - sum(row.bytes for row in rows) if column == 'bytes' else 0
        assert sum(getattr(row, column) for row in rows) + loose == getattr(total, column) and loose >= 0
    named = {row.name for row in rows}
    assert named == {'global_token', 'patch_embed', 'stages', 'norm0', 'norm1', 'norm2'}
    assert sum(row.params for row in rows) == total.params == sum(p.numel() for p in LightViT(TEST_ARCH).parameters())


@pytest.mark.parametrize('cfg, words', [
    (dict(default_scope='mmpretrain'), 'expected a config with model'),
    (dict(type='mmlightvit.LightViT', arch='huge'), "arch: expected one of .* got 'huge'"),
])  # fmt: skip
def test_a_config_without_a_sound_model(cfg, words):
    with pytest.raises(UserError, match=words):
        build_model(cfg)


@pytest.mark.parametrize('shape', [(0, 4), (4,), (4, 4, 4)])
def test_a_wrong_shape(shape):
    with pytest.raises(UserError, match='shape: expected height and width'):
        count(nn.Conv2d(3, 4, 1), shape)


# -- published numbers ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('arch, params, published, convention', [
    ('tiny', 9_377_698, 0.772, 0.733),
    ('small', 19_200_248, 1.825, 1.743),
    ('base', 35_195_653, 4.107, 3.923),
])  # fmt: skip
def test_imagenet_classifiers(arch, params, published, convention):
    result = count(published_rows.classifier(arch))
    assert result.shape == (224, 224) and result.params == params
    assert result.macs == result.published  # no grid is padded
    assert result.published / 1e9 == pytest.approx(published, rel=1e-3)
    assert result.paper / 1e9 == pytest.approx(convention, rel=1e-3)


@pytest.mark.parametrize('tokens, published, convention', [
    (0, None, 0.670),
    (2, 0.719, 0.686),
    (4, 0.737, 0.702),
    (8, 0.772, 0.733),
    (16, 0.843, 0.796),
    (32, 0.985, 0.922),
])  # fmt: skip
def test_numbers_of_global_tokens(tokens, published, convention):
    result = count(published_rows.classifier(num_global_tokens=tokens))
    assert result.paper / 1e9 == pytest.approx(convention, rel=1e-3)
    if published is not None:
        assert result.published / 1e9 == pytest.approx(published, rel=1e-3)


@pytest.mark.parametrize('arch, params, published, convention', [
    ('tiny', 28.05, 187.4, 186.6),
    ('small', 37.76, 205.5, 203.9),
    ('base', 53.65, 243.7, 240.3),
    (None, 44.40, 259.3, 259.8),
])  # fmt: skip
def test_mask_rcnn(arch, params, published, convention):
    result = count(published_rows.mask_rcnn(arch))
    assert result.task == 'detector' and result.shape == (800, 1280)
    assert result.params / 1e6 == pytest.approx(params, abs=0.005)
    assert result.published / 1e9 == pytest.approx(published, rel=1e-3)
    assert result.macs / 1e9 == pytest.approx(published, rel=1e-3)
    assert result.paper / 1e9 == pytest.approx(convention, rel=1e-3)


def test_global_attention_without_gates_and_without_tokens():
    result = count(published_rows.classifier(spatial_attention=False, channel_attention=False))
    assert result.paper / 1e9 == pytest.approx(0.720, rel=1e-3)


def test_proposals_do_not_depend_on_the_weights():
    cfg = Config(dict(published_rows.mask_rcnn('tiny')))
    result = count(cfg)
    box, mask = result.module('roi_head.bbox_head'), result.module('roi_head.mask_head')
    assert box.macs == 1000 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * (81 + 320))
    four_convolutions, upsampling, logits = 4 * 196 * 9 * 256**2, 196 * 4 * 256**2, 784 * 256 * 80
    assert mask.macs == 100 * (four_convolutions + upsampling + logits)
