# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""COCO metrics that hold for any ids of the truth, and for a detector that finds nothing yet."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric as _CocoMetric
from mmengine.logging import print_log

from mmlightvit.pictures.coco import area_of
from mmlightvit.registry import METRICS


class _Truth(COCO):
    """pycocotools' truth with what it needs completed: ids from 1 (0 is its "no match"), ``iscrowd`` and ``area``.

    Args:
        content: A COCO file's; its annotations are changed.
    """

    def __init__(self, content: dict) -> None:
        super().__init__()
        self.dataset = content
        for number, item in enumerate(content.setdefault('annotations', []), 1):
            item.update(id=number, iscrowd=item.get('iscrowd') or 0)
            if item.get('area') is None:
                item['area'] = area_of(item)
        self._index()

    def _index(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    def loadRes(self, resFile: list[dict]) -> COCO:
        """The predictions; pycocotools fails where there are none."""
        if resFile:
            return super().loadRes(resFile)
        return _Truth({**self.dataset, 'annotations': []})


@METRICS.register_module()
class CocoMetric(_CocoMetric):
    """mmdet's ``CocoMetric`` where no prediction passes the score threshold, and where the truth's ids are odd.

    mmdet then logs an error and reports no metric at all, so that a run in its first iterations shows no table and
    its hooks find no value. Here all values are 0, as COCO defines them, and files of predictions hold an empty list.
    An object whose id is 0 counts as missed there, and ids that are texts fail; here they are numbered from 1. It takes
    mmdet's arguments.
    """

    def compute_metrics(self, results: list) -> dict[str, float]:
        """COCO metrics of the whole set; see mmdet."""
        if not any(len(prediction['labels']) for _, prediction in results):
            print_log('no prediction passes the score threshold: every COCO metric is 0', logger='current')
        if not isinstance(self._coco_api, _Truth):
            self._coco_api: Any = _Truth(self._truth(results))
        return super().compute_metrics(results)

    def _truth(self, results: list) -> dict:
        if self._coco_api is not None:
            return self._coco_api.dataset
        with tempfile.TemporaryDirectory() as folder:
            file = self.gt_to_coco_json([truth for truth, _ in results], self.outfile_prefix or f'{folder}/truth')
            return json.loads(Path(file).read_text(encoding='utf-8'))
