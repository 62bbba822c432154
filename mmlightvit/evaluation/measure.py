# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The standard numbers of a task, of one model or of two against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmlightvit.evaluation import classification, predictions
from mmlightvit.evaluation.coco_scores import KINDS, METRICS, CocoScores
from mmlightvit.evaluation.matches import DRAWS, draws, metrics_of_draws
from mmlightvit.evaluation.predictions import Answers
from mmlightvit.evaluation.segmentation import PixelScores
from mmlightvit.evaluation.truth import Truth
from mmlightvit.tasks import CLASSIFICATION, DETECTION, INSTANCE, SEGMENTATION, TASKS


class Measured(NamedTuple):
    """Numbers of one model on one set.

    Attributes:
        values: By kind (``'bbox'``, ``'segm'``, ``'accuracy'``, ``'pixels'``) and name, None where there is none.
        pictures: Places of the pictures that were measured.
        resample: The same numbers of draws of these pictures, from weights (pictures, draws).
        notes: Remarks for a reader.
    """

    values: dict[str, dict[str, float | None]]
    pictures: tuple[int, ...]
    resample: Callable[[NDArray[np.float32]], dict[str, Mapping[str, NDArray[np.float64]]]]
    notes: tuple[str, ...]


def main_metric(answers: Answers, truth: Truth) -> tuple[str, float | None]:
    """The number that decides which of two models is better, with its name.

    Raises:
        UserError: The answers do not fit the truth.
    """
    task = DETECTION if truth.task == DETECTION else answers.model['task']  # boxes say nothing of masks
    kind, name = TASKS[task].metric
    return name, measure(answers, truth).values[kind][name]


def measure(answers: Answers, truth: Truth) -> Measured:
    """The standard numbers of a model's answers.

    Raises:
        UserError: They do not fit the truth.
    """
    truth.check_task(answers.model['task'])
    if answers.content is None:
        return _label_maps(answers, truth)
    if answers.model['task'] == CLASSIFICATION:
        return _classes(answers.content, truth)
    truth = truth.for_classes(answers.model['classes'])
    assert truth.coco is not None
    results, notes = predictions.coco_results(answers.content, truth)
    kinds = list(KINDS) if answers.model['task'] == truth.task == INSTANCE else ['bbox']
    scores = {kind: CocoScores(truth.coco, results, kind) for kind in kinds}

    def resample(weights: NDArray[np.float32]) -> dict[str, Mapping[str, NDArray[np.float64]]]:
        return {kind: metrics_of_draws(each.matches, weights)[0] for kind, each in scores.items()}

    values = {kind: {name: each.metrics[name] for name in METRICS} for kind, each in scores.items()}
    return Measured(values, tuple(range(len(truth.pictures))), resample, (*truth.notes, *notes))


def _classes(content: Mapping[str, Any], truth: Truth) -> Measured:
    assert truth.labels is not None
    places, ranks, scores, notes = predictions.class_scores(content, truth)
    result = classification.score(truth.labels[places], ranks, scores, len(truth.classes))
    return Measured(
        {'accuracy': dict(result.metrics)},
        tuple(places.tolist()),
        lambda weights: {'accuracy': classification.metrics_of_draws(result, weights)},
        tuple(notes),
    )


def _label_maps(answers: Answers, truth: Truth) -> Measured:
    truth.check_task(SEGMENTATION, answers.model['classes'])
    places: list[int] = []

    def pairs() -> Any:
        for place, predicted in answers.maps:
            places.append(place)
            yield predicted, truth.label_map(place)

    scores = PixelScores(pairs(), len(truth.classes), truth.ignore)
    return Measured(
        {'pixels': dict(scores.metrics)},
        tuple(places),
        lambda weights: {'pixels': scores.metrics_of_draws(weights)},
        (),
    )


def sampled(measured: Measured) -> dict[str, Mapping[str, NDArray[np.float64]]]:
    """The numbers of ``DRAWS`` draws, the same draws for every model that was measured on the same pictures."""
    return measured.resample(draws(len(measured.pictures), DRAWS))
