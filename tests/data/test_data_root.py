# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Moving every split and evaluator file with one option."""

import pytest
from mmengine.config import Config

from mmlightvit.cli.config import load_config
from mmlightvit.data.data_root import leaf_datasets, move_data_root
from mmlightvit.errors import UserError


def _strings(value):
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for item in value for text in _strings(item)] if isinstance(value, (list, tuple)) else []


@pytest.mark.parametrize(
    ('config', 'old'),
    [
        ('mask_rcnn_lightvit_t_1x.py', 'data/coco'),
        ('cascade_mask_rcnn_lightvit_t_3x.py', 'data/coco'),
        ('lightvit_t_imagenet.py', 'data/imagenet'),
        ('semantic_fpn_lightvit_t_ade20k.py', 'data/ade'),
    ],
)
def test_nothing_of_the_old_root_is_left_in_our_configs(config, old, repo):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    pytest.importorskip('mmpretrain')
    cfg = load_config(str(repo / 'configs' / config))
    used = [f'{split}_{part}' for split in ('train', 'val', 'test') for part in ('dataloader', 'evaluator')]
    used = [key for key in used if key in cfg]
    assert any(text.startswith(old) for text in _strings([cfg[key] for key in used]))
    move_data_root(cfg, '/new')
    assert not [text for text in _strings([cfg[key] for key in used]) if text.startswith(old)]
    for split in ('train', 'val', 'test'):
        assert all(item.cfg.data_root == '/new' for item in leaf_datasets(cfg, split))
    if 'coco' in old:
        assert cfg.val_evaluator.ann_file == '/new/annotations/instances_val2017.json'
        assert cfg.test_evaluator.ann_file == '/new/annotations/instances_val2017.json'


def _coco(split, **more):
    return dict(type='CocoDataset', data_root='data/coco/', ann_file=f'annotations/{split}.json', **more)


def test_wrappers_full_paths_and_format_only_files_move():
    cfg = Config(
        dict(
            data_root='data/coco/',
            train_dataloader=dict(
                dataset=dict(
                    type='RepeatDataset',
                    times=2,
                    dataset=dict(
                        type='MultiImageMixDataset',
                        dataset=dict(
                            type='ConcatDataset',
                            datasets=[
                                _coco('a'),
                                _coco('b', data_prefix=dict(img='./data/coco/train2017/')),
                                _coco('c', pipeline=[dict(type='Paste', folder='data/coco/extra')]),
                            ],
                        ),
                    ),
                )
            ),
            test_dataloader=dict(dataset=_coco('d')),
            test_evaluator=[
                dict(type='CocoMetric', ann_file='data/coco//annotations/d.json', outfile_prefix='./work_dirs/out'),
                dict(type='CocoMetric', format_only=True, ann_file='data/coco/annotations/test-dev.json'),
                dict(type='CocoMetric', ann_file='data/coco_old/d.json'),
            ],
        )
    )
    keys = move_data_root(cfg, '/new/place')
    first, second, third = cfg.train_dataloader.dataset.dataset.dataset.datasets
    assert {first.data_root, second.data_root, third.data_root, cfg.data_root} == {'/new/place'}
    assert first.ann_file == 'annotations/a.json'
    assert second.data_prefix.img == '/new/place/train2017'
    assert third.pipeline[0].folder == '/new/place/extra'
    assert cfg.test_dataloader.dataset.data_root == '/new/place'
    assert [item.ann_file for item in cfg.test_evaluator] == [
        '/new/place/annotations/d.json',
        '/new/place/annotations/test-dev.json',
        'data/coco_old/d.json',  # a neighbour with a similar name
    ]
    assert cfg.test_evaluator[0].outfile_prefix == './work_dirs/out'
    assert 'train_dataloader.dataset.dataset.dataset.datasets.1.data_prefix.img' in keys
    assert [item.key for item in leaf_datasets(cfg, 'train')] == [
        f'train_dataloader.dataset.dataset.dataset.datasets.{index}' for index in range(3)
    ]


def test_one_root_inside_the_other_moves_with_it():
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=dict(data_root='data/a')),
            val_dataloader=dict(dataset=dict(data_root='data/a/val')),
        )
    )
    move_data_root(cfg, '/n')
    assert cfg.train_dataloader.dataset.data_root == '/n'
    assert cfg.val_dataloader.dataset.data_root == '/n/val'


def test_what_cannot_be_moved_is_explained():
    with pytest.raises(UserError, match='no data set of the config has a data_root'):
        move_data_root(Config(dict(train_dataloader=dict(dataset=dict(ann_file='x.json')))), '/n')
    apart = dict(
        train_dataloader=dict(dataset=dict(data_root='data/a')), val_dataloader=dict(dataset=dict(data_root='data/b'))
    )
    with pytest.raises(UserError, match='data/a and data/b'):
        move_data_root(Config(apart), '/n')
