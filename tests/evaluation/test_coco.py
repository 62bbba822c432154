# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The COCO table of a detector that finds nothing, and of one that finds everything."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')

from mmlightvit.registry import METRICS


@pytest.fixture
def annotations(tmp_path) -> str:
    path = tmp_path / 'annotations.json'
    box = [4, 4, 16, 16]
    path.write_text(
        json.dumps(
            dict(
                images=[dict(id=i, file_name=f'{i}.jpg', height=32, width=48) for i in (1, 2)],
                categories=[dict(id=1, name='a'), dict(id=2, name='b')],
                annotations=[
                    dict(
                        id=i,
                        image_id=i,
                        category_id=i,
                        bbox=box,
                        area=256,
                        iscrowd=0,
                        segmentation=[[4, 4, 20, 4, 20, 20, 4, 20]],
                    )
                    for i in (1, 2)
                ],
            )
        )
    )
    return str(path)


def evaluate(annotations: str, found: bool) -> dict[str, float]:
    metric = METRICS.build(dict(type='mmlightvit.CocoMetric', ann_file=annotations, metric=['bbox', 'segm']))
    metric.dataset_meta = dict(classes=('a', 'b'))
    for i in (1, 2):
        number = int(found)
        masks = torch.zeros(number, 32, 48, dtype=torch.bool)
        masks[:, 4:20, 4:20] = True
        prediction = dict(
            bboxes=torch.tensor([[4.0, 4.0, 20.0, 20.0]])[:number],
            scores=torch.ones(number),
            labels=torch.full((number,), i - 1),
            masks=masks,
        )
        metric.process({}, [dict(img_id=i, ori_shape=(32, 48), pred_instances=prediction)])
    return metric.evaluate(size=2)


def test_nothing_found_is_zero_and_not_an_empty_table(annotations):
    metrics = evaluate(annotations, found=False)
    assert metrics['coco/bbox_mAP'] == 0
    assert metrics['coco/segm_mAP'] == 0
    assert metrics['coco/bbox_mAP_50'] == 0


def test_everything_found_is_one(annotations):
    metrics = evaluate(annotations, found=True)
    assert np.isclose(metrics['coco/bbox_mAP'], 1)
    assert np.isclose(metrics['coco/segm_mAP'], 1)
