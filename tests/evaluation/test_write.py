# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Predictions as JSON, from samples as the toolboxes give them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmlightvit.cli.testing import find_unlabelled, keep_predictions, require_labels
from mmlightvit.errors import UserError
from mmlightvit.evaluation.write import PredictionsFile


def _written(path, samples, classes, **kwargs):
    metric = PredictionsFile(str(path), **kwargs)
    metric.dataset_meta = dict(classes=classes)
    metric.process(None, samples)
    assert metric.evaluate(len(samples)) == {}
    return json.loads(path.read_text())


def test_boxes_become_coco_results_in_the_files_own_category_ids(tmp_path):
    ann_file = tmp_path / 'truth.json'
    categories = [dict(id=7, name='dog'), dict(id=9, name='bird'), dict(id=40, name='cat')]
    ann_file.write_text(json.dumps(dict(images=[], categories=categories)), encoding='utf-8-sig')
    found = dict(
        bboxes=torch.tensor([[1.5, 2.0, 11.5, 22.25], [0.1, 0.0, 5.0, 5.0]]),
        scores=torch.tensor([0.9, 0.3]),
        labels=torch.tensor([1, 0]),
    )
    nothing = dict(bboxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.long))
    samples = [dict(img_id=139, pred_instances=found), dict(img_id=4, pred_instances=nothing)]
    # A label is the place among the file's categories that the model knows, as mmdet has it.
    content = _written(tmp_path / 'new' / 'out.json', samples, ('cat', 'dog'), ann_file=str(ann_file))
    first, second = content
    assert first == dict(image_id=139, category_id=40, bbox=[1.5, 2.0, 10.0, 20.25], score=0.9)
    assert (second['category_id'], second['score']) == (7, 0.3)
    assert np.float32(second['bbox'][0]) == found['bboxes'][1, 0].item() == np.float32(0.1)
    content = _written(tmp_path / 'out.json', samples, ('cat', 'dog'))
    assert [entry['category_id'] for entry in content] == [2, 1]
    assert _written(tmp_path / 'none.json', samples[1:], ('cat', 'dog')) == []


def test_masks_are_rle_that_cocos_api_reads(tmp_path):
    mask_api = pytest.importorskip('pycocotools.mask')
    pytest.importorskip('mmdet')
    mask = torch.zeros(1, 6, 8, dtype=torch.bool)
    mask[0, 1:4, 2:7] = True
    found = dict(
        bboxes=torch.tensor([[2.0, 1.0, 7.0, 4.0]]),
        scores=torch.tensor([1.0]),
        labels=torch.tensor([0]),
        masks=mask,
    )
    [entry] = _written(tmp_path / 'out.json', [dict(img_id=1, pred_instances=found)], ('cat',))
    assert (mask_api.decode(entry['segmentation']) == mask[0].numpy()).all()


def test_a_classifiers_scores_are_named(tmp_path):
    sample = dict(img_path='a/b.jpg', ori_shape=(20, 30), pred_score=torch.tensor([0.1, 0.7, 0.2]))
    content = _written(tmp_path / 'out.json', [sample], ('cat', 'dog', 'bird'))
    assert content['format'] == 'mmlightvit-predictions/1'
    [result] = content['results']
    assert (result['path'], result['width'], result['height'], result['task']) == ('a/b.jpg', 30, 20, 'classification')
    assert result['probs'] == [
        {'class_id': 1, 'class': 'dog', 'score': 0.7},
        {'class_id': 2, 'class': 'bird', 'score': 0.2},
        {'class_id': 0, 'class': 'cat', 'score': 0.1},
    ]


STEPS = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='Pack')]


def _test_config(scope: str, **dataset) -> Config:
    return Config(
        dict(
            default_scope=scope,
            test_dataloader=dict(dataset=dict(type='Data', pipeline=STEPS, **dataset)),
            test_evaluator=dict(type='Metric'),
        )
    )


@pytest.fixture
def unlabelled(tmp_path) -> dict[str, Config]:
    """A test set of images only for each toolbox."""
    (tmp_path / 'info.json').write_text(json.dumps(dict(images=[], categories=[])))
    return {
        'mmdet': _test_config('mmdet', data_root=str(tmp_path), ann_file='info.json', data_prefix=dict(img='x')),
        'mmpretrain': _test_config('mmpretrain', data_root='x', with_label=False),
        'mmseg': _test_config('mmseg', data_prefix=dict(img_path='x', seg_map_path=None)),
    }


def test_labelled_sets_keep_their_metrics(tmp_path):
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(dict(images=[], categories=[], annotations=[])))
    for cfg in (
        _test_config('mmdet', ann_file=str(path), data_prefix=dict(img='x')),
        _test_config('mmpretrain', data_root='x'),
    ):
        assert find_unlabelled(cfg) is None
        require_labels(cfg)
        assert cfg.test_evaluator == dict(type='Metric')
        keep_predictions(cfg, str(tmp_path / 'out.json'))
        assert [metric.type for metric in cfg.test_evaluator] == ['Metric', 'mmlightvit.PredictionsFile']
    assert find_unlabelled(_test_config('mmseg', data_prefix=dict(img_path='x', seg_map_path='y'))) is None


@pytest.mark.parametrize(
    ('scope', 'path', 'metric'),
    [
        ('mmdet', 'out.json', 'mmlightvit.PredictionsFile'),
        ('mmdet', 'out.pkl', 'DumpDetResults'),
        ('mmpretrain', 'out.json', 'mmlightvit.PredictionsFile'),
        ('mmseg', 'maps', 'Metric'),
    ],
)
def test_images_without_labels_are_predicted_and_not_measured(scope, path, metric, unlabelled):
    cfg = unlabelled[scope]
    with pytest.raises(UserError, match='has no labels, so nothing can be measured; write predictions with --out PATH'):
        require_labels(cfg)
    keep_predictions(cfg, path)
    [found] = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    assert found.type == metric
    assert found.get('format_only', True)
    assert [step.type for step in cfg.test_dataloader.dataset.pipeline] == ['LoadImageFromFile', 'Pack']


def test_label_steps_leave_the_alternatives_of_test_time_augmentation(unlabelled):
    cfg = unlabelled['mmseg']
    steps = [
        dict(type='Load'),
        dict(type='TestTimeAug', transforms=[[dict(type='Flip')], [dict(type='LoadAnnotations')]]),
    ]
    cfg.test_dataloader.dataset.pipeline = steps
    keep_predictions(cfg, 'maps')
    assert cfg.test_dataloader.dataset.pipeline[1].transforms == [[dict(type='Flip')]]


@pytest.mark.parametrize(('scope', 'path'), [('mmseg', 'maps.json'), ('mmdet', 'out'), ('mmpretrain', 'out.csv')])
def test_a_path_that_does_not_suit_the_task_is_refused(scope, path):
    with pytest.raises(UserError, match='--out expects'):
        keep_predictions(_test_config(scope, data_prefix=dict(img_path='x', seg_map_path='y')), path)
