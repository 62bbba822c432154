# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``results.csv``: a row for each validation of a run."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook

from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.registry import HOOKS

NAME = 'results.csv'


@HOOKS.register_module()
class ResultsHook(Hook):
    """Writes ``WORK_DIR/results.csv``: epoch, iteration, seconds of training, rate, mean losses and metrics.

    The losses are means over the iterations since the row before. A resumed run drops the rows that it repeats.
    """

    #: Before the checkpoint hook, so that no checkpoint knows of a validation that has no row.
    priority = 'LOW'

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._began = 0.0

    @master_only
    def before_train(self, runner: Any) -> None:
        path = Path(runner.work_dir) / NAME
        found = list(csv.DictReader(io.StringIO(path.read_text(encoding='utf-8')))) if path.is_file() else []
        self._rows = [row for row in found if runner.iter and (row.get('iter') or '').isdecimal()]
        self._drop(runner.iter + 1)
        self._began = time.monotonic() - (float(self._rows[-1]['time_s']) if self._rows else 0.0)

    @master_only
    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        self._drop(runner.iter)
        since = int(self._rows[-1]['iter']) if self._rows else 0
        row: dict[str, Any] = {
            'epoch': runner.epoch,
            'iter': runner.iter,
            'time_s': f'{time.monotonic() - self._began:.1f}',
            'lr': runner.optim_wrapper.param_groups[0]['lr'],
        }
        for name, history in runner.message_hub.log_scalars.items():
            if name.startswith('train/') and 'loss' in name:
                row[name.removeprefix('train/')] = history.mean(max(1, runner.iter - since))
        self._rows.append({**row, **(metrics or {})})
        columns = dict.fromkeys(name for row in self._rows for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), restval='')
        writer.writeheader()
        writer.writerows(self._rows)
        atomic_write(Path(runner.work_dir) / NAME, lambda file: file.write(text.getvalue().encode()))

    def _drop(self, iteration: int) -> None:
        """Leave out the rows from an iteration on."""
        self._rows = [row for row in self._rows if int(row['iter']) < iteration]
