# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A loss or gradient that is not finite costs one step."""

import copy
import logging

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import OptimWrapper as StockOptimWrapper
from torch import nn

from mmlightvit.durable.nonfinite import NonFiniteError, NonFiniteGuard, OptimWrapper


class _Sample:
    def __init__(self, img_path):
        self.img_path = img_path


@pytest.fixture
def parts(request):
    torch.manual_seed(0)
    MMLogger.get_instance(request.node.name, log_level='WARNING')
    MessageHub.get_instance(request.node.name)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def _wrap(model, kind=OptimWrapper, **arguments):
    return kind(optimizer=torch.optim.AdamW(model.parameters(), lr=0.1), **arguments)


def _iterate(model, wrapper, images, factor=1.0):
    if isinstance(wrapper, NonFiniteGuard):
        wrapper.watch(dict(data_samples=[_Sample('images/a.png'), _Sample('images/b.png')]))
    with wrapper.optim_context(model):
        loss = model(images).square().mean() * factor
    wrapper.update_params(loss)


def _state(model, wrapper):
    return copy.deepcopy((model.state_dict(), wrapper.optimizer.state_dict()['state']))


def _same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return all(_same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


@pytest.mark.parametrize('clip', [None, dict(max_norm=1.0), dict(type='value', clip_value=0.1)])
@pytest.mark.parametrize('counts', [1, 3])
@pytest.mark.parametrize('what', ['loss', 'gradient'])
def test_the_bad_window_leaves_no_trace(parts, clip, counts, what, caplog):
    wrapper = _wrap(parts, accumulative_counts=counts, clip_grad=copy.deepcopy(clip))
    for _ in range(counts):
        _iterate(parts, wrapper, torch.randn(5, 4))
    before = _state(parts, wrapper)
    for place in range(counts):
        images = torch.randn(5, 4)
        if place == counts // 2 and what == 'loss':
            images[0, 0] = float('nan')
        handle = None
        if place == counts // 2 and what == 'gradient':
            handle = parts[2].weight.register_hook(lambda gradient: gradient * float('inf'))
        _iterate(parts, wrapper, images)
        if handle is not None:
            handle.remove()
    assert _same(_state(parts, wrapper), before)
    assert wrapper.skipped_in_row == 1
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in parts.parameters())
    for _ in range(counts):
        _iterate(parts, wrapper, torch.randn(5, 4))
    assert not _same(_state(parts, wrapper), before)
    assert wrapper.skipped_in_row == 0
    assert wrapper.message_hub.get_info('skipped_steps') == 1


def test_the_stock_wrapper_is_poisoned(parts):
    wrapper = _wrap(parts, kind=StockOptimWrapper)
    _iterate(parts, wrapper, torch.full((5, 4), float('nan')))
    assert not torch.isfinite(parts[0].weight).all()
    assert not torch.isfinite(parts[1].running_mean).all()


@pytest.mark.parametrize('clip', [None, dict(max_norm=0.1)])
def test_good_steps_are_the_stock_ones(parts, clip):
    other = copy.deepcopy(parts)
    guarded = _wrap(parts, clip_grad=copy.deepcopy(clip))
    stock = _wrap(other, kind=StockOptimWrapper, clip_grad=copy.deepcopy(clip))
    for _ in range(3):
        images = torch.randn(5, 4)
        _iterate(parts, guarded, images)
        _iterate(other, stock, images)
    assert _same(parts.state_dict(), other.state_dict())


def test_the_run_ends_after_some_in_a_row_with_the_files(parts, caplog):
    wrapper = _wrap(parts, max_skipped=3)
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    for _ in range(2):
        _iterate(parts, wrapper, torch.full((5, 4), float('inf')))
    logger.removeHandler(caplog.handler)
    assert sum('images/a.png, images/b.png' in record.getMessage() for record in caplog.records) == 2
    assert caplog.records[0].levelno == logging.WARNING
    _iterate(parts, wrapper, torch.randn(5, 4))
    for _ in range(2):
        _iterate(parts, wrapper, torch.full((5, 4), float('inf')))
    with pytest.raises(NonFiniteError, match=r'3 in a row.*images/a.png, images/b.png'):
        _iterate(parts, wrapper, torch.full((5, 4), float('inf')))


class _ScaledWrapper(NonFiniteGuard, StockOptimWrapper):
    """Mixed precision's order of scaling, stepping and updating, on the CPU."""

    def __init__(self, scaler, **arguments):
        super().__init__(**arguments)
        self.loss_scaler = scaler
        self._scale_update_param = None

    def backward(self, loss, **kwargs):
        super().backward(self.loss_scaler.scale(loss), **kwargs)

    # NonFiniteGuard.backward is given the scaled loss here; a finite one stays finite at the scales of these tests.


def test_the_scalers_overflow_is_not_counted_until_there_is_no_scale_to_lower(parts):
    scaler = torch.amp.GradScaler('cpu', init_scale=4.0)
    wrapper = _ScaledWrapper(scaler, optimizer=torch.optim.AdamW(parts.parameters()), max_skipped=2)
    parts[2].weight.register_hook(lambda gradient: gradient * float('inf'))
    before = parts[0].weight.clone()
    for scale in (2.0, 1.0):
        _iterate(parts, wrapper, torch.randn(5, 4))
        assert wrapper.skipped_in_row == 0
        assert scaler.get_scale() == scale
    _iterate(parts, wrapper, torch.randn(5, 4))
    assert wrapper.skipped_in_row == 1
    with pytest.raises(NonFiniteError, match='gradient'):
        _iterate(parts, wrapper, torch.randn(5, 4))
    assert torch.equal(parts[0].weight, before)


def test_with_a_fixed_scale_every_bad_gradient_is_counted(parts):
    scaler = torch.amp.GradScaler('cpu', init_scale=512.0)
    wrapper = _ScaledWrapper(scaler, optimizer=torch.optim.AdamW(parts.parameters()), max_skipped=2)
    wrapper._scale_update_param = 512.0  # what MMEngine sets for `loss_scale=512.0`
    _iterate(parts, wrapper, torch.randn(5, 4))
    before = parts[0].weight.clone()
    parts[2].weight.register_hook(lambda gradient: gradient * float('nan'))
    _iterate(parts, wrapper, torch.randn(5, 4))
    assert (wrapper.skipped_in_row, scaler.get_scale()) == (1, 512.0)
    with pytest.raises(NonFiniteError, match='gradient'):
        _iterate(parts, wrapper, torch.randn(5, 4))
    assert torch.equal(parts[0].weight, before)


def test_a_bad_loss_is_counted_and_leaves_the_scale(parts):
    scaler = torch.amp.GradScaler('cpu', init_scale=4.0)
    wrapper = _ScaledWrapper(scaler, optimizer=torch.optim.AdamW(parts.parameters()))
    _iterate(parts, wrapper, torch.full((5, 4), float('nan')))
    assert wrapper.skipped_in_row == 1
    assert scaler.get_scale() == 4.0


def test_max_skipped_has_to_be_positive(parts):
    with pytest.raises(ValueError, match='max_skipped: expected at least 1, got 0'):
        _wrap(parts, max_skipped=0)
