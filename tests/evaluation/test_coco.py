# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The COCO table of a detector that finds nothing, and of one that finds everything."""

from __future__ import annotations

import json
from pathlib import Path

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


def evaluate(annotations: str, found: bool, **settings: object) -> dict[str, float]:
    metric = METRICS.build(
        dict(type='mmlightvit.CocoMetric', ann_file=annotations, metric=['bbox', 'segm'], **settings)
    )
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


@pytest.mark.parametrize('ids', [(0, 1), ('a', 'b'), (None, None), (7, 7)])
def test_ids_of_the_truth_do_not_matter(annotations, ids):
    content = json.loads(Path(annotations).read_text())
    for item, key in zip(content['annotations'], ids):
        item['id'] = key
        del item['iscrowd'], item['area']
    Path(annotations).write_text(json.dumps(content))
    assert np.isclose(evaluate(annotations, found=True)['coco/bbox_mAP'], 1)
    assert np.isclose(evaluate(annotations, found=True)['coco/segm_mAP'], 1)


@pytest.mark.parametrize('format_only', [False, True])
def test_files_of_predictions_hold_what_was_predicted(annotations, tmp_path, format_only):
    settings = dict(outfile_prefix=str(tmp_path / 'out'), format_only=format_only)
    evaluate(annotations, found=False, **settings)
    assert json.loads((tmp_path / 'out.bbox.json').read_text()) == []
    assert json.loads((tmp_path / 'out.segm.json').read_text()) == []
    evaluate(annotations, found=True, **settings)
    assert [item['bbox'] for item in json.loads((tmp_path / 'out.bbox.json').read_text())] == [[4, 4, 16, 16]] * 2
