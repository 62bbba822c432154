# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Boxes and masks against COCO truth: the one module that knows hotcoco, which measures as pycocotools does.

hotcoco keeps its rules for crowds, areas and ties in one place, so everything here that needs to know which detection
found which object asks it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.errors import UserError
from mmlightvit.evaluation import packages
from mmlightvit.evaluation.matches import IGNORED, MISTAKE, RIGHT, Matches

KINDS = {'bbox': 'boxes', 'segm': 'masks'}
AREAS = {'all': (0.0, 1e10), 'small': (0.0, 32.0**2), 'medium': (32.0**2, 96.0**2), 'large': (96.0**2, 1e10)}
IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
METRICS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'AR1', 'AR10', 'AR100', 'ARs', 'ARm', 'ARl')
ERRORS = {
    'Cls': 'wrong class',
    'Loc': 'badly placed',
    'Both': 'wrong class, badly placed',
    'Dupe': 'found twice',
    'Bkg': 'nothing there',
    'Miss': 'missed',
}


def row_of(iou: float) -> int:
    """The place of a threshold among ``IOUS``.

    Raises:
        UserError: It is none of them.
    """
    if iou not in IOUS:
        raise UserError(f'--iou: expected one of {", ".join(map(str, IOUS))}, got {iou}')
    return IOUS.index(iou)


class CocoScores:
    """How well one model's detections fit the truth of a set.

    Args:
        truth: COCO's dict; the ids of categories are the classes' places + 1.
        results: COCO's results with those ids, in any order.
        kind: ``'bbox'`` or ``'segm'``.

    Attributes:
        classes: Names, by place.
        image_ids: In the order of the truth.
        metrics: COCO's twelve by name; None where the set has no such object.
    """

    def __init__(self, truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], kind: str = 'bbox') -> None:
        # With a box beside the mask, COCO's reader takes the box's area for the object's size.
        wanted = ('image_id', 'category_id', 'score', 'bbox' if kind == 'bbox' else 'segmentation')
        self.kind = kind
        self._wanted = wanted
        self.results = self._of_kind(results)
        self.truth = truth
        self.classes = [category['name'] for category in truth['categories']]
        self.image_ids = [image['id'] for image in truth['images']]
        self._place = {image_id: place for place, image_id in enumerate(self.image_ids)}
        self._truth = packages.load('hotcoco').COCO(dict(truth))
        self._evaluation = self._evaluate(self.results)
        self._evaluation.accumulate()
        self._evaluation.summary_lines()  # fills the metrics; summarize() would print them
        values = self._evaluation.get_results()
        self.metrics = {name: _known(values[name]) for name in METRICS}

    def _of_kind(self, results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{key: result[key] for key in self._wanted} for result in results]

    def _evaluate(self, results: list[dict[str, Any]], area: str | None = None) -> Any:
        evaluation = packages.load('hotcoco').COCOeval(self._truth, self._truth.load_res(results), self.kind)
        if area is not None:
            evaluation.params.area_rng, evaluation.params.area_rng_lbl = [list(AREAS[area])], ['all']
            evaluation.params.max_dets = [100]
        evaluation.evaluate()
        return evaluation

    # -- of classes ---------------------------------------------------------------------------------------------------
    def per_class(self) -> list[dict[str, Any]]:
        """AP, AP50, AP75 and average recall of each class; None for a class without objects."""
        precision = self._evaluation.eval['precision'][:, :, :, 0, -1]  # IoU, recall, class
        recall = self._evaluation.eval['recall'][:, :, 0, -1]
        return [
            dict(
                AP=_known(precision[:, :, place].mean()),
                AP50=_known(precision[0, :, place].mean()),
                AP75=_known(precision[5, :, place].mean()),
                AR=_known(recall[:, place].mean()),
            )
            for place in range(len(self.classes))
        ]

    def precision_curves(self) -> NDArray[np.float64]:
        """Precision over 101 recalls, (IoU thresholds, recalls, classes); NaN for a class without objects."""
        precision = np.asarray(self._evaluation.eval['precision'][:, :, :, 0, -1], dtype=float)
        return np.where(precision < 0, np.nan, precision)

    # -- of detections ------------------------------------------------------------------------------------------------
    def matches(self, area: str = 'all') -> Matches:
        """Which detection found an object, at each IoU threshold, by falling score within each class."""
        evaluation = self._evaluate(self.results, area)
        status = np.full((len(IOUS), len(self.results)), IGNORED, np.int8)
        for row, iou in zip(status, IOUS):
            words = evaluation.image_diagnostics(iou_thr=iou)['dt_status']  # without the ignored ones
            ids = np.fromiter(words, np.int64, len(words)) - 1
            row[ids] = np.fromiter((RIGHT if word == 'tp' else MISTAKE for word in words.values()), np.int8, len(words))
        objects = self.objects(area)
        image = np.array([self._place[result['image_id']] for result in self.results], np.int64)
        label = np.array([result['category_id'] - 1 for result in self.results], np.int64)
        score = np.array([result['score'] for result in self.results], float)
        return Matches.sort(image, label, score, status, objects)

    def objects(self, area: str = 'all') -> NDArray[np.int64]:
        """Objects to be found, (pictures, classes)."""
        low, high = AREAS[area]
        out = np.zeros((len(self.image_ids), len(self.classes)), np.int64)
        counted = [a for a in self.truth['annotations'] if not a['iscrowd'] and low <= a['area'] <= high]
        np.add.at(out, ([self._place[a['image_id']] for a in counted], [a['category_id'] - 1 for a in counted]), 1)
        return out

    def errors(self, iou: float) -> dict[str, dict[str, float]]:
        """TIDE's kinds of error: how much AP at ``iou`` each costs, and how often it occurs."""
        errors = self._evaluation.tide_errors(pos_thr=iou)
        return {name: dict(cost=errors['delta_ap'][name], count=errors['counts'][name]) for name in ERRORS}

    def calibration(self, iou: float) -> dict[str, Any]:
        """How well scores foretell that a detection is right: ``ece``, and ``bins`` of confidence, accuracy, count."""
        measured = self._evaluation.calibration(n_bins=10, iou_threshold=iou)
        bins = [
            dict(confidence=b['avg_confidence'], accuracy=b['avg_accuracy'], count=b['count']) for b in measured['bins']
        ]
        return dict(ece=measured['ece'] if measured['num_detections'] else None, bins=bins)

    # -- at the thresholds that a user works with ---------------------------------------------------------------------
    def working(self, results: Sequence[Mapping[str, Any]], iou: float) -> Working:
        """The right and the wrong among the results that are shown."""
        return Working(self, results, iou)


class Working:
    """The detections that are shown, against the truth, at one IoU.

    Attributes:
        confusion: (classes + 1, classes + 1) counts; rows truth, columns prediction, background last.
        pictures: ``tp``, ``fp``, ``fn``, ``f1`` by image id, of pictures with objects or detections.
        suspects: Places where the truth may be wrong, surest first: ``result``, ``type``, ``truth_class``, ``iou``.
    """

    def __init__(self, scores: CocoScores, shown: Sequence[Mapping[str, Any]], iou: float) -> None:
        results = scores._of_kind(shown)
        diagnostics = scores._evaluate(results, 'all').image_diagnostics(iou_thr=iou, score_thr=0.0)
        self.pictures: dict[int, dict[str, float]] = diagnostics['img_summary']
        self.suspects = [
            dict(result=results[e['dt_id'] - 1], type=e['type'], truth_class=e['gt_category'], iou=e['iou'])
            for e in diagnostics['label_errors']
        ]
        # A detection within a crowd is neither right nor wrong; the matrix would call it a mistake.
        counted = [result for number, result in enumerate(results, 1) if number in diagnostics['dt_status']]
        self.confusion: NDArray[np.int64] = (
            scores._evaluate(counted).confusion_matrix(iou_thr=iou)['matrix'].astype(int)
        )


def _known(value: float) -> float | None:
    """COCO's -1 is "there is no such object"."""
    return None if value < 0 or math.isnan(value) else float(value)
