# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``--time``: as many epochs as fit, from the speed of some iterations and a validation on this machine."""

from __future__ import annotations

import copy
import gc
import math
import re
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook

from mmlightvit.cli import recipe
from mmlightvit.cli.config import load_config
from mmlightvit.cli.quiet import quiet_terminal
from mmlightvit.cli.run import build_runner
from mmlightvit.durable.find import goes_on
from mmlightvit.errors import UserError

_WARM_UP, _TIMED = 5, 20  # iterations
_RESERVE = 0.05  # of the time, for checkpoints, and for epochs that are slower than the first iterations
_KEPT = ('timer', 'param_scheduler', 'sampler_seed', 'data_guard')
_BEGAN = time.monotonic()  # when this module was imported: the command counts from its start


class Speed(NamedTuple):
    """A measurement: seconds per iteration and per validation, iterations per epoch, pictures, processes."""

    iteration: float
    validation: float
    length: int
    pictures: int
    processes: int


def seconds_of(text: str) -> float:
    """``2h30m``, ``90m``, ``45s``, ``1.5h`` in seconds.

    Raises:
        UserError: It is no time.
    """
    match = re.fullmatch(r'(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?', text.strip().lower())
    try:
        hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
    except ValueError:
        hours = minutes = seconds = 0.0
    if not (total := 3600 * hours + 60 * minutes + seconds) > 0:
        raise UserError(f'--time {text}: expected hours, minutes, seconds, such as 2h30m, 45m or 90s')
    return total


def use_time(cfg: Config, seconds: float) -> str:
    """Give a config the epochs that fit into a time, its schedule stretched to them, and the hook that holds it.

    A run that goes on keeps the length that was found when it began.

    Args:
        cfg: The config, ready to train; changed in place.
        seconds: The time.

    Returns:
        The measurement and the epochs, in a line.

    Raises:
        UserError: Not one epoch fits.
    """
    written = Path(cfg.work_dir) / Path(cfg.filename).name
    hooks = recipe.custom_hooks(cfg, 'TimeBudgetHook')
    if goes_on(cfg) and written.is_file():
        earlier = load_config(str(written))
        cfg.train_cfg, cfg.param_scheduler = earlier.train_cfg, earlier.get('param_scheduler')
        cfg.default_hooks = earlier.default_hooks
        cfg.custom_hooks = [*hooks, ConfigDict(type='mmlightvit.TimeBudgetHook', seconds=seconds)]
        return 'the run keeps the length that it began with'
    speed = measure(cfg)
    left = seconds - (time.monotonic() - _BEGAN)
    rounds = cfg.train_cfg.get('val_interval', 1) if cfg.train_cfg.get('max_epochs') else 1
    epoch = speed.iteration * speed.length + speed.validation / rounds
    epochs = math.floor(left * (1 - _RESERVE) / epoch)
    agreed = [epochs, left]
    broadcast_object_list(agreed)
    epochs, left = int(agreed[0]), float(agreed[1])
    speeds = f'{speed.iteration:.3g} s an iteration, {speed.validation:.3g} s a validation'
    if epochs < 1:
        start, one = (timedelta(seconds=math.ceil(value)) for value in (seconds - left, epoch / (1 - _RESERVE)))
        raise UserError(
            f'--time: an epoch with its validation does not fit: the start has taken {start}, and one takes {one} '
            f'({speeds}); give at least {start + one}'
        )
    recipe.stretch(cfg, epochs, speed.pictures, speed.processes)
    cfg.custom_hooks = [*hooks, ConfigDict(type='mmlightvit.TimeBudgetHook', seconds=round(left, 1))]
    return f'{speeds}: {epochs} epoch{"s" if epochs > 1 else ""} in {timedelta(seconds=round(epochs * epoch))}'


class _Clock(Hook):
    priority = 'LOWEST'
    began = ended = validation = 0.0

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == _WARM_UP:
            self.began = time.monotonic()
        elif runner.iter + 1 == _WARM_UP + _TIMED:
            self.ended = time.monotonic()

    def before_val(self, runner: Any) -> None:
        self.validation = time.monotonic()

    def after_val(self, runner: Any) -> None:
        self.validation = time.monotonic() - self.validation


def measure(cfg: Config) -> Speed:
    """Time some iterations and a validation of a training that leaves nothing behind.

    Args:
        cfg: Of the training.
    """
    probe = copy.deepcopy(cfg)
    iterations = _WARM_UP + _TIMED
    probe.train_cfg = ConfigDict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations)
    probe.param_scheduler, probe.load_from, probe.resume = None, None, False
    probe.visualizer = ConfigDict(type='Visualizer', name='timing', vis_backends=[])
    probe.default_hooks = {name: hook for name, hook in (cfg.get('default_hooks') or {}).items() if name in _KEPT}
    probe.default_hooks.update(checkpoint=None, logger=None)
    probe.custom_hooks = recipe.custom_hooks(probe, 'EarlyStoppingHook')
    probe.experiment_name = f'timing_{time.time_ns()}'
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder, quiet_terminal() as quiet, quiet.imports():
        probe.work_dir = folder
        runner = build_runner(probe)
        runner.register_hook(clock)
        runner.train()
        loader: Any = runner.train_dataloader
        speed = Speed(
            (clock.ended - clock.began) / _TIMED, clock.validation, len(loader), len(loader.dataset), runner.world_size
        )
        for handler in runner.logger.handlers:
            handler.close()
    del runner, loader
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return speed
