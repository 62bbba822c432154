# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A loss or gradient that is not finite costs one step, not the run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper as _OptimWrapper
from torch import Tensor, nn

from mmlightvit.durable.consensus import StepConsensus
from mmlightvit.errors import AllRanksError, listed
from mmlightvit.registry import OPTIM_WRAPPERS

_NAMES_SHOWN = 32


class NonFiniteError(AllRanksError):
    """Too many steps in a row had a loss or gradient that was not finite."""


class NonFiniteGuard:
    """Mixin before an optimizer wrapper: skips a step whose loss or gradient is not finite, on all ranks alike.

    A step is the whole window of gradient accumulation. Skipping it leaves parameters and optimizer state as they
    were, and puts back the buffers (BatchNorm statistics) that the window's forward passes changed. With a dynamic
    gradient scaler, an infinite gradient of a finite loss is the scaler's way to find its scale: it is not counted, as
    long as there is a scale above 1 to lower. A fixed scale is lowered by nothing, so there it is counted.

    All ranks decide alike, by the loop's :class:`.StepConsensus` or, under another loop, by one of its own.

    Args:
        max_skipped: The run stops at this many skipped steps in a row.

    Raises:
        ValueError: ``max_skipped`` is below 1.
    """

    # Of the optimizer wrapper that follows in the order of classes.
    optimizer: Any
    clip_grad_kwargs: dict | None
    message_hub: Any
    _inner_count: int
    _accumulative_counts: int

    def __init__(self, *args: Any, max_skipped: int = 10, **kwargs: Any) -> None:
        self.init_guard(max_skipped)
        super().__init__(*args, **kwargs)

    def init_guard(self, max_skipped: int = 10) -> None:
        """Set the guard up; for subclasses that do not run its constructor."""
        if max_skipped < 1:
            raise ValueError(f'max_skipped: expected at least 1, got {max_skipped}')
        self.max_skipped = max_skipped
        self.skipped_in_row = 0
        self.consensus = StepConsensus()
        self._batch: Any = None
        self._loss_is_bad: Tensor | None = None
        self._owners: list[nn.Module] | None = None
        self._buffers: list[Tensor] = []
        self._kept: list[Tensor] = []

    def watch(self, batch: Any) -> None:
        """Tell which batch comes next, to name its files if it does harm.

        Args:
            batch: The data loader's batch; released at the next one.
        """
        self._batch = batch

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Remember the buffers at the start of a window, then the wrapper's own context."""
        if self._inner_count % self._accumulative_counts == 0:
            self._remember_buffers(model)
            self._loss_is_bad = None
        with super().optim_context(model):  # type: ignore[misc]
            yield

    def _remember_buffers(self, model: nn.Module) -> None:
        if self._owners is None:
            self._owners = [module for module in model.modules() if module._buffers]
        buffers = [buffer for owner in self._owners for buffer in owner._buffers.values() if buffer is not None]
        fits = len(buffers) == len(self._kept) and all(
            now.shape == kept.shape and now.device == kept.device and now.dtype == kept.dtype
            for now, kept in zip(buffers, self._kept)
        )
        self._buffers = buffers
        with torch.no_grad():
            if not fits:
                self._kept = [buffer.clone() for buffer in buffers]
            elif buffers:
                torch._foreach_copy_(self._kept, buffers)

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Note whether the loss is finite, without waiting for the device, and go on."""
        bad = ~torch.isfinite(loss.detach()).all()
        self._loss_is_bad = bad if self._loss_is_bad is None else self._loss_is_bad | bad
        super().backward(loss, **kwargs)  # type: ignore[misc]

    def step(self, **kwargs: Any) -> None:
        """Clip, agree with the other ranks, and update the parameters or skip.

        Raises:
            NonFiniteError: This was skipped step number ``max_skipped`` in a row.
        """
        scaler = getattr(self, 'loss_scaler', None)
        if scaler is not None and not scaler.is_enabled():
            scaler = None
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        norm = self._clip_and_measure()
        bad_loss, bad_gradient, norm_value = self._agree(norm)
        if not bad_loss and not bad_gradient:
            if norm is not None and self.clip_grad_kwargs and self.grad_name == 'grad_norm':  # type: ignore[attr-defined]
                self.message_hub.update_scalar('train/grad_norm', norm_value)
            if scaler is None:
                self.optimizer.step(**kwargs)
            else:
                scaler.step(self.optimizer, **kwargs)
                scaler.update(self._fixed_scale)
            self.skipped_in_row = 0
            return

        with torch.no_grad():
            for buffer, kept in zip(self._buffers, self._kept):
                buffer.copy_(kept)
        if scaler is not None:
            scale = scaler.get_scale()
            if not bad_loss and scale > 1 and self._fixed_scale is None:
                scaler.step(self.optimizer, **kwargs)  # skips by itself, having found the infinity
                scaler.update()
                return
            scaler.update(scale)  # closes the scaler's round without blaming the scale
        self._skip('loss' if bad_loss else 'gradient')

    @property
    def _fixed_scale(self) -> float | None:
        return getattr(self, '_scale_update_param', None)

    def _clip_and_measure(self) -> Tensor | None:
        """The gradients' norm before clipping, on the device; clips if asked to."""
        parameters = [p for group in self.optimizer.param_groups for p in group['params'] if p.grad is not None]
        if not parameters:
            return None
        gradients = [p.grad for p in parameters]
        if self.clip_grad_kwargs and self.grad_name == 'grad_norm':  # type: ignore[attr-defined]
            return self.clip_func(parameters, **self.clip_grad_kwargs)  # type: ignore[attr-defined]
        # A sum of norms: finite exactly if all are, and no second pass over the gradients.
        norm = torch.stack(torch._foreach_norm(gradients)).sum()
        if self.clip_grad_kwargs:
            self.clip_func(parameters, **self.clip_grad_kwargs)  # type: ignore[attr-defined]
        return norm

    def _agree(self, norm: Tensor | None) -> tuple[bool, bool, float]:
        """Whether any rank's loss or gradient is not finite, and this rank's norm, for one wait on the device."""
        reference = norm if norm is not None else self._loss_is_bad
        if reference is None:
            return False, False, 0.0
        zero = reference.new_zeros((), dtype=torch.float32)
        loss = zero if self._loss_is_bad is None else self._loss_is_bad.float()
        gradient = zero if norm is None else (~torch.isfinite(norm)).float()
        reading = zero if norm is None else norm
        (bad_loss, bad_gradient), norm_value = self.consensus.agree((loss, gradient), reading)
        return bad_loss, bad_gradient, norm_value

    def _skip(self, what: str) -> None:
        self.skipped_in_row += 1
        self.message_hub.update_info('skipped_steps', self.message_hub.runtime_info.get('skipped_steps', 0) + 1)
        own = self._loss_is_bad is not None and bool(self._loss_is_bad)
        gathered = all_gather_object((get_rank(), own, batch_files(self._batch)))
        # The rank whose loss is bad has the cause; a gradient's comes to all ranks at once.
        guilty = [entry for entry in gathered if entry[1]] or gathered
        names = [name for _, _, files in guilty for name in files]
        iteration = self.message_hub.runtime_info.get('iter', self._inner_count - 1) + 1
        told = (
            f'the {what} of iteration {iteration} is not finite '
            f'({self.skipped_in_row} in a row, {self.max_skipped} end the run); '
            f'files of the batch: {listed(names, _NAMES_SHOWN) or "not known"}'
        )
        if self.skipped_in_row >= self.max_skipped:
            raise NonFiniteError(
                f'{told}. The weights are those of the last good step; look at the files, lower the learning rate '
                'or clip gradients (optim_wrapper.clip_grad), then go on with --resume'
            )
        print_log(f'Step skipped: {told}', logger='current', level=logging.WARNING)


def batch_files(batch: Any) -> list[str]:
    """The image files of a batch, as its data samples name them.

    Args:
        batch: What the data loader gave: a dict with ``data_samples``, each with ``img_path``; else nothing is known.
    """
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    if not isinstance(samples, Sequence):
        return []
    return [str(sample.img_path) for sample in samples if getattr(sample, 'img_path', None)]


@OPTIM_WRAPPERS.register_module()
class OptimWrapper(NonFiniteGuard, _OptimWrapper):
    """MMEngine's optimizer wrapper, with its arguments, guarded.

    Args:
        optimizer: The optimizer.
        accumulative_counts: Iterations in a step.
        clip_grad: Arguments of ``torch.nn.utils.clip_grad_norm_``, or, with ``type='value'``, of ``clip_grad_value_``.
        max_skipped: The run stops at this many skipped steps in a row.
    """
