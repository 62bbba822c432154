# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The figures of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.evaluation import packages
from mmlightvit.pictures.colours import LINES, hexadecimal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mmlightvit.evaluation.thresholds import Curve

_COLOURS = tuple(map(hexadecimal, LINES))
BLUE, ORANGE, GREEN, PINK, AMBER, SKY = _COLOURS
_INK, _FAINT = '#222222', '#9aa3ad'


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = packages.load('matplotlib.figure').Figure(figsize=(width, height), dpi=160, layout='constrained')
    return figure, figure.subplots()


def _finish(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[['top', 'right']].set_visible(False)


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)


def precision_recall(curves: NDArray[np.float64], ious: Sequence[float]) -> Figure:
    """Precision over recall, mean of the classes; ``curves`` is (IoUs, 101, classes), NaN for classes without objects.

    A thin line is a class at the first IoU.
    """
    figure, axes = _figure(5.2, 4)
    recall = np.linspace(0, 1, 101)
    known = curves[:, :, ~np.isnan(curves[0, 0])]
    axes.plot(recall, known[0], color=_FAINT, linewidth=0.6, alpha=0.6)
    if known.shape[2]:
        means = known.mean(2)
        for values, label, colour in (
            (means[ious.index(0.5)], 'IoU 0.50', BLUE),
            (means[ious.index(0.75)], 'IoU 0.75', ORANGE),
            (means.mean(0), 'mean of 0.50 to 0.95', GREEN),
        ):
            axes.plot(recall, values, color=colour, linewidth=2.2, label=f'{label}: AP {values.mean():.3f}')
        axes.legend(frameon=False, loc='lower left')
    _unit_square(axes)
    _finish(axes, 'recall: share of the objects that are found', 'precision: share of the detections that are right')
    return figure


def f1_curves(each: Sequence[Curve], together: Curve, chosen: Sequence[float], classes: Sequence[str]) -> Figure:
    """F1 against the threshold of each class and of all together, the chosen ones marked."""
    figure, axes = _figure(5.2, 4)
    few = len(each) <= len(_COLOURS)
    for place, (curve, threshold) in enumerate(zip(each, chosen)):
        if len(curve.f1):
            colour = _COLOURS[place] if few else _FAINT
            axes.plot(*_steps(curve), color=colour, linewidth=1.6 if few else 0.6, alpha=1 if few else 0.6)
            axes.plot(threshold, curve.at(threshold)['f1'], 'o', color=colour, markersize=6 if few else 3,
                      label=f'{classes[place]}: {threshold:.2f}' if few else None)  # fmt: skip
    if len(together.f1):
        best = together.best()
        label = f'all classes{"" if best is None else f": {best:.2f}"}'
        axes.plot(*_steps(together), color=_INK, linewidth=2, linestyle='--', label=label)
        axes.legend(frameon=False, loc='lower left', fontsize=9)
    _unit_square(axes)
    _finish(axes, 'threshold: score from which a detection is shown', 'F1')
    return figure


def _steps(curve: Curve, most: int = 2000) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    chosen = np.unique(np.linspace(0, len(curve.f1) - 1, min(most, len(curve.f1))).astype(int))
    return curve.threshold[chosen], curve.f1[chosen]


def confusion(matrix: NDArray, classes: Sequence[str]) -> Figure:
    """Counts of truth (rows) and prediction (columns), coloured by the share of the row."""
    number = len(matrix)
    size = min(14.0, 2.2 + 0.42 * number)
    figure, axes = _figure(size + 0.6, size)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap='Blues', vmin=0, vmax=1, interpolation='nearest')
    small = 9 if number <= 25 else 180 / number
    axes.set_xticks(range(number), classes, rotation=90 if number > 4 else 0, fontsize=max(small, 4))
    axes.set_yticks(range(number), classes, fontsize=max(small, 4))
    if number <= 25:
        for row, column in zip(*np.nonzero(matrix)):
            colour = 'white' if share[row, column] > 0.55 else _INK
            axes.text(column, row, _short(int(matrix[row, column])), ha='center', va='center', fontsize=8, color=colour)
    axes.set_xlabel('prediction')
    axes.set_ylabel('truth')
    figure.colorbar(image, ax=axes, shrink=0.6, label='share of the row')
    return figure


def _short(number: int) -> str:
    if number < 10000:
        return str(number)
    return f'{number / 1000:.0f}k' if number < 1e6 else f'{number / 1e6:.0f}M'


def errors(kinds: Mapping[str, Mapping[str, Mapping[str, float]]], names: Mapping[str, str]) -> Figure:
    """The cost of each kind of error in AP, and how often it occurs; ``kinds`` by IoU, then by kind."""
    figure, axes = _figure(5.2, 4)
    height = 0.8 / len(kinds)
    for row, ((iou, of_iou), colour) in enumerate(zip(kinds.items(), (BLUE, SKY))):
        costs = [of_iou[kind]['cost'] for kind in names]
        places = np.arange(len(names)) + (row - (len(kinds) - 1) / 2) * height
        bars = axes.barh(places, costs, height, color=colour, label=f'IoU {iou}')
        axes.bar_label(bars, [f'{of_iou[kind]["cost"]:.3f}  ({of_iou[kind]["count"]:,}×)' for kind in names],
                       padding=3, fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(names)), list(names.values()))
    axes.invert_yaxis()
    axes.set_xlim(0, max(0.02, axes.get_xlim()[1] * 1.3))
    figure.legend(frameon=False, loc='outside upper right', ncols=2)
    _finish(axes, 'AP that would be gained without these errors', '')
    axes.grid(axis='y', visible=False)
    return figure


def calibration(bins: Sequence[Mapping[str, Any]], ece: float | None, what: str) -> Figure:
    """How often answers of each confidence are right."""
    from matplotlib.ticker import PercentFormatter

    figure, axes = _figure(5.2, 4)
    width = 1 / len(bins)
    centres = (np.arange(len(bins)) + 0.5) * width
    count = np.array([item['count'] for item in bins])
    axes.bar(centres[count > 0], np.array([item['accuracy'] for item in bins])[count > 0], width * 0.92, color=BLUE,
             label=f'share that is right{"" if ece is None else f" (ECE {ece:.3f})"}')  # fmt: skip
    axes.plot([0, 1], [0, 1], color=_INK, linestyle='--', linewidth=1.2, label='a score that keeps its word')
    axes.plot(centres, count / max(count.sum(), 1), 'o-', color=ORANGE, markersize=4, linewidth=1.2,
              label=f'share of the {what}')  # fmt: skip
    figure.legend(frameon=False, loc='outside upper left', ncols=2, fontsize=8.5)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _unit_square(axes)
    _finish(axes, 'score', '')
    return figure
