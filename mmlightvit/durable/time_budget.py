# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A training that ends within a time, resumed or not."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook

from mmlightvit.errors import UserError
from mmlightvit.registry import HOOKS

_STATE = 'time_budget'


@HOOKS.register_module()
class TimeBudgetHook(Hook):
    """Ends the training after the validation behind which another round would take it over its time.

    A round is what lies between two validations, or an epoch where nothing is validated. What is spent is in the
    message hub, and so in every checkpoint: a resumed run has what is left. All ranks do as the first.

    Args:
        seconds: Of training and validation, over all resumptions.

    Raises:
        UserError: It is not positive.
    """

    #: Before the checkpoint hook, so that each checkpoint knows the time that it took.
    priority = 'LOW'

    def __init__(self, seconds: float) -> None:
        if seconds <= 0:
            raise UserError(f'TimeBudgetHook expects a positive number of seconds, got {seconds}')
        self.seconds = seconds

    def before_train(self, runner: Any) -> None:
        self._began = time.monotonic() - (runner.message_hub.runtime_info.get(_STATE) or 0.0)
        self._round = time.monotonic()

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        runner.message_hub.update_info(_STATE, time.monotonic() - self._began)

    def after_train_epoch(self, runner: Any) -> None:
        if runner.val_loop is None:
            self._end_round(runner)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        self._end_round(runner)

    def _end_round(self, runner: Any) -> None:
        now = time.monotonic()
        spent, last, self._round = now - self._began, now - self._round, now
        runner.message_hub.update_info(_STATE, spent)
        over = [spent + last > self.seconds]
        broadcast_object_list(over)
        if over[0] and runner.iter < runner.max_iters:
            runner.train_loop.stop_training = True
            taken, given = (timedelta(seconds=round(value)) for value in (spent, self.seconds))
            runner.logger.info(f'{taken} of {given} spent, and another round takes {last:.0f} s: stopped')
