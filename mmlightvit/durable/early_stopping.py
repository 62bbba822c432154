# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Early stopping that a resumed run repeats."""

from __future__ import annotations

import math
from typing import Any

from mmengine.hooks import Hook

from mmlightvit.durable.scores import absent, score_of
from mmlightvit.errors import AllRanksError, UserError
from mmlightvit.registry import HOOKS

_STATE = 'early_stopping'


@HOOKS.register_module()
class EarlyStoppingHook(Hook):
    """Ends the training after some validations without progress.

    Its state is in the message hub, and so in every checkpoint: a run that was killed and goes on ends after the same
    validation as one that was not. All ranks get the same metrics, so all end alike.

    Args:
        monitor: Metric; higher is better unless ``rule='less'``.
        patience: Validations without progress after which training ends, at least 1.
        min_delta: What counts as progress: more than this, in the metric's unit.
        rule: ``'greater'`` or ``'less'``, which of two values is better.

    Raises:
        UserError: An argument is out of range; at the first validation, the metric does not exist.

    Departs: from :class:`mmengine.hooks.EarlyStoppingHook`, whose state is in no checkpoint, and whose ``min_delta`` of
        0.1 takes nearly every validation of a metric in [0, 1] for none.
    """

    #: Before the checkpoint hook, so that the checkpoint that is saved after a validation has its outcome.
    priority = 'LOW'

    def __init__(self, monitor: str, patience: int, min_delta: float = 0.0, rule: str = 'greater') -> None:
        if patience < 1 or min_delta < 0 or rule not in ('greater', 'less'):
            raise UserError(
                'EarlyStoppingHook expects patience >= 1, min_delta >= 0 and rule greater or less; got '
                f'patience={patience}, min_delta={min_delta}, rule={rule!r}'
            )
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self._sign = 1 if rule == 'greater' else -1

    def before_train(self, runner: Any) -> None:
        self._stop_if_over(runner)  # a run that had ended, and is resumed with no more patience

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if self.monitor not in (metrics or {}):
            raise AllRanksError(absent(metrics or {}, self.monitor, 'EarlyStoppingHook.monitor'))
        score = score_of(metrics or {}, self.monitor)
        state = self._state(runner)
        best = state['best']
        defined = not math.isnan(score)
        if defined and (best is None or self._sign * (score - best) > self.min_delta):
            state = dict(best=score, epoch=runner.epoch, iter=runner.iter, waited=0)
        else:
            state = {**state, 'waited': state['waited'] + 1}
        runner.message_hub.update_info(_STATE, state)
        self._stop_if_over(runner)

    def _state(self, runner: Any) -> dict[str, Any]:
        return runner.message_hub.runtime_info.get(_STATE) or dict(best=None, epoch=0, iter=0, waited=0)

    def _stop_if_over(self, runner: Any) -> None:
        state = self._state(runner)
        if state['waited'] < self.patience:
            return
        runner.train_loop.stop_training = True
        than = 'any' if state['best'] is None else f'{state["best"]:.4g}'
        at = f'epoch {state["epoch"]}' if state['epoch'] else f'iteration {state["iter"]}'
        runner.logger.info(
            f'no better {self.monitor} than {than}{f" ({at})" if state["best"] is not None else ""} in '
            f'{state["waited"]} validations: stopped'
        )
