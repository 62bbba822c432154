# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Scores of label maps: mmseg's, of the pixels of all pictures together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.errors import UserError

METRICS = ('aAcc', 'mIoU', 'mAcc')


class PixelScores:
    """Scores of one model on one set.

    Args:
        pairs: (predicted, true) label maps of one size, a picture after the other.
        classes: Their number; a value beyond it is no class.
        ignore: The true value of pixels that do not count.

    Attributes:
        areas: (pictures, 3, classes) pixels that are right, predicted, true.
        confusion: (classes, classes) pixels; rows truth, columns prediction.
    """

    def __init__(self, pairs: Iterable[tuple[NDArray, NDArray]], classes: int, ignore: int = 255) -> None:
        self.confusion = np.zeros((classes, classes), np.int64)
        areas = []
        for number, (predicted, truth) in enumerate(pairs, 1):
            if predicted.shape != truth.shape:
                raise UserError(
                    f'picture {number}: the label map is {truth.shape[1]}x{truth.shape[0]} px, '
                    f'and the picture {predicted.shape[1]}x{predicted.shape[0]}'
                )
            counted = truth != ignore
            answer, true = predicted[counted].astype(np.int64), truth[counted].astype(np.int64)
            for what, values in (('label map', true), ('prediction', answer)):
                if values.size and not 0 <= values.min() <= values.max() < classes:
                    raise UserError(f'picture {number}: its {what} has the value {values.max()}, for {classes} classes')
            counts = np.bincount(true * classes + answer, minlength=classes**2).reshape(classes, classes)
            self.confusion += counts
            areas.append([np.diagonal(counts), counts.sum(0), counts.sum(1)])
        self.areas = np.array(areas, np.int64).reshape(-1, 3, classes)
        ones = np.ones((len(self.areas), 1), np.float64)
        #: In percent, rounded as mmseg does; None where no pixel counts.
        self.metrics = {
            name: None if np.isnan(value[0]) else round(float(value[0]), 2)
            for name, value in self.metrics_of_draws(ones).items()
        }

    def metrics_of_draws(self, weights: NDArray) -> dict[str, NDArray[np.float64]]:
        """The metrics of each draw of the pictures, in percent; ``weights`` is (pictures, draws)."""
        iou, accuracy, overall = _ratios(np.einsum('pac,pd->adc', self.areas.astype(np.float64), weights))
        return dict(zip(METRICS, (100 * overall, 100 * _mean(iou), 100 * _mean(accuracy))))

    def per_class(self) -> list[dict[str, Any]]:
        """Pixels, IoU and accuracy of each class, these in percent; None for one that does not occur."""
        areas = self.areas.sum(0)
        iou, accuracy, _ = _ratios(areas[:, None])
        return [
            dict(
                pixels=int(t),
                IoU=None if np.isnan(i) else round(100 * float(i), 2),
                accuracy=None if np.isnan(a) else round(100 * float(a), 2),
            )
            for t, i, a in zip(areas[2], iou[0], accuracy[0])
        ]

    def of_pictures(self) -> NDArray[np.float64]:
        """The share of right pixels of each picture; NaN where none counts."""
        return _ratios(np.moveaxis(self.areas, 1, 0).astype(np.float64))[2]


def _ratios(areas: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """IoU and accuracy of classes (n, classes), and of all pixels (n,), from (3, n, classes) areas; NaN for 0 / 0."""
    right, predicted, true = areas.astype(np.float64)

    def ratio(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
        return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)

    return ratio(right, predicted + true - right), ratio(right, true), ratio(right.sum(-1), true.sum(-1))


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = ~np.isnan(values)
    return np.divide(
        np.where(known, values, 0).sum(-1), known.sum(-1), out=np.full(len(values), np.nan), where=known.any(-1)
    )
