# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The runner of the configs (``runner_type = 'mmlightvit.Runner'``)."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import mmengine
import torch
from mmengine.dist import all_reduce, broadcast_object_list, is_main_process
from mmengine.fileio import get_file_backend, join_path
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import CheckpointHook as StockCheckpointHook
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper as StockAmpOptimWrapper
from mmengine.optim import OptimWrapper as StockOptimWrapper
from mmengine.registry import HOOKS as STOCK_HOOKS
from mmengine.registry import LOOPS as STOCK_LOOPS
from mmengine.registry import OPTIM_WRAPPERS as STOCK_OPTIM_WRAPPERS
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop as StockEpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as StockIterBasedTrainLoop
from mmengine.runner import Runner as StockRunner
from mmengine.runner.checkpoint import _load_checkpoint_to_model, weights_to_cpu
from mmengine.runner.checkpoint import save_checkpoint as save_to_backend
from mmengine.utils import apply_to, get_git_hash
from torch.utils.data import BatchSampler

from mmlightvit.durable import signals, trackers
from mmlightvit.durable.find import checkpoint_dir, remove_strays
from mmlightvit.durable.resume import (
    Choice,
    ResumeRequest,
    RunShape,
    choose_checkpoint,
    overruled,
    require_same_model,
    require_same_run,
    require_schedule,
)
from mmlightvit.durable.safe_loading import install as safe_loading
from mmlightvit.durable.safe_loading.read import read_checkpoint
from mmlightvit.durable.samplers import ResumableBatchSampler
from mmlightvit.durable.seal import atomic_save
from mmlightvit.durable.work_dir_lock import WorkDirLock
from mmlightvit.errors import AllRanksError, UserError
from mmlightvit.registry import RUNNERS

#: The classes that configs of the toolboxes name, and those that this runner takes instead; the arguments are the same.
REPLACEMENTS = {
    StockCheckpointHook: 'mmlightvit.CheckpointHook',
    StockEpochBasedTrainLoop: 'mmlightvit.EpochBasedTrainLoop',
    StockIterBasedTrainLoop: 'mmlightvit.IterBasedTrainLoop',
    StockOptimWrapper: 'mmlightvit.OptimWrapper',
    StockAmpOptimWrapper: 'mmlightvit.AmpOptimWrapper',
}


class _StopValidationHook(Hook):
    """Leaves a validation on request, all ranks after the same batch."""

    #: Batches from one look at the request to the next; with several ranks, a look is a reduction.
    interval = 4

    def before_val_epoch(self, runner: Any) -> None:
        if runner.world_size > 1:
            # Ranks may have different numbers of batches; after those that all have, all can agree.
            common = torch.tensor(float(len(runner.val_dataloader)))
            all_reduce(common, op='min')
            self._common = int(common)

    def after_val_iter(self, runner: Any, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        if runner.train_loop.iter == 0:
            return
        stop = signals.requested() is not None
        if runner.world_size > 1:
            if batch_idx % self.interval or batch_idx >= self._common:
                return
            flag = torch.tensor(float(stop))
            all_reduce(flag, op='max')
            stop = bool(flag)
        if stop:
            raise signals.ValidationStopped


@RUNNERS.register_module()
class Runner(StockRunner):
    """MMEngine's runner, with its arguments, made safe for long runs.

    - Checkpoints are written whole, checked when resumed from, and old ones removed last (:mod:`.seal`).
    - A resumed run repeats the uninterrupted one (:mod:`.samplers`, :mod:`.loops`).
    - Steps with a loss or gradient that is not finite are skipped (:mod:`.nonfinite`).
    - Ctrl-C and SIGTERM save first; a second run in the same work directory is refused (:mod:`.signals`).

    Where a config names MMEngine's loops, checkpoint hook or optimizer wrappers, the ones of this package take their
    place (``REPLACEMENTS``), so that configs and overrides written for the toolboxes keep working; the log names each.
    Checkpoints are read without executing them (:mod:`.safe_loading.install`).

    Args:
        model: As in MMEngine, like all arguments not named here.
        work_dir: Directory of the run.
        load_from: Weights to start from, or, with ``resume``, the checkpoint to go on from.
        resume: Go on from ``load_from``, or from the newest intact checkpoint in ``work_dir``.
        **kwargs: The other arguments of :class:`mmengine.runner.Runner`.

    Raises:
        UserError: The checkpoint to resume from is missing or damaged.
    """

    _randomness_cfg: dict

    def __init__(
        self, model: Any, work_dir: str, *, load_from: str | None = None, resume: bool = False, **kwargs: Any
    ) -> None:
        self._resume_request = ResumeRequest(load_from, bool(resume))
        self._resume_path: str | None = None
        #: The content of the checkpoint at `_resume_path`, from its choice until it is loaded.
        self._resume_checkpoint: dict | None = None
        self.resumed_meta: dict | None = None
        #: When the run began, in milliseconds since 1970; its checkpoints carry it in their seals.
        self._run_id = time.time_ns() // 1_000_000
        self._startup_messages: list[str] = []
        self._replaced: set[type] = set()
        self._checkpoint_dir = checkpoint_dir(work_dir, kwargs.get('default_hooks'))
        safe_loading.install()
        super().__init__(model=model, work_dir=work_dir, load_from=load_from, resume=resume, **kwargs)
        for message in self._startup_messages:
            self.logger.warning(message)
        if resume:
            self._load_from = self._resume_path
            self._resume = self._resume_path is not None

    @property
    def common_seed(self) -> int:
        """The seed that all ranks share."""
        rank_has_own = self._randomness_cfg.get('diff_rank_seed', False)
        return self.seed - self.rank if rank_has_own else self.seed

    # ---- resuming

    def setup_env(self, env_cfg: dict) -> None:
        """Join the process group, then choose the checkpoint: its seed is needed before anything random happens."""
        super().setup_env(env_cfg)
        if not self._resume_request.resume:
            return
        choices: list[Choice | None] = [None]
        if is_main_process():
            choices = [choose_checkpoint(self._resume_request, self.work_dir, self._checkpoint_dir)]
        broadcast_object_list(choices)
        (choice,) = choices
        assert choice is not None
        self._startup_messages += choice.messages
        if choice.problem is not None:
            raise AllRanksError(choice.problem)
        self._resume_path = choice.path
        if choice.path is not None:
            checkpoint = read_checkpoint(choice.path, map_location='cpu')
            if 'meta' not in checkpoint or 'optimizer' not in checkpoint:
                raise UserError(
                    f'{choice.path} holds weights only; start from it with load_from={choice.path}, not --resume'
                )
            self._resume_checkpoint = checkpoint

    def set_randomness(self, seed: int | None, diff_rank_seed: bool = False, deterministic: bool = False) -> None:
        """Seed; a resumed run keeps the seed that it began with."""
        if self._resume_checkpoint is not None:
            begun_with = self._resume_checkpoint['meta'].get('seed')
            if begun_with is not None and begun_with != seed:
                if seed is not None:
                    self._startup_messages.append(
                        f'The resumed run keeps its seed {begun_with}; randomness.seed={seed} is not used.'
                    )
                seed = begun_with
                self._randomness_cfg = dict(self._randomness_cfg, seed=seed)
        super().set_randomness(seed, diff_rank_seed=diff_rank_seed, deterministic=deterministic)

    def load_checkpoint(
        self, filename: str, map_location: Any = 'cpu', strict: bool = False, revise_keys: list | None = None
    ) -> dict:
        """Load a checkpoint into the model; one that is resumed from has been read already and has to fit exactly."""
        keys = [(r'^module.', '')] if revise_keys is None else revise_keys
        if self._resume_checkpoint is None or filename != self._resume_path:
            return super().load_checkpoint(filename, map_location, strict, keys)
        checkpoint, self._resume_checkpoint = self._resume_checkpoint, None
        checkpoint['meta'].pop('config', None)  # MMEngine would execute it
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        try:
            _load_checkpoint_to_model(model, checkpoint, strict=True, revise_keys=keys)
        except RuntimeError as error:
            raise AllRanksError(f"{filename} does not fit the config's model: {error}") from error
        self._has_loaded = True
        return checkpoint

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable = 'cpu',
    ) -> None:
        """Go on from a checkpoint; arguments as in MMEngine.

        Raises:
            UserError: The checkpoint does not fit the model, or the run's shape has changed.
        """
        if self._resume_checkpoint is None:  # called by hand, not by way of `resume=True`
            self._resume_path = filename
            self._resume_checkpoint = read_checkpoint(filename, map_location='cpu')
        model = self.model.module if is_model_wrapper(self.model) else self.model
        require_same_model(filename, self._resume_checkpoint['state_dict'], model.state_dict())
        self._require_same_run(self._resume_checkpoint['meta'])
        by_epoch, length = self._length_of_run()
        batches = len(self.train_dataloader) if by_epoch else None
        require_schedule(self._resume_checkpoint, length, batches, self.param_schedulers)
        replaced = overruled(self.optim_wrapper, self.param_schedulers, self._resume_checkpoint)
        if replaced:
            self.logger.warning(
                f"The run goes on with settings of its checkpoint in the place of the config's: {'; '.join(replaced)}. "
                "To train with the config's, start a new run from the weights: load_from=FILE, without --resume."
            )
        self.resumed_meta = {key: value for key, value in self._resume_checkpoint['meta'].items() if key != 'cfg'}
        if self._resume_request.same_run:
            # The same run goes on. One that is resumed from a file of the user's choice leaves newer ones behind, and
            # is the newest itself from here on.
            self._run_id = self.resumed_meta.get('began', self._run_id)
        super().resume(filename, resume_optimizer, resume_param_scheduler, map_location='cpu')

    def _init_model_weights(self) -> None:
        """Initialise the weights, unless all of them are about to come from the checkpoint that is resumed."""
        if self._resume_checkpoint is None:
            super()._init_model_weights()

    def _shape_of_run(self) -> RunShape:
        loader = self.train_dataloader
        wrapper = self.optim_wrapper
        if isinstance(wrapper, dict):
            counts = wrapper.get('accumulative_counts', 1)
        else:
            counts = getattr(wrapper, '_accumulative_counts', 1)
        return RunShape(
            world_size=self.world_size,
            batch_size=loader.batch_size or 0,
            accumulative_counts=counts,
            samples=len(loader.dataset),
            batches=len(loader),
        )

    def _length_of_run(self) -> tuple[bool, int]:
        """Whether epochs are counted, and how many of them, or iterations, the run has."""
        loop: Any = self.train_loop
        by_epoch = isinstance(loop, StockEpochBasedTrainLoop)
        return by_epoch, loop.max_epochs if by_epoch else loop.max_iters

    def _require_same_run(self, meta: dict) -> None:
        sampler = self.train_dataloader.batch_sampler
        if isinstance(sampler, ResumableBatchSampler):
            sampler = sampler.batch_sampler
        difference = require_same_run(
            meta,
            self._shape_of_run(),
            by_epoch=isinstance(self.train_loop, StockEpochBasedTrainLoop),
            grouping_sampler=None if type(sampler) is BatchSampler else type(sampler).__name__,
        )
        if difference is not None:
            self.logger.warning(difference)

    # ---- training

    def train(self) -> torch.nn.Module:
        """Train, alone in the work directory and stoppable.

        Raises:
            UserError: Another run is at work in the directory.
        """
        with self._alone(), signals.graceful_stop(self.world_size):
            self.register_hook(_StopValidationHook())
            self.register_hook(trackers.TrackingHook())
            return super().train()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        lock = WorkDirLock(self.work_dir)
        outcome: list[str | None] = [None]
        if is_main_process():
            try:
                lock.acquire()
            except UserError as error:
                outcome = [str(error)]
            else:
                for directory in {self.work_dir, self._checkpoint_dir}:
                    for stray in remove_strays(directory):
                        self.logger.info(f'Removed {stray}, left half-written by a run that was killed.')
        broadcast_object_list(outcome)
        if outcome[0] is not None:
            raise AllRanksError(outcome[0])
        try:
            yield
        finally:
            lock.release()

    def _with_ours(self, config: Any, registry: Registry, default: type | None = None) -> Any:
        """The config, with the class of ``REPLACEMENTS`` where it names MMEngine's; each is logged once."""
        if not isinstance(config, dict):
            return config
        kind = config.get('type', default)
        stock = registry.get(kind) if isinstance(kind, str) else kind
        if not isinstance(stock, type) or stock not in REPLACEMENTS:
            return config
        if stock not in self._replaced:
            self._replaced.add(stock)
            self.logger.info(f'{REPLACEMENTS[stock]} takes the place of {stock.__module__}.{stock.__name__}.')
        return type(config)({**config, 'type': REPLACEMENTS[stock]})

    def build_model(self, model: Any) -> Any:
        """Build the model; a wrong argument of a part of it is the user's to mend."""
        try:
            return super().build_model(model)
        except UserError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f'the model of the config cannot be built ({type(error).__name__}: {error})') from error

    def build_visualizer(self, visualizer: Any = None) -> Any:
        """Build the visualizer, whose backends may fail without the run."""
        built = super().build_visualizer(visualizer)
        trackers.guard(built)
        return built

    def build_train_loop(self, loop: Any) -> Any:
        """Build the training loop."""
        if isinstance(loop, dict) and 'type' not in loop:
            loop = dict(loop)
            by_epoch = loop.pop('by_epoch')
            loop['type'] = StockEpochBasedTrainLoop if by_epoch else StockIterBasedTrainLoop
        return super().build_train_loop(self._with_ours(loop, STOCK_LOOPS))

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build the optimizer wrapper."""
        if isinstance(optim_wrapper, dict) and 'optimizer' in optim_wrapper:
            optim_wrapper = self._with_ours(optim_wrapper, STOCK_OPTIM_WRAPPERS, StockOptimWrapper)
        return super().build_optim_wrapper(optim_wrapper)

    def scale_lr(self, optim_wrapper: Any, auto_scale_lr: dict | None = None) -> None:
        """Scale the rate to the batch: to its pictures, where an epoch has fewer than it has room for."""
        stated: Any = self._train_dataloader  # type: ignore[has-type]
        if (auto_scale_lr or {}).get('enable') and isinstance(self.train_loop, StockEpochBasedTrainLoop):
            there = math.ceil(len(self.train_dataloader.dataset) / self.world_size)
            if isinstance(stated, dict) and there < stated['batch_size']:
                self._train_dataloader = {**stated, 'batch_size': there}
        try:
            super().scale_lr(optim_wrapper, auto_scale_lr)
        finally:
            self._train_dataloader = stated

    def register_hook(self, hook: Any, priority: Any = None) -> None:
        """Add a hook."""
        super().register_hook(self._with_ours(hook, STOCK_HOOKS), priority)

    @staticmethod
    def build_dataloader(dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False) -> Any:
        """Build a data loader whose workers leave signals to the main process."""
        loader = StockRunner.build_dataloader(dataloader, seed, diff_rank_seed)
        if isinstance(dataloader, dict) and loader.num_workers > 0:
            loader.worker_init_fn = functools.partial(signals.init_worker, loader.worker_init_fn)
        return loader

    # ---- saving

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Save a checkpoint, in full or not at all; arguments as in MMEngine.

        ``meta`` says how far the training has come, in ``epoch`` and ``iter``; without, ``by_epoch`` tells whether an
        epoch or an iteration has just ended.

        Raises:
            UserError: The file cannot be written.
        """
        if not is_main_process():
            return
        meta = dict(meta or {})
        meta.setdefault('epoch', self.epoch + 1 if by_epoch else self.epoch)
        meta.setdefault('iter', self.iter if by_epoch else self.iter + 1)
        meta.update(
            cfg=self.cfg.pretty_text,
            seed=self.common_seed,
            began=self._run_id,
            experiment_name=self.experiment_name,
            time=time.strftime('%Y%m%d_%H%M%S', time.localtime()),
            mmengine_version=mmengine.__version__ + get_git_hash(),
            shape_of_run=self._shape_of_run(),
            length_of_run=self._length_of_run()[1],
        )
        if hasattr(self.train_dataloader.dataset, 'metainfo'):
            meta['dataset_meta'] = self.train_dataloader.dataset.metainfo
        model = self.model.module if is_model_wrapper(self.model) else self.model
        checkpoint: dict[str, Any] = {
            'meta': meta,
            'state_dict': weights_to_cpu(model.state_dict()),
            'message_hub': _to_cpu(self.message_hub.state_dict()),
        }
        if save_optimizer:
            assert isinstance(self.optim_wrapper, StockOptimWrapper)
            checkpoint['optimizer'] = _to_cpu(self.optim_wrapper.state_dict())
        if save_param_scheduler and self.param_schedulers is not None:
            checkpoint['param_schedulers'] = _states(self.param_schedulers)
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)

        path = join_path(out_dir, filename, backend_args=backend_args)
        local = isinstance(get_file_backend(path, backend_args=backend_args), LocalBackend)
        with signals.writing():
            if local and file_client_args is None:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                atomic_save(checkpoint, path, meta['iter'], meta['epoch'], resumable=save_optimizer, run=self._run_id)
            else:  # an object store, which takes an object whole
                save_to_backend(checkpoint, path, file_client_args=file_client_args, backend_args=backend_args)


def _states(schedulers: Any) -> Any:
    """The states of parameter schedulers: a list, or with several optimizers a dict of lists."""
    if isinstance(schedulers, dict):
        return {name: _states(of_one) for name, of_one in schedulers.items()}
    return [scheduler.state_dict() for scheduler in schedulers]


def _to_cpu(state: Any) -> Any:
    return apply_to(state, lambda value: hasattr(value, 'cpu'), lambda value: value.cpu())
