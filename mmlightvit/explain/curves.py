# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Loss, learning rate, memory and metrics of training runs, from the scalars that mmengine logs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mmlightvit.errors import UserError
from mmlightvit.pictures.colours import LINES, hexadecimal

#: One for each run.
COLOURS = (*map(hexadecimal, LINES), '#000000')

#: Training scalar -> (title, unit, vertical scale).
_TRAINING: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        'loss': ('training loss', '', 'log'),
        'lr': ('learning rate', '', 'linear'),
        'memory': ('memory', 'MB', 'linear'),
    }
)
# COCO's metrics at one overlap or for one size of objects: drawn when asked for.
_BREAKDOWNS = ('_50', '_75', '_s', '_m', '_l')
_NOT_METRICS = ('step', 'iter', 'epoch', 'time', 'data_time')


@dataclass(frozen=True)
class Run:
    """A training run with all its resumptions.

    Attributes:
        name: Name of the work directory.
        training: ``{scalar: (iterations, values)}``.
        metrics: The same of the validation.
    """

    name: str
    training: Mapping[str, tuple[list[float], list[float]]]
    metrics: Mapping[str, tuple[list[float], list[float]]]


def read_run(work_dir: str | Path) -> Run:
    """Read a work directory. What a resumed run did again replaces what the run before it had logged.

    Raises:
        UserError: The folder is missing, no run in it has logged a loss, or a log cannot be read.
    """
    folder = Path(work_dir)
    if not folder.is_dir():
        raise UserError(f'work directory not found: {folder}')
    training: list[dict] = []
    validation: list[dict] = []
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        records = _read(path)
        losses = [record for record in records if 'loss' in record and 'step' in record]
        if not losses:
            continue
        first = losses[0]['step']
        training = [record for record in training if record['step'] < first] + losses
        # Runs by epoch number their validations by epoch, others by iteration.
        ends = {record['epoch']: record['step'] for record in losses if 'epoch' in record}
        found = [r | {'step': ends.get(r['step'], r['step'])} for r in records if 'loss' not in r and 'step' in r]
        validation = [record for record in validation if record['step'] < first] + found
    if not training:
        raise UserError(f'{folder}: no training run has logged a loss there (*/vis_data/scalars.json)')
    return Run(folder.resolve().name, _series(training), _series(validation))


def _read(path: Path) -> list[dict]:
    records = []
    lines = path.read_text(encoding='utf-8').splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break  # a run that was killed while it wrote
            raise UserError(f'{path}, line {number}: not a JSON record ({error})') from error
        records.append({key: value for key, value in record.items() if isinstance(value, (int, float))})
    return records


def _series(records: Sequence[Mapping[str, float]]) -> dict[str, tuple[list[float], list[float]]]:
    names = dict.fromkeys(name for record in records for name in record if name not in _NOT_METRICS)
    return {
        name: ([r['step'] for r in records if name in r], [r[name] for r in records if name in r]) for name in names
    }


def metric_names(runs: Sequence[Run]) -> list[str]:
    """Validation metrics of any run, in order of appearance."""
    return list(dict.fromkeys(name for run in runs for name in run.metrics))


def plot_logs(runs: Sequence[Run], path: str | Path, metrics: Sequence[str] | None = None) -> None:
    """Draw one panel for each of loss, learning rate and memory, where logged, and for each metric; a colour per run.

    A run alone has its last values in the titles.

    Args:
        runs: Runs to compare, at most seven.
        path: The picture; its ending says the format.
        metrics: Validation metrics to draw; None for the first four that are no breakdown of another.

    Raises:
        UserError: A metric is unknown, or there are too many runs for their colours.
    """
    from matplotlib.figure import Figure

    if not 1 <= len(runs) <= len(COLOURS):
        raise UserError(f'expected 1 to {len(COLOURS)} runs in one picture, got {len(runs)}')
    known = metric_names(runs)
    unknown = [name for name in metrics or () if name not in known]
    if unknown:
        raise UserError(f'metrics: the runs have {", ".join(known) or "none"}; got {", ".join(unknown)}')
    overall = [name for name in known if not name.endswith(_BREAKDOWNS)]
    chosen = list(metrics) if metrics else (overall or known)[:4]
    scalars = [name for name in _TRAINING if any(name in run.training for run in runs)]
    panels = len(scalars) + len(chosen)
    columns = min(panels, 4)
    rows = -(-panels // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows + 0.4), layout='constrained')
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[panels:]:
        axes.axis('off')
    for axes, name in zip(grid, [*scalars, *chosen]):
        is_training = name in scalars
        for run, colour in zip(runs, COLOURS):
            series = (run.training if is_training else run.metrics).get(name)
            if series is not None:
                axes.plot(*series, color=colour, label=run.name, marker='' if is_training else 'o', markersize=4)
        title, unit, scale = _TRAINING.get(name, (name, '', 'linear')) if is_training else (name, '', 'linear')
        if len(runs) == 1:
            title += f': {axes.lines[0].get_ydata()[-1]:.3g}'
        axes.set_title(title, fontsize=11)
        axes.set(xlabel='iteration', ylabel=unit, yscale=scale)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc='outside upper center', ncols=min(len(names), 4), frameon=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
