# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Scores of a classifier, from the classes it finds most likely for each picture."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmlightvit.evaluation import packages


class ClassScores(NamedTuple):
    """Scores of one classifier on one set.

    Attributes:
        right: (n, 2) whether each picture's class is the first answer, and among the first five.
        predicted: (n,) first answers.
        confidence: (n,) their scores.
        labels: (n,) true classes.
        metrics: top-1 and top-5 accuracy in percent, as mmpretrain gives them; precision, recall and F1, means of the
            classes that occur or are answered, in percent.
        per_class: Of each class: objects, precision, recall, F1; None where they are not defined.
        confusion: (classes, classes) counts; rows truth, columns prediction.
        calibration: ``ece``, and ``bins`` of confidence, accuracy, count.
    """

    right: NDArray[np.bool_]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    labels: NDArray[np.int64]
    metrics: dict[str, float]
    per_class: list[dict[str, Any]]
    confusion: NDArray[np.int64]
    calibration: dict[str, Any]


def score(
    labels: NDArray[np.int64], ranks: NDArray[np.int64], scores: NDArray[np.float64], classes: int
) -> ClassScores:
    """Scores from (n,) true classes, (n, ranks) answers by falling score, and their scores."""
    metrics_of = packages.load('sklearn.metrics')
    hits = ranks == labels[:, None]
    right = np.stack([hits[:, 0], hits[:, :5].any(1)], 1)
    predicted = ranks[:, 0]
    every = np.arange(classes)
    table = metrics_of.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    per_class = [
        dict(objects=int(n), precision=float(p), recall=float(r) if n else None, f1=float(f) if n else None)
        for p, r, f, n in zip(*table)
    ]
    known = np.flatnonzero(np.isin(every, labels) | np.isin(every, predicted))
    means = [100 * float(column[known].mean()) for column in table[:3]]
    accuracy = 100 * right.mean(0)
    metrics = {'top1': float(accuracy[0]), 'top5': float(accuracy[1])}
    metrics |= dict(zip(('precision', 'recall', 'f1'), means))
    confusion = metrics_of.confusion_matrix(labels, predicted, labels=every)
    calibration = calibrate(scores[:, 0], right[:, 0])
    return ClassScores(right, predicted, scores[:, 0], labels, metrics, per_class, confusion, calibration)


def calibrate(confidence: NDArray[np.float64], right: NDArray[np.bool_], count: int = 10) -> dict[str, Any]:
    """Expected calibration error, and mean confidence and accuracy in ``count`` bins of equal width."""
    at = np.minimum((confidence * count).astype(int), count - 1)
    number = np.bincount(at, minlength=count)
    means = [np.bincount(at, values, count) / np.maximum(number, 1) for values in (confidence, right)]
    bins = [dict(confidence=float(c), accuracy=float(a), count=int(n)) for c, a, n in zip(*means, number)]
    return dict(ece=float((np.abs(means[0] - means[1]) * number).sum() / max(number.sum(), 1)), bins=bins)


def metrics_of_draws(scores: ClassScores, weights: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Accuracies of each draw of the pictures, in percent; ``weights`` is (pictures, draws)."""
    shares = 100 * (scores.right.T.astype(np.float32) @ weights) / weights.sum(0)
    return {'top1': shares[0].astype(float), 'top5': shares[1].astype(float)}
