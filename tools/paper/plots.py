# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The paper's plots: accuracy against cost (Figure 1) and how fast each stage is (Figure 5a)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from published_rows import PaperRow, table_3
from stages import StageSpeed
from steps import Timing

from mmlightvit.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe and Ito's colours, told apart with every kind of colour vision; the shapes do the same in grey.
COLOURS: Mapping[str, str] = MappingProxyType(
    {'ours': '#D55E00', 'CNN': '#0072B2', 'Hybrid': '#009E73', 'Transformer': '#CC79A7', 'measured': '#000000'}
)
_MARKERS = {'ours': '*', 'CNN': 's', 'Hybrid': 'o', 'Transformer': '^', 'measured': 'D'}

#: Columns of a CSV with measured numbers; only ``name`` and ``top1`` are needed in every line.
MEASURED_COLUMNS = ('name', 'top1', 'flops', 'params', 'throughput')


@dataclass(frozen=True)
class Point:
    """A model in Figure 1: cost by name (``flops`` in G, ``params`` in M, ``throughput`` in images/s) and accuracy."""

    name: str
    kind: str
    top1: float
    cost: Mapping[str, float]


def published_points() -> list[Point]:
    """Table 3 of the paper."""
    return [_point(row) for row in table_3()]


def _point(row: PaperRow) -> Point:
    assert row.params and row.top1 and row.throughput and row.block_type  # as every row of Table 3
    kind = 'ours' if row.name.startswith('LightViT') else row.block_type
    cost = dict(flops=float(row.flops), params=float(row.params), throughput=float(row.throughput))
    return Point(row.name, kind, row.top1, cost)


def read_measured(path: str | Path) -> list[Point]:
    """Read measured models from a CSV with the columns :data:`MEASURED_COLUMNS`; empty cells are left out.

    Raises:
        UserError: The file is missing, lacks a column, or has a cell that is no number.
    """
    try:
        with open(path, newline='', encoding='utf-8') as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            lines = list(reader)
    except FileNotFoundError:
        raise UserError(f'CSV not found: {path}') from None
    if 'name' not in columns or 'top1' not in columns or not set(columns) & set(MEASURED_COLUMNS[2:]):
        raise UserError(
            f'{path}: expected the columns name, top1 and at least one of {", ".join(MEASURED_COLUMNS[2:])}; '
            f'got {", ".join(columns) or "nothing"}'
        )
    points = []
    for number, line in enumerate(lines, start=2):
        try:
            cost = {key: float(line[key]) for key in MEASURED_COLUMNS[2:] if line.get(key)}
            points.append(Point(line['name'], 'measured', float(line['top1']), cost))
        except (ValueError, TypeError) as error:
            raise UserError(f'{path}, line {number}: expected numbers, got {line} ({error})') from error
    return points


def plot_accuracy(points: Sequence[Point], path: str | Path, speed: str = 'images/s, one V100 (published)') -> None:
    """Figure 1: ImageNet top-1 against multiply-adds, parameters and throughput.

    Args:
        points: Models.
        path: The picture; its ending says the format.
        speed: What the throughput was measured on.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16.5, 6.6), layout='constrained')
    panels = figure.subplots(1, 3, sharey=True)
    accuracies = [point.top1 for point in points]
    panels[0].set_ylim(min(accuracies) - 0.5, max(accuracies) + 1)
    labels = ('multiply-adds (G)', 'parameters (M)', f'throughput ({speed})')
    for axes, key, label in zip(panels, MEASURED_COLUMNS[2:], labels):
        _panel(axes, points, key)
        axes.set_xlabel(label, fontsize=12)
    panels[0].set_ylabel('ImageNet top-1 (%)', fontsize=12)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc='outside upper center', ncols=len(names), fontsize=11, frameon=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _panel(axes: Axes, points: Sequence[Point], key: str) -> None:
    titles = {'ours': 'LightViT', 'Transformer': 'other transformers', 'Hybrid': 'hybrids', 'CNN': 'CNNs'}
    axes.set_xscale('log')
    placed: list[tuple[float, float]] = []
    for kind, colour in COLOURS.items():
        of_kind = sorted((p for p in points if p.kind == kind and key in p.cost), key=lambda p: p.cost[key])
        if not of_kind:
            continue
        x, y = [p.cost[key] for p in of_kind], [p.top1 for p in of_kind]
        size = 15 if kind == 'ours' else 8
        line = '-' if kind == 'ours' else ''
        axes.plot(
            x, y, marker=_MARKERS[kind], linestyle=line, color=colour, markersize=size,
            markeredgecolor='white', label=titles.get(kind, kind), zorder=3 if kind == 'ours' else 2,
        )  # fmt: skip
    ticks = {'flops': (0.5, 1, 2, 4), 'params': (2, 5, 10, 20, 40), 'throughput': (700, 1000, 2000, 3000)}[key]
    axes.set_xticks(ticks, labels=[f'{tick:g}' for tick in ticks])
    axes.minorticks_off()
    low, high = axes.get_xlim()
    axes.set_xlim(low / (high / low) ** 0.06, high * (high / low) ** 0.14)
    figure: Any = axes.figure
    figure.draw_without_rendering()
    for point in sorted((p for p in points if key in p.cost), key=lambda p: p.kind != 'ours'):
        _label(axes, point, point.cost[key], placed, points, key)
    axes.grid(alpha=0.3)


def _label(
    axes: Axes, point: Point, x: float, placed: list[tuple[float, float]], points: Sequence[Point], key: str
) -> None:
    """Write the name where it covers neither another name nor another point."""
    width, height = (7.2 if point.kind == 'ours' else 5.6) * len(point.name), 11.0
    px, py = axes.transData.transform((x, point.top1)) * 72 / axes.figure.dpi
    others = [axes.transData.transform((p.cost[key], p.top1)) * 72 / axes.figure.dpi for p in points if key in p.cost]
    best, fewest = (9.0, -4.0), float('inf')
    for dx, dy in (
        (9, -4), (-width - 7, -4), (-width / 2, 9), (-width / 2, -17), (7, 6), (7, -14), (-width - 3, 7),
        (-width - 3, -15), (-width / 2, 20), (-width / 2, -28), (12, 16), (12, -24),
    ):  # fmt: skip
        centre = px + dx + width / 2, py + dy + height / 2
        hits = sum(abs(centre[0] - a) < width and abs(centre[1] - b) < height for a, b in placed) * 2.0
        hits += sum(abs(centre[0] - a) < width / 2 + 5 and abs(centre[1] - b) < height / 2 + 4 for a, b in others)
        inside = axes.bbox.bounds[0] * 72 / axes.figure.dpi, axes.bbox.xmax * 72 / axes.figure.dpi
        hits += 3.0 * (centre[0] - width / 2 < inside[0] or centre[0] + width / 2 > inside[1])
        if hits < fewest:
            best, fewest = (dx, dy), hits
    placed.append((px + best[0] + width / 2, py + best[1] + height / 2))
    ours = point.kind == 'ours'
    axes.annotate(
        point.name, (x, point.top1), best, textcoords='offset points', fontsize=11 if ours else 9,
        fontweight='bold' if ours else 'normal', color=COLOURS['ours'] if ours else '#333333',
    )  # fmt: skip


def plot_stages(parts: Sequence[StageSpeed], path: str | Path, title: str) -> None:
    """Figure 5a: throughput and efficiency of each part.

    Args:
        parts: What :func:`~stages.measure_stages` returned.
        path: The picture; its ending says the format.
        title: Model, input, hardware.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout='constrained')
    figure.suptitle(title, fontsize=12)
    left, right = figure.subplots(1, 2)
    names = [f'{part.name}\n{part.macs / 1e9:.3f} G' for part in parts]
    for axes, values, label, colour in (
        (left, [part.throughput for part in parts], 'throughput of the part (images/s)', '#0072B2'),
        (right, [part.efficiency / 1e9 for part in parts], 'efficiency (G multiply-adds/s)', '#D55E00'),
    ):
        bars = axes.bar(names, values, color=colour, width=0.6)
        axes.bar_label(bars, fmt=lambda value: f'{value:.3g}' if value < 1000 else f'{value:,.0f}', padding=2)
        axes.set_ylabel(label, fontsize=12)
        axes.spines[['top', 'right']].set_visible(False)
        axes.set_ylim(0, max(values) * 1.12)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def plot_ratios(timings: Sequence[Timing], path: str | Path) -> None:
    """Bars of a benchmark's median ratios with their intervals.

    Args:
        timings: What :func:`~steps.compare` returned, of one case or several.
        path: The picture; its ending says the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.6 + 0.45 * len(timings)), layout='constrained')
    axes = figure.subplots()
    for i, timing in enumerate(timings):
        low, high = timing.interval
        errors = [[max(timing.ratio - low, 0)], [max(high - timing.ratio, 0)]]
        axes.barh(i, timing.ratio, xerr=errors, capsize=3, color=COLOURS['CNN'])
    axes.set_yticks(range(len(timings)), [f'{t.name}\n{t.case}' for t in timings], fontsize=7)
    axes.invert_yaxis()
    axes.axvline(1, color='black', linewidth=0.8)
    axes.set_xlabel('speed over the first model of the case (median paired ratio, 95 % interval)')
    figure.savefig(path, dpi=150)
