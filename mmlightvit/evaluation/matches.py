# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Average precision of many draws of the pictures at once, from matches that were made once.

A bootstrap weighs pictures: a draw that has a picture twice gives each of its detections and objects the weight 2. With
all weights 1 the numbers are COCO's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MISTAKE, RIGHT, IGNORED = 0, 1, 2
DRAWS = 1000
#: With fewer pictures their draws say too little: five that all got better are chance once in 32 times.
FEWEST = 10


@dataclass(frozen=True)
class Matches:
    """Detections of one set, by class and falling score.

    Attributes:
        image: (n,) place of the picture.
        label: (n,) class.
        score: (n,).
        rank: (n,) place among the detections of this class in this picture, by falling score.
        status: (IoU thresholds, n) ``MISTAKE``, ``RIGHT`` or ``IGNORED``.
        objects: (pictures, classes) objects to be found.
    """

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    score: NDArray[np.float64]
    rank: NDArray[np.int64]
    status: NDArray[np.int8]
    objects: NDArray[np.int64]

    @classmethod
    def sort(
        cls,
        image: NDArray[np.int64],
        label: NDArray[np.int64],
        score: NDArray[np.float64],
        status: NDArray[np.int8],
        objects: NDArray[np.int64],
    ) -> Matches:
        """From detections in any order; of equal scores the earlier stays the first, as in COCO's."""
        order = np.lexsort((image, -score, label))
        image, label, score, status = image[order], label[order], score[order], status[:, order]
        group = label * len(objects) + image
        within = np.argsort(group, kind='stable')
        first = np.searchsorted(group[within], group[within])
        rank = np.empty(len(image), np.int64)
        rank[within] = np.arange(len(image)) - first
        return cls(image, label, score, rank, status, objects)

    def of_class(self, label: int) -> slice:
        """The detections of a class."""
        return slice(*np.searchsorted(self.label, [label, label + 1]))

    def useful(self, label: int) -> NDArray[np.int64]:
        """The detections of a class up to its last right one, without those that are ignored at every threshold.

        The mistakes after it lower no precision that is read.
        """
        at = self.of_class(label)
        status = self.status[:, at]
        right = np.flatnonzero((status == RIGHT).any(0))
        last = right[-1] + 1 if len(right) else 0
        return at.start + np.flatnonzero((status[:, :last] != IGNORED).any(0))


def draws(pictures: int, count: int = DRAWS, seed: int = 0) -> NDArray[np.float32]:
    """Weights of the pictures in ``count`` draws with replacement, (pictures, count)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(pictures, np.full(pictures, 1 / pictures), count).T.astype(np.float32)


def average_precision(matches: Matches, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """AP of each IoU threshold, class and draw, (IoUs, classes, draws); NaN where a draw has no object of the class."""
    out = np.full((len(matches.status), matches.objects.shape[1], weights.shape[1]), np.nan)
    for label, objects in enumerate(matches.objects.T):
        at = matches.useful(label)
        kept = weights[matches.image[at]]
        cumulative = np.cumsum(kept, 0)
        total = objects @ weights
        for row, status in enumerate(matches.status[:, at]):
            right, ignored = np.flatnonzero(status == RIGHT), np.flatnonzero(status == IGNORED)
            hits = np.cumsum(kept[right], 0)
            shown = cumulative[right]
            if len(ignored):
                before = np.cumsum(np.vstack([np.zeros_like(total), kept[ignored]]), 0, dtype=np.float32)
                shown -= before[np.searchsorted(ignored, right)]
            precision = np.divide(hits, shown, out=np.zeros_like(hits), where=shown > 0)
            precision = np.maximum.accumulate(precision[::-1])[::-1]
            # COCO reads the curve at the recalls 0, 0.01, ..., 1: so many of them lie up to each hit.
            hundredths = np.divide(100, total, out=np.zeros_like(total), where=total > 0)
            reached = np.where(hits > 0, np.floor(hits * hundredths + np.float32(1e-4)) + 1, 0)
            value = (precision * np.diff(reached, axis=0, prepend=0)).sum(0) / 101
            out[row, label] = np.where(total > 0, value, np.nan)
    return out


def average_recall(matches: Matches, weights: NDArray[np.float32], most: int) -> NDArray[np.float64]:
    """Recall with at most ``most`` detections of a class in a picture, as :func:`average_precision`."""
    out = np.full((len(matches.status), matches.objects.shape[1], weights.shape[1]), np.nan)
    for label, objects in enumerate(matches.objects.T):
        at = matches.useful(label)
        right = ((matches.status[:, at] == RIGHT) & (matches.rank[at] < most)).astype(np.float32)
        total = objects @ weights
        hits = right @ weights[matches.image[at]]
        out[:, label] = np.divide(hits, total, out=np.full(hits.shape, np.nan, np.float32), where=total > 0)
    return out


def metrics_of_draws(
    matches_of: Callable[[str], Matches], weights: NDArray[np.float32]
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """COCO's twelve of each draw, and each class's AP, (classes, draws).

    Args:
        matches_of: The matches of an area: ``'all'``, ``'small'``, ``'medium'``, ``'large'``.
        weights: Of the pictures, (pictures, draws).
    """
    out: dict[str, NDArray[np.float64]] = {}
    every = matches_of('all')
    precision = average_precision(every, weights)
    out['AP'], out['AP50'], out['AP75'] = (_mean(part) for part in (precision, precision[[0]], precision[[5]]))
    for most in (1, 10, 100):
        out[f'AR{most}'] = _mean(average_recall(every, weights, most))
    for area in ('small', 'medium', 'large'):
        matches = matches_of(area)
        out[f'AP{area[0]}'] = _mean(average_precision(matches, weights))
        out[f'AR{area[0]}'] = _mean(average_recall(matches, weights, 100))
    return out, precision.mean(0)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of all classes that a draw has; NaN where it has none."""
    known = ~np.isnan(values)
    count = known.sum((0, 1))
    return np.where(count > 0, np.where(known, values, 0).sum((0, 1)) / np.maximum(count, 1), np.nan)


def interval(value: float | None, sample: NDArray[np.float64], pictures: int) -> tuple[float, float] | None:
    """The 95 % interval around a value, from its draws.

    The draws of a precision curve lie above it, for a picture drawn twice makes steps that the curve's upper edge
    follows; so their spread is put around the value, not their place.

    Args:
        value: Of the set.
        sample: The same of each draw.
        pictures: In the set.

    Returns:
        None with under ``FEWEST`` pictures, or where there is no value.
    """
    sample = sample[~np.isnan(sample)]
    if value is None or pictures < FEWEST or not len(sample):
        return None
    low, high = np.quantile(sample, [0.025, 0.975]) - sample.mean()
    return value + float(low), value + float(high)
