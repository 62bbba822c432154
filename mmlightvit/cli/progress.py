# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The progress of a training for people: a line on the terminal, and ``WORK_DIR/curves.png``."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmlightvit.errors import UserError
from mmlightvit.explain.curves import plot_logs, read_run
from mmlightvit.toolboxes import is_installed

_EVERY_S = 0.2  # from one line to the next
_CURVES_EVERY_S = 30.0  # drawing takes a second
#: MMEngine's lines of the same.
_LOGGED = re.compile(r'(Epoch|Iter)\((train|val)\)|Exp name: ')


def show(runner: Runner) -> None:
    """Let a training show its progress, in the process that logs.

    Args:
        runner: Of the training, which has not begun.
    """
    if runner.rank == 0:
        runner.register_hook(ProgressHook())
        if is_installed('matplotlib'):
            runner.register_hook(CurvesHook())


class ProgressHook(Hook):
    """Epoch, rate, loss, the metric so far and the time that is left, on standard error.

    A terminal has a line that changes; elsewhere there is a line per epoch, or per validation where iterations are
    counted. MMEngine's own lines are in the log file alone.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._metric = ''
        self._shown = 0.0

    def before_train(self, runner: Runner) -> None:
        self._began, self._first = time.monotonic(), runner.iter
        self._terminals = [item for item in runner.logger.handlers if not isinstance(item, logging.FileHandler)]
        for handler in self._terminals:
            handler.addFilter(self._make_room)

    def after_train(self, runner: Runner) -> None:
        for handler in self._terminals:
            handler.removeFilter(self._make_room)

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        self._show(runner, done=runner.iter + 1)

    def after_val_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        self._show(runner, f'validation {batch_idx + 1}/{len(runner.val_dataloader)}')

    def after_train_epoch(self, runner: Runner) -> None:
        loop = runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop):
            return
        epoch = runner.epoch + 1
        due = epoch >= loop.val_begin and (epoch % loop.val_interval == 0 or epoch == loop.max_epochs)
        if runner.val_loop is None or not due:
            self._show(runner, done=runner.iter, last=True)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        wanted = ((runner.cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best')
        name = wanted if wanted in (metrics or {}) else next(iter(metrics or {}), None)
        if metrics and name is not None:
            self._metric = f'{name} {metrics[name]:.4g}'
            best = runner.message_hub.runtime_info.get('best_score') if name == wanted else None
            if best is not None:
                self._metric += f' (best {best:.4g})'
        self._show(runner, last=True)

    def _show(self, runner: Runner, part: str = '', done: int | None = None, last: bool = False) -> None:
        now = time.monotonic()
        if not last and (not self._live or now - self._shown < _EVERY_S):
            return
        self._shown = now
        text = self._line(runner, part, runner.iter if done is None else done, now)
        if self._live:
            room = shutil.get_terminal_size().columns - 1
            text = f'\r\x1b[K{text[:room]}'
        sys.stderr.write(text + ('\n' if last or not self._live else ''))
        sys.stderr.flush()

    def _line(self, runner: Runner, part: str, done: int, now: float) -> str:
        loader: Any = runner.train_dataloader
        spent, total = now - self._began, runner.max_iters
        parts = [f'iteration {done}/{total}']
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            within = (done - 1) % len(loader) + 1
            parts = [f'epoch {-(-done // len(loader))}/{runner.max_epochs}', part or f'{within}/{len(loader)}']
        elif part:
            parts.append(part)
        steps = done - self._first
        if steps:
            pictures = steps * (loader.batch_size or 1) * runner.world_size / spent
            parts.append(f'{pictures:.3g} pictures/s')
        losses = runner.message_hub.log_scalars.get('train/loss')
        if losses is not None:
            parts.append(f'loss {losses.mean(min(50, max(1, steps))):.4g}')
        parts += [self._metric] if self._metric else []
        if steps and done < total:
            parts.append(f'{timedelta(seconds=round(spent / steps * (total - done)))} left')
        return '  '.join(parts)

    def _make_room(self, record: logging.LogRecord) -> bool:
        """A filter of the terminal: what it lets through begins a line of its own."""
        if record.levelno < logging.WARNING and _LOGGED.match(record.getMessage()):
            return False
        if self._live:
            sys.stderr.write('\r\x1b[K')
            sys.stderr.flush()
        return True


class CurvesHook(Hook):
    """Draws ``WORK_DIR/curves.png`` after validations, at most twice a minute, and at the end: the whole of the run."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._drawn = -_CURVES_EVERY_S

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if time.monotonic() - self._drawn >= _CURVES_EVERY_S:
            self._draw(runner, logging.DEBUG)
            self._drawn = time.monotonic()

    def after_train(self, runner: Runner) -> None:
        self._draw(runner, logging.WARNING)

    def _draw(self, runner: Runner, level: int) -> None:
        folder = Path(runner.work_dir)
        try:
            plot_logs([read_run(folder)], folder / 'curves.part.png')
            os.replace(folder / 'curves.part.png', folder / 'curves.png')
        except (UserError, OSError) as error:  # a run so short that it has logged no loss, or a full disk
            runner.logger.log(level, f'no curves.png: {error}')
