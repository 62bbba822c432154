# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Mixed precision on the CPU, and the operators that have no bfloat16 of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmlightvit.durable import bfloat16, wrappers
from mmlightvit.durable.bfloat16 import to_float32
from mmlightvit.durable.wrappers import AmpOptimWrapper
from mmlightvit.errors import UserError


def _wrapper(**more):
    layer = nn.Linear(4, 2)
    return layer, AmpOptimWrapper(optimizer=torch.optim.SGD(layer.parameters(), lr=0.5), **more)


@pytest.mark.skipif(torch.cuda.is_available(), reason='what happens without a GPU')
def test_bfloat16_on_the_cpu_computes_in_bfloat16_and_steps_in_float32():
    layer, wrapper = _wrapper()
    before = layer.weight.detach().clone()
    batch = torch.ones(3, 4)
    with wrapper.optim_context(layer):
        out = layer(batch)
    assert out.dtype == torch.bfloat16
    wrapper.update_params(out.float().sum())
    assert layer.weight.dtype == torch.float32
    torch.testing.assert_close(layer.weight, before - 0.5 * 3.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason='what happens without a GPU')
def test_its_state_goes_round_and_takes_a_scaler_of_a_gpu_run_or_none():
    _, wrapper = _wrapper()
    state = wrapper.state_dict()
    _wrapper()[1].load_state_dict(state)
    scaler = dict(scale=65536.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000, _growth_tracker=0)
    _wrapper()[1].load_state_dict({**wrapper.state_dict(), 'loss_scaler': scaler})


@pytest.mark.skipif(torch.cuda.is_available(), reason='what happens without a GPU')
def test_dtypes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match='float16 training needs a GPU'):
        _wrapper(dtype='float16')
    with pytest.raises(ValueError, match="expected 'float16', 'bfloat16' or None, got 'float64'"):
        _wrapper(dtype='float64')


def test_an_integer_is_a_fixed_loss_scale_too(monkeypatch):
    given = {}
    monkeypatch.setattr(wrappers, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(wrappers._AmpOptimWrapper, '__init__', lambda self, **arguments: given.update(arguments))
    AmpOptimWrapper(dtype='float16', loss_scale=512)
    assert type(given['loss_scale']) is float and given['loss_scale'] == 512.0


def test_to_float32_leaves_other_types_alone():
    value = [torch.ones(1, dtype=torch.bfloat16), (torch.ones(1, dtype=torch.float16), 3)]
    first, (second, number) = to_float32(value)
    assert (first.dtype, second.dtype, number) == (torch.float32, torch.float16, 3)


def test_mmcvs_operators_take_bfloat16():
    ops = pytest.importorskip('mmcv.ops')
    bfloat16.install()
    bfloat16.install()  # twice is once
    boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30.0]])
    scores = torch.tensor([0.5, 0.9, 0.7])
    assert ops.nms(boxes.bfloat16(), scores.bfloat16(), 0.5)[1].tolist() == [1, 2]


def test_anchors_keep_their_coordinates_in_bfloat16():
    """A map in bfloat16 would give anchors in bfloat16, where 1283 is rounded to 1280."""
    heads = pytest.importorskip('mmdet.models.dense_heads')
    from mmengine.registry import DefaultScope

    bfloat16.install()
    with DefaultScope.overwrite_default_scope('mmdet'):
        head = heads.RPNHead(
            in_channels=4,
            feat_channels=4,
            anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[1.0], strides=[4]),
        )
    with torch.autocast('cpu', torch.bfloat16):
        scores, deltas = head([torch.zeros(1, 4, 2, 2)])
    assert scores[0].dtype == deltas[0].dtype == torch.float32


@pytest.mark.parametrize('kind', ['SingleRoIExtractor', 'GenericRoIExtractor'])
def test_rois_keep_their_coordinates_in_bfloat16(kind):
    """The extractors give RoIs the type of the maps; 1001.5 would become 1000."""
    extractors = pytest.importorskip('mmdet.models.roi_heads.roi_extractors')
    bfloat16.install()
    layer = dict(type='RoIAlign', output_size=2)
    extractor = getattr(extractors, kind)(roi_layer=layer, out_channels=1, featmap_strides=[4])
    arrived = []
    extractor.roi_layers[0].register_forward_pre_hook(lambda _, inputs: arrived.extend(inputs))
    low = torch.randn(1, 1, 32, 256, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    full = low.detach().float().requires_grad_()
    rois = torch.tensor([[0, 945.3, 20.0, 1001.5, 80.0]])
    pooled, expected = extractor((low,), rois), extractor((full,), rois)
    assert arrived[0].dtype == arrived[1].dtype == torch.float32
    assert torch.equal(arrived[1], rois)
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled, expected.bfloat16())
    pooled.float().sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(low.grad, full.grad.bfloat16())
