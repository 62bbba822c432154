# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Attention maps: they are what the model computes, they sum to one, and they lie where they belong."""

from __future__ import annotations

import pytest
import torch
from oracles import loop_aggregated_attention
from torch import nn
from variants import TEST_ARCH

from mmlightvit.errors import UserError
from mmlightvit.explain.attention import collect_maps, explicit_attention, find_backbone, to_pixels
from mmlightvit.models.backbones import LightViT
from mmlightvit.models.layers.attention import AggregatedAttention
from mmlightvit.models.layers.windows import TokenGrid

SIZES = [(112, 168), (75, 133), (30, 20)]  # whole windows in the first stage; padded ones; smaller than a window


def _random(module: nn.Module, std: float = 0.3) -> nn.Module:
    torch.manual_seed(0)
    for param in module.parameters():
        nn.init.normal_(param, std=std)
    return module.eval()


@pytest.mark.parametrize('height, width', [(14, 21), (9, 13), (3, 4)])
def test_explicit_attention_is_the_layers(height, width):
    attn = _random(AggregatedAttention(16, 4, 7))
    image, tokens = torch.randn(2, height, width, 16), torch.randn(2, 3, 16)
    grid = TokenGrid.of(image, 7)
    x = torch.cat([grid.flatten(image), tokens], dim=1)
    with torch.no_grad():
        aggregation, broadcast, out = explicit_attention(attn, x, grid)
        expected = attn(x, grid)
    assert aggregation.shape == (2, 4, 3, height * width) and broadcast.shape == (2, 4, height * width, 3)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    for weights in (aggregation, broadcast):
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-6, rtol=0)


def test_explicit_attention_against_loops():
    attn = _random(AggregatedAttention(8, 2, 3))
    image, tokens = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 8)
    grid = TokenGrid.of(image, 3)
    with torch.no_grad():
        _, _, out = explicit_attention(attn, torch.cat([grid.flatten(image), tokens], dim=1), grid)
        expected_image, expected_tokens = loop_aggregated_attention(attn, image, tokens)
    torch.testing.assert_close(grid.unflatten(out[:, :20]).double(), expected_image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out[:, 20:].double(), expected_tokens, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('size', SIZES)
def test_maps_of_every_block_sum_to_one(size):
    backbone = _random(LightViT(TEST_ARCH))
    maps = collect_maps(backbone, torch.randn(1, 3, *size))
    assert [(m.stage, m.block, m.stride) for m in maps] == [(1, 1, 8), (2, 1, 16), (2, 2, 16), (3, 1, 32)]
    for m in maps:
        grid = tuple(-(-side // m.stride) for side in size)
        assert m.aggregation.shape[2:] == m.broadcast.shape[2:] == m.spatial_gate.shape == grid
        torch.testing.assert_close(m.aggregation.sum((2, 3)), torch.ones(m.aggregation.shape[:2]), atol=1e-5, rtol=0)
        torch.testing.assert_close(m.broadcast.sum(1), torch.ones_like(m.broadcast[:, 0]), atol=1e-5, rtol=0)
        assert (m.spatial_gate > 0).all() and (m.channel_gate < 1).all()
    assert not any(module._forward_pre_hooks for module in backbone.modules())


@pytest.mark.parametrize('size', [(224, 224), (100, 230), (230, 75)])
@pytest.mark.parametrize('stage', [1, 2, 3])
def test_a_planted_peak_comes_out_at_its_pixel(size, stage):
    """A single token that a global token attends to, planted through the layer's own projection."""
    torch.manual_seed(0)
    backbone = _random(LightViT(TEST_ARCH), std=0.02)
    attn = backbone.stages[stage - 1].blocks[-1].attn
    stride = 4 * 2**stage
    for row, column in ((0.1, 0.2), (0.5, 0.7), (0.95, 0.9)):
        pixel = int(row * size[0]), int(column * size[1])
        token = pixel[0] // stride, pixel[1] // stride

        def plant(module, args, token=token):
            x, grid, *rest = args
            image = torch.zeros(1, grid.height, grid.width, x.shape[-1])
            image[0, token[0], token[1]] = 50.0
            return torch.cat([grid.flatten(image), torch.ones_like(x[:, grid.num_tokens :])], dim=1), grid, *rest

        with torch.no_grad():
            attn.qkv.bias.zero_()
            attn.qkv.weight.fill_(0.05)
        handle = attn.register_forward_pre_hook(plant)
        maps = collect_maps(backbone, torch.randn(1, 3, *size))
        handle.remove()
        found = next(m for m in reversed(maps) if m.stage == stage)
        for head_and_token in found.aggregation.flatten(0, 1):
            shown = to_pixels(head_and_token, found.stride, size)
            assert shown.shape == size
            peak = divmod(int(shown.argmax()), size[1])
            assert abs(peak[0] - pixel[0]) <= stride / 2 and abs(peak[1] - pixel[1]) <= stride / 2


def test_a_map_too_small_for_the_image_is_refused():
    with pytest.raises(ValueError, match='does not cover'):
        to_pixels(torch.ones(2, 2), 8, (17, 16))


def test_models_without_global_tokens_say_so():
    with pytest.raises(UserError, match='no global tokens'):
        find_backbone(LightViT(TEST_ARCH, num_global_tokens=0))
    with pytest.raises(UserError, match='expected a model with a LightViT backbone, got Conv2d'):
        find_backbone(nn.Conv2d(3, 4, 1))
