# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Predictions of a test as JSON, which any program reads: COCO results, or the scores of a classifier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric

from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.pictures import coco
from mmlightvit.pictures.result import FORMAT
from mmlightvit.registry import METRICS
from mmlightvit.tasks import CLASSIFICATION

TOP = 5  # classes of a classified picture that are written


@METRICS.register_module()
class PredictionsFile(BaseMetric):
    """Writes the predictions of a detector or classifier, measures nothing, and needs no labels.

    A detector's file is a COCO results file: a list of ``image_id``, ``category_id``, ``bbox`` (x, y, width, height),
    ``score`` and, with masks, ``segmentation`` as RLE. A classifier's names each picture's five best classes.

    Args:
        path: The file.
        ann_file: COCO file of the detector's test set, whose category ids are taken; without it a class has its place
            from 1.
        collect_device: As in MMEngine.
    """

    default_prefix = 'predictions'

    def __init__(self, path: str, ann_file: str | None = None, collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device)
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.ann_file = ann_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of a batch."""
        for sample in data_samples:
            self.results.append(_objects(sample) if 'pred_instances' in sample else self._scores(sample))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Write the file; there is nothing to measure."""
        content: Any
        if results and isinstance(results[0], dict):
            content = dict(format=FORMAT, results=results)
        else:
            ids = self._category_ids()
            content = [{**entry, 'category_id': ids[entry['category_id']]} for image in results for entry in image]
        text = json.dumps(content)
        atomic_write(self.path, lambda file: file.write(text.encode()))
        return {}

    def _category_ids(self) -> list[int]:
        classes = (self.dataset_meta or {}).get('classes') or ()
        if self.ann_file is None:
            return [place + 1 for place in range(len(classes))]
        content = coco.read(Path(self.ann_file), labelled=False)
        coco.apply(content)
        return [category['id'] for category in content['categories'] if category['name'] in classes]  # mmdet's order

    def _scores(self, sample: dict) -> dict:
        scores = sample['pred_score'].cpu()
        classes = (self.dataset_meta or {}).get('classes') or [str(place) for place in range(len(scores))]
        best = scores.topk(min(TOP, len(scores)))
        probs = [
            dict(class_id=place, **{'class': classes[place]}, score=_decimal(score))
            for place, score in zip(best.indices.tolist(), best.values.numpy())
        ]
        height, width = sample['ori_shape'][:2]
        path = sample.get('img_path')
        return dict(path=path, frame=None, width=width, height=height, task=CLASSIFICATION, probs=probs)


def _objects(sample: dict) -> list[dict]:
    """The objects of an image as COCO results, with the class's place as category."""
    instances = sample['pred_instances']
    boxes, scores = instances['bboxes'].cpu().numpy(), instances['scores'].cpu().numpy()
    masks = [None] * len(boxes)
    if 'masks' in instances:
        from mmdet.structures.mask import encode_mask_results

        dense = instances['masks']
        masks = encode_mask_results(dense.cpu().numpy()) if hasattr(dense, 'cpu') else dense
    objects = []
    for (x1, y1, x2, y2), score, label, mask in zip(boxes, scores, instances['labels'].tolist(), masks):
        entry = dict(
            image_id=sample['img_id'],
            category_id=label,
            bbox=[_decimal(value) for value in (x1, y1, x2 - x1, y2 - y1)],
            score=_decimal(score),
        )
        if mask is not None:
            counts = mask['counts']
            counts = counts.decode() if isinstance(counts, bytes) else counts
            entry['segmentation'] = dict(size=list(mask['size']), counts=counts)
        objects.append(entry)
    return objects


def _decimal(value: Any) -> float:
    """A float32 as the shortest decimal that stands for it."""
    return float(str(value))
