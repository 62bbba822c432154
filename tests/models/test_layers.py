# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Each layer against its element-by-element form in float64."""

from __future__ import annotations

import copy
import gc
import pickle

import oracles
import pytest
import torch
from torch import nn

from mmlightvit.models.layers import (
    FFN,
    AggregatedAttention,
    BiDimensionalAttention,
    DropPath,
    PatchEmbed,
    ResidualPatchMerging,
    TokenGrid,
    VanillaAttention,
    kernels,
    window_partition,
    window_reverse,
)
from mmlightvit.models.layers.attention import relative_position_index
from mmlightvit.models.layers.kernels import EvalCache, fold_batch_norm, linear, linear_gelu


@pytest.fixture(params=[False, True], ids=['inference', 'training'])
def mode(request):
    """Layers choose other kernels while a gradient is recorded."""
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
    assert grid.in_windows == (size[0] % 3 == 0 and size[1] % 3 == 0)
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


def test_vanilla_attention(mode):
    attn = oracles.scramble(VanillaAttention(8, 2)).train(mode)
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


def test_folding_equals_the_norm_behind_the_convolution():
    conv, norm = torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4)
    oracles.scramble(norm).eval()
    x = torch.randn(1, 3, 5, 5)
    torch.testing.assert_close(torch.nn.functional.conv2d(x, *fold_batch_norm(conv, norm)), norm(conv(x)))


def test_a_hook_inside_the_stem_still_runs():
    layer, seen = PatchEmbed(3, 4).eval(), []
    layer.stem[1].register_forward_hook(lambda *args: seen.append(1))
    with torch.no_grad():
        layer(torch.randn(1, 3, 16, 16))
    assert seen == [1]


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    torch.manual_seed(0)
    out = DropPath(0.25).train()(torch.ones(4000, 3, 2))
    values = out.flatten(1)
    assert torch.all(values == values[:, :1])
    assert values.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.all(DropPath(0.25).eval()(torch.ones(5, 1)) == 1)
    with pytest.raises(ValueError, match='drop path rate'):
        DropPath(1.0)


class TestEvalCache:
    """Kept values may never be older than the parameters."""

    def bias(self, attn):
        with torch.no_grad():
            return attn.position_bias(torch.float32).clone()

    @pytest.fixture
    def attn(self):
        return AggregatedAttention(8, 2, window=2).eval()

    def test_is_used(self, attn):
        with torch.no_grad():
            assert attn.position_bias(torch.float32) is attn.position_bias(torch.float32)

    def test_sees_a_write(self, attn):
        before = self.bias(attn)
        with torch.no_grad():
            attn.relative_position_bias_table.add_(1)
        torch.testing.assert_close(self.bias(attn), before + 1)

    def test_sees_loaded_weights(self, attn):
        before = self.bias(attn)
        state = {key: value + 1 for key, value in attn.state_dict().items()}
        attn.load_state_dict(state)
        torch.testing.assert_close(self.bias(attn), before + 1)

    def test_sees_replaced_data(self, attn):
        before = self.bias(attn)
        attn.relative_position_bias_table.data = attn.relative_position_bias_table.data + 1
        torch.testing.assert_close(self.bias(attn), before + 1)

    def test_sees_data_replaced_twice(self):
        """Memory that was freed is given out again: the new data may lie at the old address."""
        attn = AggregatedAttention(8, 2, window=20).eval()  # a table large enough for that
        table = attn.relative_position_bias_table
        for step in range(0, 10, 2):
            for value in (step, step + 1):
                table.data = torch.full_like(table, value)
            assert (self.bias(attn) == step + 1).all()

    def test_sees_a_write_that_torch_does_not_count_after_eval(self, attn):
        """An averaging hook swaps weights through ``.data`` before it calls ``eval()``."""
        before = self.bias(attn)
        attn.relative_position_bias_table.data.add_(1)
        torch.testing.assert_close(self.bias(attn.eval()), before + 1)

    def test_sees_a_cast(self, attn):
        self.bias(attn)
        with torch.no_grad():
            assert attn.position_bias(torch.bfloat16).dtype == torch.bfloat16
            assert attn.double().position_bias(torch.float64).dtype == torch.float64

    def test_is_off_while_a_gradient_is_recorded(self, attn):
        self.bias(attn)
        assert attn.position_bias(torch.float32).requires_grad

    def test_works_for_parameters_made_in_inference_mode(self):
        with torch.inference_mode():
            attn = AggregatedAttention(8, 2, window=2).eval()
            before = attn.position_bias(torch.float32).clone()
            attn.relative_position_bias_table.add_(1)
            torch.testing.assert_close(attn.position_bias(torch.float32), before + 1)

    def test_is_neither_copied_nor_saved(self, attn):
        self.bias(attn)
        assert copy.deepcopy(attn)._bias_cache._entry is None
        assert isinstance(pickle.loads(pickle.dumps(attn))._bias_cache, EvalCache)
        assert not any('cache' in key for key in attn.state_dict())

    def test_folded_stem_sees_new_statistics(self):
        stem, image = oracles.scramble(PatchEmbed(3, 4)).eval(), torch.randn(1, 3, 16, 16)
        with torch.no_grad():
            before = stem(image)
            stem.stem[1].running_mean.add_(1)
            assert (stem(image) - before).abs().max() > 1e-3
        close(stem(image), oracles.loop_patch_embed(stem, image))


@pytest.mark.parametrize('form', [linear, linear_gelu])
def test_hooks_of_a_linear_layer_are_run(form):
    layer, x, seen = nn.Linear(4, 6), torch.randn(5, 4, requires_grad=True), []
    handles = [
        layer.register_full_backward_hook(lambda *_: seen.append('backward')),
        layer.register_forward_hook(lambda *_: seen.append('forward')),
    ]
    form(layer, x).sum().backward()
    handles.pop().remove()
    form(layer, x).sum().backward()
    assert seen == ['forward', 'backward', 'backward']


class TestPackedWeights:
    """oneDNN's layout of a weight may never be older than the weight."""

    @pytest.fixture(autouse=True)
    def _small_products_too(self, monkeypatch):
        monkeypatch.setattr(kernels, '_LARGE', 0)

    WRITES = dict(
        in_place=lambda layer: layer.weight.add_(1),
        loaded=lambda layer: layer.load_state_dict({'weight': layer.weight + 1, 'bias': layer.bias}),
        replaced=lambda layer: setattr(layer.weight, 'data', layer.weight.data + 1),
        new=lambda layer: setattr(layer, 'weight', nn.Parameter(layer.weight + 1)),
    )

    @pytest.mark.parametrize('form', [linear, linear_gelu])
    @pytest.mark.parametrize('write', WRITES)
    @torch.no_grad()
    def test_see_a_write(self, form, write):
        layer, x = nn.Linear(16, 8), torch.randn(5, 16)
        form(layer, x)
        self.WRITES[write](layer)
        want = layer(x) if form is linear else nn.functional.gelu(layer(x))
        torch.testing.assert_close(form(layer, x), want)

    @pytest.mark.parametrize('module', [AggregatedAttention(8, 2, window=2), FFN(8, 2)])
    @torch.no_grad()
    def test_see_a_write_that_torch_does_not_count_after_eval(self, module):
        arguments = (TokenGrid(2, 2, 2, True, None),) if isinstance(module, AggregatedAttention) else ()
        x = torch.randn(1, 6, 8)
        module.eval()(x, *arguments)
        for parameter in module.parameters():
            parameter.data.mul_(2)
        want = copy.deepcopy(module)(x, *arguments)
        torch.testing.assert_close(module.eval()(x, *arguments), want)

    @torch.no_grad()
    def test_are_used_and_go_with_the_layer(self):
        gc.collect()
        layer, x, before = nn.Linear(16, 8), torch.randn(5, 16), len(kernels._PACKED)
        with torch.profiler.profile(acc_events=True) as profile:
            for _ in range(3):
                linear(layer, x)
        calls = {event.key: event.count for event in profile.key_averages()}
        assert calls['mkldnn::_reorder_linear_weight'] == 1
        assert calls['mkldnn::_linear_pointwise'] == 3
        del layer
        gc.collect()
        assert len(kernels._PACKED) == before


@torch.no_grad()
def test_a_small_product_is_not_worth_a_call_of_onednn():
    layer, calls = nn.Linear(128, 128), []
    for rows in (2**9 - 1, 2**9):
        with torch.profiler.profile(acc_events=True) as profile:
            linear(layer, torch.randn(rows, 128))
        calls.append('mkldnn::_linear_pointwise' in {event.key for event in profile.key_averages()})
    assert calls == [False, True]


@torch.no_grad()
@pytest.mark.parametrize('size', [10, 2**12])
def test_gelu_is_exact(size):
    x = torch.linspace(-10, 10, size)
    torch.testing.assert_close(kernels.gelu(x), nn.functional.gelu(x.double()).float(), rtol=1e-5, atol=1e-6)


def test_linear_layers_under_function_transforms():
    layer, x = nn.Linear(4, 6), torch.randn(5, 4)
    with torch.no_grad():
        torch.testing.assert_close(torch.vmap(lambda row: linear(layer, row))(x), layer(x))
