# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""How good a model is and where it fails: numbers, figures and pictures of one set in a folder with one page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mmlightvit.evaluation import predictions
from mmlightvit.evaluation.base import Report, write_text
from mmlightvit.evaluation.classification_report import ClassReport
from mmlightvit.evaluation.detection_report import DetectionReport
from mmlightvit.evaluation.predictions import Answers
from mmlightvit.evaluation.segmentation_report import SegmentationReport
from mmlightvit.evaluation.truth import Truth
from mmlightvit.tasks import CLASSIFICATION


def write_report(answers: Answers, truth: Truth, out: Path, iou: float = 0.5) -> dict[str, Any]:
    """Write the report of a model's answers; see :func:`report_from_predictions`."""
    if answers.content is not None:
        return report_from_predictions(answers.content, truth, out, iou)
    return report_from_label_maps(answers.maps, truth, out, answers.model)


def report_from_predictions(
    source: str | Path | Mapping[str, Any] | Sequence[Any], truth: Truth, out: Path, iou: float = 0.5
) -> dict[str, Any]:
    """Write the report of a detector, an instance segmenter or a classifier.

    Args:
        source: ``predictions.json`` or its content, or a COCO results file with the ids of the truth's file.
        truth: The labels.
        out: Folder of the report; it exists.
        iou: IoU from which a detection counts as right where one has to be chosen: 0.5, 0.55, ... 0.95.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: The predictions do not fit the truth, or a package is missing.
    """
    content = predictions.read(source, truth)
    task = content['model']['task']
    truth.check_task(task)
    report: Report = (
        ClassReport(content, truth, out) if task == CLASSIFICATION else DetectionReport(content, truth, out, iou)
    )
    report.write()
    write_text(out / 'predictions.json', json.dumps(content, ensure_ascii=False))
    return report.metrics


def report_from_label_maps(
    maps: Iterable[tuple[int, NDArray]], truth: Truth, out: Path, model: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the report of a segmenter.

    Args:
        maps: Place of a picture in the truth, and its label map.
        truth: The labels.
        out: Folder of the report; it exists.
        model: ``name`` and ``classes`` of the model.
    """
    report = SegmentationReport(maps, truth, out, model)
    report.write()
    return report.metrics
