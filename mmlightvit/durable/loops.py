# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""MMEngine's training loops, able to go on in the middle of an epoch and to stop on request.

Random numbers of the model are seeded with (seed, iteration, rank) before each iteration, so they depend neither on
the workers nor on whether the run was interrupted.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.dist import barrier, broadcast, get_world_size
from mmengine.hooks import EMAHook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop as _EpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as _IterBasedTrainLoop

from mmlightvit.durable import signals
from mmlightvit.durable.checkpoint_hook import CheckpointHook
from mmlightvit.durable.consensus import StepConsensus
from mmlightvit.durable.nonfinite import NonFiniteGuard
from mmlightvit.durable.samplers import ResumableBatchSampler, exact_dataloader, seed_all
from mmlightvit.registry import LOOPS


class _ExactLoop:
    """The common part of both loops: position, seeds, validation and stopping; the order of events stays MMEngine's."""

    runner: Any
    dataloader: Any
    _epoch: int
    _iter: int
    _consensus: StepConsensus

    def _batches(self, passed: int) -> Iterator[Any]:
        """The batches after the first ``passed`` ones, which are not loaded."""
        sampler = self.dataloader.batch_sampler
        if isinstance(sampler, ResumableBatchSampler):
            sampler.skip(passed)
            return iter(self.dataloader)
        # A data loader that was handed over ready-made: nothing else is possible.
        return itertools.islice(self._passes(), passed, None)

    def _passes(self) -> Iterator[Any]:
        return iter(self.dataloader)

    def _before_iter(self, data_batch: Any) -> None:
        seed_all('iteration', self.runner.common_seed, self._iter, self.runner.rank)
        for wrapper in self._wrappers():
            if isinstance(wrapper, NonFiniteGuard):
                wrapper.watch(data_batch)
                wrapper.consensus = self._consensus

    def _wrappers(self) -> list[Any]:
        """The optimizer wrapper, or those of a model with several optimizers."""
        wrapper = self.runner.optim_wrapper
        return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]

    def _after_iter(self) -> None:
        wrappers = self._wrappers()
        if not all(wrapper.should_update() for wrapper in wrappers):
            return  # a checkpoint between the iterations of a step would lose their gradients
        if self._consensus.stops():
            self._stop()

    def _stop(self) -> None:
        """Save on rank 0 while the others wait, and leave."""
        signals.reached_boundary()
        hooks = [hook for hook in self.runner.hooks if isinstance(hook, CheckpointHook)]
        if hooks:
            path = hooks[0].save_interrupted(self.runner, self._epoch, self._iter)
            self.runner.logger.info(f'Stopped after iteration {self._iter}; {path} is saved, go on with --resume.')
        barrier()
        # Another rank may have got the signal alone.
        raise signals.Stopped(signals.requested() or signals.signal.SIGTERM)

    def _validate(self) -> None:
        runner = self.runner
        if get_world_size() > 1:
            # Ranks have BatchNorm statistics of their own; what is validated is what is saved, rank 0's.
            for buffer in runner.model.buffers():
                broadcast(buffer, src=0)
        seed_all('validation', runner.common_seed, self._iter, runner.rank)
        try:
            runner.val_loop.run()
        except signals.ValidationStopped:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):
                    hook._swap_ema_parameters()
            self._stop()

    def _validate_if_cut_off(self, due: bool) -> None:
        """Run the validation that the checkpoint was saved before."""
        meta = self.runner.resumed_meta
        if meta is not None and due and not meta.get('validated', False):
            self._validate()


def _prepared(runner: Any, dataloader: Any, endless: bool) -> Any:
    if isinstance(dataloader, dict):
        return exact_dataloader(dataloader, runner.common_seed, endless)
    print_log(
        'The training data loader was handed over ready-made: a resumed run will not repeat its augmentation exactly.',
        logger='current',
        level=logging.WARNING,
    )
    return dataloader


def _keep_batch_size(dataloader: Any) -> None:
    # torch forgets the batch size when a batch sampler is given, and hooks (PreciseBN) ask for it.
    if dataloader.batch_size is None:
        dataloader.__dict__['batch_size'] = getattr(dataloader.batch_sampler, 'batch_size', None)


@LOOPS.register_module()
class EpochBasedTrainLoop(_ExactLoop, _EpochBasedTrainLoop):
    """MMEngine's loop over epochs, with its arguments, exactly resumable."""

    def __init__(self, runner: Any, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        self._consensus = StepConsensus()
        super().__init__(runner, _prepared(runner, dataloader, endless=False), *args, **kwargs)
        _keep_batch_size(self.dataloader)

    def run(self) -> torch.nn.Module:
        """Train."""
        self.runner.call_hook('before_train')
        self._decide_current_val_interval()
        at_boundary = self._epoch > 0 and self._iter == self._epoch * len(self.dataloader)
        self._validate_if_cut_off(at_boundary and self._validation_is_due())
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            if self._validation_is_due():
                self._validate()
        self.runner.call_hook('after_train')
        return self.runner.model

    def _validation_is_due(self) -> bool:
        return (
            self.runner.val_loop is not None
            and self._epoch >= self.val_begin
            and (self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs)
        )

    def run_epoch(self) -> None:
        """Train for the rest of an epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        sampler = self.dataloader.batch_sampler
        if isinstance(sampler, ResumableBatchSampler):
            sampler.sampler.set_epoch(self._epoch)
        passed = self._iter - self._epoch * len(self.dataloader)
        for index, data_batch in enumerate(self._batches(passed), passed):
            self.run_iter(index, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        """Train for an iteration; afterwards leave, if that was asked for."""
        self._before_iter(data_batch)
        super().run_iter(idx, data_batch)
        self._after_iter()


@LOOPS.register_module()
class IterBasedTrainLoop(_ExactLoop, _IterBasedTrainLoop):
    """MMEngine's loop over iterations, with its arguments, exactly resumable.

    ``fast_forward_on_resume`` has no use here: passing over batches loads no data.
    """

    def __init__(self, runner: Any, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        self._consensus = StepConsensus()
        super().__init__(runner, _prepared(runner, dataloader, endless=True), *args, **kwargs)
        _keep_batch_size(self.dataloader)

    def run(self) -> torch.nn.Module:
        """Train."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self._decide_current_val_interval()
        self._validate_if_cut_off(self._iter > 0 and self._validation_is_due())
        batches = self.dataloader_iterator = self._batches(self._iter)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            self._decide_current_val_interval()
            if self._validation_is_due():
                self._validate()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _passes(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(itertools.repeat(self.dataloader))

    def _validation_is_due(self) -> bool:
        return (
            self.runner.val_loop is not None
            and self._iter >= self.val_begin
            and (self._iter % self.val_interval == 0 or self._iter == self._max_iters)
        )

    def run_iter(self, data_batch: Sequence[dict]) -> None:
        """Train for an iteration; afterwards leave, if that was asked for."""
        self._before_iter(data_batch)
        super().run_iter(data_batch)
        self._after_iter()
