# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Training curves from the scalars that mmengine's ``LocalVisBackend`` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmlightvit.errors import UserError

# Not worth a curve: COCO's metrics by area, and what the log has for other reasons.
_LEFT_OUT = ('_s', '_m', '_l', 'time', '_copypaste')


def read_scalars(work_dir: str | Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Scalars of the latest training run in a work directory.

    Returns:
        The records of training and those of validation, both with the training iteration as ``step``. A value that
        is not a number (null in the file) is left out of its record.

    Raises:
        UserError: No run in ``work_dir`` has logged a loss.
    """
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json'), reverse=True):
        records = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        records = [{k: v for k, v in record.items() if isinstance(v, (int, float))} for record in records]
        training = [record for record in records if 'loss' in record]
        if not training:
            continue
        # Runs by epoch number their validations by epoch, others by iteration.
        end_of_epoch = {record['epoch']: record['step'] for record in training if 'epoch' in record}
        validation = [
            {**record, 'step': end_of_epoch.get(record['step'], record['step'])}
            for record in records
            if 'loss' not in record and 'step' in record
        ]
        return training, validation
    raise UserError(f'{work_dir}: no training run has logged a loss there (*/vis_data/scalars.json)')


def plot_curves(work_dir: str | Path, path: str | Path) -> None:
    """Plot losses, learning rate and validation metrics of the latest training run.

    Args:
        work_dir: Work directory of tools/train.py.
        path: The picture; its ending says the format.

    Raises:
        UserError: No run in ``work_dir`` has logged a loss.
    """
    from matplotlib.figure import Figure

    training, validation = read_scalars(work_dir)
    figure = Figure(figsize=(15, 4.2), layout='constrained')
    loss_axes, metric_axes, rate_axes = figure.subplots(1, 3, width_ratios=(1.2, 1.2, 0.8))
    for name in _names(training, 'loss'):
        steps = [record['step'] for record in training if name in record]
        values = [record[name] for record in training if name in record]
        loss_axes.plot(steps, values, label=name, linewidth=2.2 if name == 'loss' else 1.2)
    loss_axes.set(title='training losses', yscale='log')
    loss_axes.legend(fontsize='small')
    for name in _names(validation, ''):
        steps = [record['step'] for record in validation if name in record]
        values = [record[name] for record in validation if name in record]
        metric_axes.plot(steps, values, marker='o', label=f'{name}: {values[-1]:.3f}')
    metric_axes.set(title='validation, with the last value')
    if metric_axes.lines:
        metric_axes.legend(fontsize='small')
    rate_axes.plot([record['step'] for record in training], [record['lr'] for record in training])
    rate_axes.set(title='learning rate')
    for axes in (loss_axes, metric_axes, rate_axes):
        axes.set_xlabel('iteration')
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _names(records: list[dict[str, Any]], part: str) -> list[str]:
    """Names of scalars with ``part`` in them, in order of appearance; first those of the whole, then of its parts."""
    names = dict.fromkeys(name for record in records for name in record if part in name and name != 'step')
    return [name for name in names if not name.endswith(_LEFT_OUT)]
