# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Each layer against its element-by-element form in float64."""

from __future__ import annotations

import oracles
import pytest
import torch

from mmlightvit.models.layers.attention import AggregatedAttention, relative_position_index
from mmlightvit.models.layers.drop_path import DropPath
from mmlightvit.models.layers.ffn import FFN, BiDimensionalAttention
from mmlightvit.models.layers.patch_embed import PatchEmbed
from mmlightvit.models.layers.patch_merging import ResidualPatchMerging
from mmlightvit.models.layers.windows import TokenGrid, window_partition, window_reverse


@pytest.fixture(params=[False, True], ids=['inference', 'training'])
def mode(request):
    """Torch chooses other kernels while a gradient is recorded."""
    with torch.set_grad_enabled(request.param):
        yield request.param


def close(got, want, tolerance=1e-5):
    torch.testing.assert_close(got.detach().double(), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('window', [1, 2, 7])
def test_relative_position_index(window):
    assert torch.equal(relative_position_index(window), oracles.loop_relative_position_index(window))


def test_windows_come_in_raster_order_and_go_back():
    x = torch.arange(2 * 4 * 6).view(2, 4, 6, 1)
    windows = window_partition(x, 2)
    assert windows.shape == (2 * 2 * 3, 4, 1)
    assert windows[1].flatten().tolist() == [2, 3, 8, 9]  # rows 0 and 1, columns 2 and 3 of a grid 6 wide
    assert torch.equal(window_reverse(windows, 4, 6, 2), x)


@pytest.mark.parametrize('size', [(6, 9), (5, 7), (1, 1), (3, 8)])
def test_grid_round_trips(size):
    x = torch.randn(2, *size, 4)
    grid = TokenGrid.of(x, 3)
    assert (grid.real_keys is None) == (size[0] % 3 == 0 and size[1] % 3 == 0)
    flat = grid.flatten(x)
    assert torch.equal(grid.unflatten(flat), x)
    assert torch.equal(grid.from_windows(grid.to_windows(flat)), flat)


@pytest.mark.parametrize('size', [(4, 6), (3, 5), (1, 1), (2, 1)])
@pytest.mark.parametrize('num_tokens', [0, 3])
def test_aggregated_attention(size, num_tokens, mode):
    torch.manual_seed(0)
    attn = oracles.scramble(AggregatedAttention(8, 2, window=2, has_global_tokens=num_tokens > 0)).train(mode)
    image, tokens = torch.randn(2, *size, 8), torch.randn(2, num_tokens, 8) if num_tokens else None
    grid = TokenGrid.of(image, 2)
    flat = grid.flatten(image)
    got = attn(flat if tokens is None else torch.cat([flat, tokens], dim=1), grid)
    want_image, want_tokens = oracles.loop_aggregated_attention(attn, image, tokens)
    L = size[0] * size[1]
    close(grid.unflatten(got[:, :L]), want_image)
    if tokens is not None:
        close(got[:, L:], want_tokens)
        without = attn(torch.cat([flat, tokens], dim=1), grid, keep_global=False)
        torch.testing.assert_close(without, got[:, :L])


def test_padded_keys_take_part_in_the_window_but_not_in_the_aggregation():
    """A lone token in a 2x2 window: three keys are the bias of the projection."""
    attn = oracles.scramble(AggregatedAttention(8, 2, window=2)).eval()
    image, tokens = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 8)
    x = torch.cat([image.view(1, 1, 8), tokens], dim=1)
    got = attn(x, TokenGrid.of(image, 2))
    value = attn.qkv(image.view(1, 8))[:, 16:]
    # One real key: the aggregate is its value whatever the query is.
    torch.testing.assert_close(got[:, 1], attn.proj(value))
    # Were the padded keys left out of the window, the token would see itself alone.
    alone = attn.proj(value + attn.kv_global(value)[:, 8:])
    assert (got[:, 0] - alone).abs().max() > 1e-2


def test_attention_without_windows(mode):
    attn = oracles.scramble(AggregatedAttention(8, 2, None, has_global_tokens=False)).train(mode)
    x = torch.randn(2, 5, 8)
    close(attn(x, TokenGrid.of(x.view(2, 1, 5, 8), None)), oracles.loop_vanilla_attention(attn, x))


@pytest.mark.parametrize(('spatial', 'channel'), [(True, True), (True, False), (False, True)])
def test_bi_dimensional_attention(spatial, channel, mode):
    layer = oracles.scramble(BiDimensionalAttention(8, spatial, channel)).train(mode)
    y = torch.randn(2, 5, 8)
    close(layer(y), oracles.loop_bi_dimensional_attention(layer, y))


@pytest.mark.parametrize(('spatial', 'channel'), [(True, True), (False, False)])
def test_ffn(spatial, channel, mode):
    layer = oracles.scramble(FFN(8, 2, spatial, channel)).train(mode)
    x = torch.randn(2, 5, 8)
    close(layer(x), oracles.loop_ffn(layer, x))


@pytest.mark.parametrize('size', [(4, 6), (3, 5), (1, 1)])
@pytest.mark.parametrize('residual', [True, False])
def test_patch_merging_takes_cells_in_the_published_order(size, residual, mode):
    layer = oracles.scramble(ResidualPatchMerging(4, 8, residual=residual)).train(mode)
    x, tokens = torch.randn(2, *size, 4), torch.randn(2, 3, 4)
    got, got_tokens = layer(x, tokens)
    close(got, oracles.loop_patch_merging(layer, x))
    torch.testing.assert_close(got_tokens, layer.global_proj(layer.global_norm(tokens)))


@pytest.mark.parametrize('stride', [4, 8])
@pytest.mark.parametrize('size', [(17, 9), (1, 3)])
def test_patch_embed(stride, size, mode):
    layer = oracles.scramble(PatchEmbed(3, 4, stride=stride)).eval()
    image = torch.randn(2, 3, *size)
    got = layer(image)
    assert got.shape == (2, -(-size[0] // stride), -(-size[1] // stride), 4)
    close(got, oracles.loop_patch_embed(layer, image))


def test_patch_embed_trains_its_batch_norms():
    layer = PatchEmbed(3, 4).train()
    before = layer.stem[1].running_mean.clone()
    with torch.no_grad():
        layer(torch.randn(2, 3, 16, 16) + 1)
    assert not torch.equal(layer.stem[1].running_mean, before)


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    torch.manual_seed(0)
    out = DropPath(0.25).train()(torch.ones(4000, 3, 2))
    values = out.flatten(1)
    assert torch.all(values == values[:, :1])
    assert values.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.all(DropPath(0.25).eval()(torch.ones(5, 1)) == 1)


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: AggregatedAttention(10, 4, 7), 'channels: expected a multiple of num_heads=4, got 10'),
        (lambda: BiDimensionalAttention(10), 'channels: expected a multiple of reduction=4, got 10'),
        (
            lambda: BiDimensionalAttention(8, spatial=False, channel=False),
            'spatial, channel: expected one of them',
        ),
        (lambda: PatchEmbed(3, 8, stride=16), 'patch_stride: expected 4 or 8, got 16'),
        (lambda: PatchEmbed(3, 7), 'embed_dims: expected an even width of the first stage, got 7'),
        (lambda: DropPath(1.0), r'drop_path_rate: expected a number in \[0, 1\), got 1.0'),
    ],
)
def test_wrong_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
