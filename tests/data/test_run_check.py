# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Data as people have them: a run completes what has one meaning, and ends with one line at the rest."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from processes import run_forked

from mmlightvit.data.run_check import Checked, check_run
from mmlightvit.durable import launch
from mmlightvit.errors import UserError
from mmlightvit.registry import METRICS
from mmlightvit.toolboxes import import_toolbox

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')

MASKS = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]


@pytest.fixture(autouse=True)
def _scope() -> Any:
    yield
    DefaultScope._instance_dict.clear()


def coco(root: Path, classes: tuple[str, ...] = tuple(planted.CLASSES), **settings: Any) -> Config:
    __import__('mmdet.datasets')

    def loader(split: str) -> dict:
        return dict(
            batch_size=2,
            dataset=dict(
                type='CocoDataset',
                data_root=str(root),
                ann_file=f'annotations/{split}.json',
                data_prefix=dict(img=split),
                metainfo=dict(classes=classes),
                pipeline=MASKS if split == 'train' else [],
                test_mode=split != 'train',
            ),
        )

    metric = dict(type='mmlightvit.CocoMetric', ann_file=f'{root}/annotations/val.json', metric=['bbox', 'segm'])
    given = dict(train_dataloader=loader('train'), val_dataloader=loader('val'), val_evaluator=metric)
    return Config({**given, 'default_scope': 'mmdet', 'work_dir': str(root / 'work'), **settings})


def of_files(root: Path, change: Callable[[dict], object], splits: tuple[str, ...] = ('train', 'val')) -> Config:
    """A data set whose annotation files are changed."""
    for split in ('train', 'val'):
        path = planted.write_coco(root, images=4, split=split)
        if split in splits:
            content = json.loads(path.read_text())
            change(content)
            path.write_text(json.dumps(content))
    return coco(root)


def run(cfg: Config) -> Checked:
    return check_run(cfg, ('train', 'val'))


def of_all(kind: str, change: Callable[[dict], object]) -> Callable[[dict], object]:
    return lambda content: [change(item) for item in content[kind]]


def without(kind: str, *keys: str) -> Callable[[dict], object]:
    return of_all(kind, lambda item: [item.pop(key) for key in keys])


def learnt(settings: dict) -> list[list[tuple]]:
    """What a data set gives: file, size, and label and box of each object."""
    dataset = DATASETS.build({**settings, 'pipeline': []})
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return [
        [(Path(info['img_path']).name, info['height'], info['width'])]
        + [(item['bbox_label'], *item['bbox'], item['ignore_flag']) for item in info['instances']]
        for info in infos
    ]


def measured(cfg: Config) -> float:
    """The mAP of predictions that are the truth."""
    import torch

    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    metric = METRICS.build({**cfg.val_evaluator, 'metric': 'bbox'})
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        found = dict(
            bboxes=torch.tensor([item['bbox'] for item in info['instances']]).reshape(-1, 4),
            labels=torch.tensor([item['bbox_label'] for item in info['instances']]),
            scores=torch.ones(len(info['instances'])),
        )
        sample = dict(img_id=info['img_id'], ori_shape=(info['height'], info['width']), pred_instances=found)
        metric.process({}, [sample])
    return metric.evaluate(size=len(dataset))['coco/bbox_mAP']


REFUSED = {
    'no objects': (lambda content: content['annotations'].clear(), 'it has no object of the classes disk, bar'),
    'upper case': (
        of_all('categories', lambda item: item.update(name=item['name'].upper())),
        "config's classes disk, bar are not among its categories; it has DISK, BAR instead",
    ),
    'one no bbox': (lambda content: content['annotations'][3].pop('bbox'), 'annotation 4 of 001.jpg: it has no bbox'),
    'no segmentation': (without('annotations', 'segmentation'), 'train a detector of boxes'),
    'a name twice': (lambda content: content['categories'].append(dict(id=9, name='bar')), 'bar stands twice'),
    'normalised': (
        of_all('annotations', lambda item: item.update(bbox=[0.1, 0.1, 0.5, 0.5])),
        'its box is narrower than a pixel',
    ),
    'no file': (lambda content: content['images'][0].update(height=None, file_name='x.jpg'), 'no height and width'),
}


@pytest.mark.parametrize(('change', 'words'), REFUSED.values(), ids=REFUSED)
def test_what_has_no_meaning_ends_the_run_with_a_line(tmp_path: Path, change: Any, words: str) -> None:
    cfg = of_files(tmp_path, change)
    with pytest.raises(UserError, match=words) as error:
        run(cfg)
    assert str(tmp_path / 'annotations' / 'train.json') in str(error.value)
    assert not (tmp_path / 'work').exists()


def test_objects_without_masks_are_left_out_of_a_measurement_and_counted(tmp_path: Path) -> None:
    cfg = of_files(tmp_path / 'one', lambda content: content['annotations'][0].pop('segmentation'), splits=('val',))
    checked = run(cfg)
    assert any('1 objects are left out of what is measured' in line for line in checked.warnings)
    assert len(json.loads(Path(cfg.val_evaluator.ann_file).read_text())['annotations']) == 7
    cfg = of_files(tmp_path / 'all', without('annotations', 'segmentation'), splits=('val',))
    with pytest.raises(UserError, match=r'val: \S*val\.json: none of its 8 objects has a mask'):
        run(cfg)


def test_images_that_a_setting_leaves_out_are_counted(tmp_path: Path) -> None:
    cfg = of_files(tmp_path, lambda content: content['annotations'].__delitem__(slice(0, 2)))
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True, min_size=50)
    notes = run(cfg).notes
    assert any('1 of 4 images have no object; they are left out, since filter_cfg.filter_empty_gt' in n for n in notes)
    assert any('4 of 4 images are left out, since a side is under filter_cfg.min_size=50' in n for n in notes)


def test_heads_text_classes_and_batches_have_to_fit(tmp_path: Path) -> None:
    good = of_files(tmp_path, lambda content: None)
    cfg = Config({**good.to_dict(), 'model': dict(bbox_head=dict(num_classes=1))})
    with pytest.raises(UserError, match=r'model\.bbox_head\.num_classes is 1, but the data set has 2 classes'):
        run(cfg)
    cfg = coco(tmp_path, classes='disk')
    with pytest.raises(UserError, match=r"the text 'disk', .*; write \('disk',\)"):
        run(cfg)
    good.train_dataloader.update(batch_size=64, drop_last=True)
    with pytest.raises(UserError, match='4 samples make no batch of 64'):
        run(good)


def labelled(root: Path, **model: Any) -> Config:
    __import__('mmseg.datasets')
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        metainfo=dict(classes=['background', 'disk', 'bar']),
    )
    loader = dict(dataset=dataset, batch_size=1)
    return Config(dict(default_scope='mmseg', work_dir=str(root / 'work'), train_dataloader=loader, model=model))


def test_label_images(tmp_path: Path) -> None:
    planted.write_labelled(tmp_path)
    assert run(labelled(tmp_path)) == Checked()
    head = dict(num_classes=1, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False))
    with pytest.raises(UserError, match='one class and a softmax loss'):
        run(labelled(tmp_path, decode_head=head))
    pooled = dict(type='UPerHead', num_classes=3, norm_cfg=dict(type='SyncBN'))
    with pytest.raises(UserError, match=r'train_dataloader\.batch_size is 1'):
        run(labelled(tmp_path, decode_head=pooled))
    (tmp_path / 'images' / 'train' / '000.jpg').rename(tmp_path / 'images' / 'train' / '000.jpeg')
    [note] = run(labelled(tmp_path)).notes
    assert '1 images are left out' in note and 'img_suffix' in note
    for path in (tmp_path / 'labels' / 'train').iterdir():
        Image.fromarray(np.where(np.asarray(Image.open(path)) == 1, 255, 0).astype(np.uint8)).save(path)
    with pytest.raises(UserError, match='labels hold 0 and 255 alone'):
        run(labelled(tmp_path))


def test_class_folders(tmp_path: Path) -> None:
    __import__('mmpretrain.datasets')
    planted.write_folders(tmp_path)

    def folders(classes: int = 2, **settings: Any) -> Config:
        dataset = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='train', **settings)
        model = dict(head=dict(num_classes=classes))
        loader = dict(dataset=dataset, batch_size=1)
        return Config(dict(default_scope='mmpretrain', work_dir='work', train_dataloader=loader, model=model))

    run(folders())
    with pytest.raises(UserError, match=r'head\.num_classes is 3, but the data set has 2'):
        run(folders(3))
    with pytest.raises(UserError, match='the classes have to be in the order bar, disk'):
        run(folders(metainfo=dict(classes=['disk', 'bar'])))
    (tmp_path / 'train' / '.ipynb_checkpoints').mkdir()
    with pytest.raises(UserError, match=r'the hidden folder \.ipynb_checkpoints would be a class'):
        run(folders())


@pytest.mark.parametrize('apart', [False, True], ids=['one directory', 'a directory of each node'])
def test_every_process_reads_the_completed_file(tmp_path: Path, apart: bool) -> None:
    good = of_files(tmp_path / 'good', lambda content: None)
    of_files(tmp_path / 'data', without('annotations', 'iscrowd', 'id', 'area'))
    with DefaultScope.overwrite_default_scope('mmdet'):
        meant = json.dumps(learnt(good.train_dataloader.dataset))
    for told, file, score, written in run_forked(2, _in_rank, tmp_path, apart):
        assert told == '' and score == 1
        assert written == meant
        assert Path(file).parent.parent.name == 'work'
    assert len({*tmp_path.rglob('work/annotations/val_dataloader*.json')}) == 1 + apart


def test_every_process_is_refused_alike(tmp_path: Path) -> None:
    of_files(tmp_path / 'data', without('annotations', 'iscrowd', 'bbox'))
    (first, *_), (second, *_) = run_forked(2, _in_rank, tmp_path, False)
    assert first == second and 'it has no bbox' in first
    assert not [*tmp_path.rglob('work')]


def _in_rank(root: Path, apart: bool) -> list:
    """What a process is told, the truth that its metric reads, the score of it, and what its training learns from."""
    folder = root / (f'node{os.environ["RANK"]}' if apart else 'node')
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    if apart:
        os.environ['LOCAL_RANK'] = '0'
    launch.init_distributed('pytorch')
    cfg = coco(root / 'data', work_dir='work')
    try:
        run(cfg)
    except UserError as error:
        return [str(error), '', 0, '']
    finally:
        launch.leave_distributed()
    import_toolbox('mmdet')
    with DefaultScope.overwrite_default_scope('mmdet'):
        return ['', cfg.val_evaluator.ann_file, measured(cfg), json.dumps(learnt(cfg.train_dataloader.dataset))]


def test_truth_without_objects_is_a_warning(tmp_path: Path) -> None:
    cfg = of_files(tmp_path, lambda content: content['annotations'].clear(), splits=('val',))
    [warning] = run(cfg).warnings
    assert 'val.json' in warning and 'average precision has no meaning then' in warning
    cfg.val_evaluator.format_only = True  # predictions are written, not measured
    assert run(cfg).warnings == []


def test_a_hundred_thousand_objects_take_seconds(tmp_path: Path) -> None:
    def repeat(content: dict) -> None:
        images, objects = content['images'], content['annotations']
        times = 100_000 // len(objects)
        content['images'] = [
            {**item, 'id': item['id'] + 1000 * n, 'file_name': f'{n}/{item["file_name"]}'}
            for n in range(times)
            for item in images
        ]
        content['annotations'] = [
            {**item, 'id': 1 + place + n * len(objects), 'image_id': item['image_id'] + 1000 * n}
            for n in range(times)
            for place, item in enumerate(objects)
        ]

    cfg = of_files(tmp_path, repeat, splits=('train',))
    start = time.process_time()
    run(cfg)
    assert time.process_time() - start < 10
