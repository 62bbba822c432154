# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The score from which a detection of each class is shown: where F1 is highest on labelled pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmlightvit.evaluation.matches import IGNORED, RIGHT, Matches
from mmlightvit.model_folder.info import DEFAULT_THRESHOLD

#: A class with fewer objects takes the threshold of all classes together: its own would be chance.
FEWEST_OBJECTS = 20


class Curve(NamedTuple):
    """Precision, recall and F1 by threshold, thresholds falling; each is a score that occurs."""

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]

    def best(self) -> float | None:
        """The threshold of the highest F1, of equal ones the highest; None where nothing right is found."""
        if not len(self.f1) or self.f1.max() == 0:
            return None
        return _floor(float(self.threshold[self.f1.argmax()]))

    def at(self, threshold: float) -> dict[str, float]:
        """Precision, recall and F1 of the detections from ``threshold`` on."""
        number = int((self.threshold >= threshold).sum())
        if not number:
            return dict(precision=0.0, recall=0.0, f1=0.0)
        return {name: float(getattr(self, name)[number - 1]) for name in ('precision', 'recall', 'f1')}


class Thresholds(NamedTuple):
    """Chosen thresholds: of each class, of all together, and whether a class's is its own."""

    per_class: list[float]
    common: float
    own: list[bool]


def curve(score: NDArray[np.float64], right: NDArray[np.bool_], objects: int) -> Curve:
    """Precision, recall and F1 against the threshold.

    Args:
        score: (n,) of the detections, in any order.
        right: (n,) whether each found an object.
        objects: Objects to be found.
    """
    order = np.argsort(-score, kind='stable')
    score, hits = score[order], np.cumsum(right[order])
    last = np.flatnonzero(np.diff(score, append=-np.inf))  # equal scores are shown together
    shown, hits = last + 1, hits[last]
    precision, recall = hits / shown, hits / max(objects, 1)
    return Curve(score[last], precision, recall, 2 * hits / (shown + objects))


def curves(matches: Matches, row: int) -> tuple[list[Curve], Curve]:
    """The curve of each class and of all together, at the IoU of row ``row`` of ``matches.status``."""
    objects = matches.objects.sum(0)
    counted, right = matches.status[row] != IGNORED, matches.status[row] == RIGHT
    each = []
    for label, number in enumerate(objects):
        at = np.arange(len(matches.label))[matches.of_class(label)]
        at = at[counted[at]]
        each.append(curve(matches.score[at], right[at], int(number)))
    return each, curve(matches.score[counted], right[counted], int(objects.sum()))


def choose(each: Sequence[Curve], together: Curve, objects: Sequence[int]) -> Thresholds:
    """The threshold of each class; of all together for one with under ``FEWEST_OBJECTS`` objects, or never found."""
    common = together.best()
    common = DEFAULT_THRESHOLD if common is None else common
    own = [c.best() if number >= FEWEST_OBJECTS else None for c, number in zip(each, objects)]
    return Thresholds([common if t is None else t for t in own], common, [t is not None for t in own])


def _floor(score: float) -> float:
    """Five digits, and not above the score, so that its own detection is shown."""
    return math.floor(score * 1e5) / 1e5
