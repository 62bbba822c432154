# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""COCO metrics of a detector that finds nothing yet."""

from __future__ import annotations

import numpy as np
from mmdet.evaluation import CocoMetric as _CocoMetric
from mmdet.structures.mask import encode_mask_results
from mmengine.logging import print_log

from mmlightvit.registry import METRICS


@METRICS.register_module()
class CocoMetric(_CocoMetric):
    """mmdet's ``CocoMetric``, which also gives its table when no prediction passes the score threshold.

    mmdet then logs an error and reports no metric at all, so that a run in its first iterations shows no table and
    its hooks find no value. Here all values are 0, as COCO defines them. It takes mmdet's arguments.
    """

    def compute_metrics(self, results: list) -> dict[str, float]:
        """COCO metrics of the whole set; see mmdet."""
        if results and not any(len(prediction['labels']) for _, prediction in results):
            print_log('no prediction passes the score threshold: every COCO metric is 0', logger='current')
            (truth, prediction), *others = results
            results = [(truth, self._with_empty_box(truth, prediction)), *others]
        return super().compute_metrics(results)

    @staticmethod
    def _with_empty_box(truth: dict, prediction: dict) -> dict:
        """The prediction with a box and mask of no area and score 0, which overlap nothing."""
        empty = dict(
            bboxes=np.zeros((1, 4), dtype=np.float32),
            scores=np.zeros(1, dtype=np.float32),
            labels=np.zeros(1, dtype=np.int64),
            masks=encode_mask_results(np.zeros((1, truth['height'], truth['width']), dtype=bool)),
            mask_scores=np.zeros(1, dtype=np.float32),
        )
        return {key: empty.get(key, value) for key, value in prediction.items()}
