# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Every planted fault is one line, and good data give none."""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from imports import imported
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from mmlightvit.data.check import Report, check_config
from mmlightvit.errors import UserError

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')

MASKS = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]


@pytest.fixture(autouse=True)
def _scope() -> Any:
    yield
    DefaultScope._instance_dict.clear()


def checked(scope: str, **settings: Any) -> Report:
    __import__(f'{scope}.datasets')
    return check_config(Config(dict(default_scope=scope, **settings)))


def coco(root: Path, split: str = 'train', classes: Iterable[str] = planted.CLASSES, **settings: Any) -> Report:
    dataset = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file=f'annotations/{split}.json',
        data_prefix=dict(img=split),
        metainfo=dict(classes=list(classes)),
        pipeline=MASKS,
    )
    return checked('mmdet', train_dataloader=dict(dataset=dataset), **settings)


def labelled(root: Path, **settings: Any) -> Report:
    def loader(split: str) -> dict:
        return dict(
            dataset=dict(
                type='BaseSegDataset',
                data_root=str(root),
                data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}'),
                metainfo=dict(classes=['background', *planted.CLASSES]),
                **settings,
            )
        )

    return checked('mmseg', train_dataloader=loader('train'), val_dataloader=loader('val'))


def folders(root: Path, **settings: Any) -> Report:
    def loader(split: str) -> dict:
        return dict(dataset=dict(type='CustomDataset', data_root=str(root), data_prefix=split, **settings))

    return checked('mmpretrain', train_dataloader=loader('train'), val_dataloader=loader('val'))


def named(report: Report, words: list[str]) -> None:
    """Each of ``words`` is in a problem of its own, and there is no other problem."""
    left = list(report.problems)
    for word in words:
        found = [line for line in left if word in line]
        assert len(found) == 1, (word, left)
        left.remove(found[0])
    assert left == []


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_good_data_have_no_problem(tmp_path: Path) -> None:
    planted.write_coco(tmp_path / 'coco')
    planted.write_folders(tmp_path / 'folders')
    planted.write_labelled(tmp_path / 'labelled')
    for report, images in (
        (coco(tmp_path / 'coco'), 12),
        (folders(tmp_path / 'folders', classes=sorted(planted.CLASSES)), 24),
        (folders(tmp_path / 'folders'), 24),
        (labelled(tmp_path / 'labelled'), 12),
    ):
        assert report.problems == []
        assert report.images == images


def test_unusual_images_are_no_problem(tmp_path: Path) -> None:
    planted.write_coco(tmp_path)
    for index, write in enumerate(planted.ODD_IMAGES.values()):
        (tmp_path / 'train' / f'{index:03d}.jpg').write_bytes(write())
    assert coco(tmp_path).problems == []


def test_the_largest_image_is_the_one_that_the_config_allows(tmp_path: Path) -> None:
    planted.write_coco(tmp_path, images=2)
    guard = dict(type='mmlightvit.DataGuardHook', max_pixels=48 * 64)
    assert coco(tmp_path, default_hooks=dict(data_guard=guard)).problems == []
    report = coco(tmp_path, default_hooks=dict(data_guard={**guard, 'max_pixels': 48 * 64 - 1}))
    named(report, ['000.jpg: its header claims 64 x 48 pixels, more than max_pixels=3,071', '001.jpg'])


def test_the_bar_comes_to_its_end(tmp_path: Path) -> None:
    """As rich's does only for one who asks for an item behind the last."""
    planted.write_coco(tmp_path, images=3)
    ended = []

    def progress(items: Iterable, what: str, total: int) -> Iterable:
        yield from items
        ended.append(total)

    __import__('mmdet.datasets')
    dataset = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='annotations/train.json',
                   data_prefix=dict(img='train'), metainfo=dict(classes=planted.CLASSES))  # fmt: skip
    check_config(Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset))), progress=progress)
    assert ended == [3]


def test_twelve_bad_images_of_twelve_are_named(tmp_path: Path) -> None:
    planted.write_coco(tmp_path, images=14)
    words = []
    for index, (plant, word) in enumerate(planted.BAD_IMAGES.values()):
        plant(tmp_path / 'train' / f'{index:03d}.jpg')
        words.append(f'{index:03d}.jpg: ')
        assert word
    report = coco(tmp_path)
    named(report, words)
    for line, (_, word) in zip(report.problems, planted.BAD_IMAGES.values()):
        assert word in line


def test_faults_of_an_annotation_file_are_named(tmp_path: Path) -> None:
    path = planted.write_coco(tmp_path, images=16)

    def plant(content: dict) -> None:
        images, objects = content['images'], content['annotations']
        objects[0]['bbox'] = [60, 6, 20, 16]
        objects[2]['bbox'] = [4, 6, -3, 16]
        objects[4]['bbox'] = [4, 6, float('nan'), 16]
        objects[6]['segmentation'] = []
        objects[8]['segmentation'] = [[5, 5, 9, 5, 13, 5]]
        objects[11]['segmentation'] = {'size': [48, 64], 'counts': [48 * 64]}
        objects[13]['segmentation']['size'] = [64, 48]
        objects[14]['category_id'] = 99
        objects[16]['image_id'] = 999
        objects[18]['id'] = 0
        images[10].update(width=640, height=480)
        images[12]['file_name'] = '../other/012.jpg'
        images[13]['id'] = 100
        objects[:] = [item for item in objects if item['image_id'] != 113]

    edit(path, plant)
    named(
        coco(tmp_path),
        [
            'annotation 1 of 000.jpg: its box [60, 6, 20, 16] is outside of its image of 64 x 48 pixels',
            'annotation 3 of 001.jpg: its box is empty: -3 x 16 pixels',
            'annotation 5 of 002.jpg: its box is not [x, y, width, height] in finite numbers',
            'annotation 7 of 003.jpg: it has no mask',
            'annotation 9 of 004.jpg: its mask has no area',
            'annotation 12 of 005.jpg: its mask has no area',
            'annotation 14 of 006.jpg: its mask is run lengths of [64, 48], expected [48, 64]',
            'annotation 15 of 007.jpg: there is no category 99',
            'annotation 17: there is no image 999',
            '010.jpg: it is 64 x 48 pixels, but',
            'the file_name of image 112, ../other/012.jpg, is outside of the image folder',
            'the id 100 stands twice, for 000.jpg and 013.jpg',
        ],
    )


@pytest.mark.parametrize(
    ('classes', 'words'),
    [
        (['disk', 'baar'], "the config's classes baar are not among its categories; it has bar instead"),
        (['disk', 'bar', 'cone'], "the config's classes cone are not among its categories"),
    ],
)
def test_class_names_have_to_match(tmp_path: Path, classes: list[str], words: str) -> None:
    planted.write_coco(tmp_path)
    named(coco(tmp_path, classes=classes), [words])


def test_another_order_of_the_classes_is_noted(tmp_path: Path) -> None:
    planted.write_coco(tmp_path)
    report = coco(tmp_path, classes=['bar', 'disk'])
    assert report.problems == []
    assert any('its categories are disk, bar in this order; a run takes' in note for note in report.notes)


def test_some_of_the_classes_are_only_noted(tmp_path: Path) -> None:
    planted.write_coco(tmp_path)
    report = coco(tmp_path, classes=['bar'])
    assert report.problems == []
    assert any('objects of disk are left out' in line for line in report.notes)


def test_files_without_objects_or_masks_are_one_line(tmp_path: Path) -> None:
    path = planted.write_coco(tmp_path)
    edit(path, lambda content: [item.pop('segmentation') for item in content['annotations']])
    named(coco(tmp_path), ['none of its 24 objects has a mask; train a detector of boxes'])
    edit(path, lambda content: content['annotations'].clear())
    named(coco(tmp_path), ['it has no object of the classes disk, bar; its categories are disk, bar, with 0 objects'])


@pytest.mark.parametrize('content', ['', '{', '[]', '{"images": [], "annotations": []}', '{"images": 3}'])
def test_files_that_are_not_coco(tmp_path: Path, content: str) -> None:
    path = planted.write_coco(tmp_path)
    path.write_text(content)
    assert len(coco(tmp_path).problems) == 1
    path.unlink()
    named(coco(tmp_path), ['the file is missing'])


def test_heads_and_evaluators_have_to_fit(tmp_path: Path) -> None:
    planted.write_coco(tmp_path)
    planted.write_coco(tmp_path, split='val')
    dataset = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='annotations/val.json',
        data_prefix=dict(img='val'),
        metainfo=dict(classes=planted.CLASSES),
    )
    report = coco(
        tmp_path,
        model=dict(rpn_head=dict(num_classes=1), roi_head=dict(bbox_head=[dict(num_classes=80), dict(num_classes=2)])),
        val_dataloader=dict(dataset=dataset),
        val_evaluator=dict(type='CocoMetric', ann_file=str(tmp_path / 'annotations' / 'train.json')),
        test_dataloader=dict(dataset=dataset),
        test_evaluator=dict(type='CocoMetric', ann_file=str(tmp_path / 'annotations' / 'val.json')),
    )
    named(report, ['model.roi_head.bbox_head.0.num_classes is 80', 'val: val_evaluator.ann_file is'])
    assert 'test: the same data as val' in report.notes
    assert report.images == 24


def test_twelve_faults_of_label_images_are_named(tmp_path: Path) -> None:
    planted.write_labelled(tmp_path, images=16)
    images, labels = tmp_path / 'images' / 'train', tmp_path / 'labels' / 'train'
    (labels / '000.png').unlink()
    (images / '001.jpg').unlink()
    (images / '002.jpg').write_bytes(b'')
    (images / '003.jpg').write_bytes(planted.encoded(planted.picture(1), 'JPEG')[:-100])
    (labels / '004.png').write_bytes(b'')
    (labels / '005.png').write_bytes((labels / '006.png').read_bytes()[:-60])
    planted.picture(1).save(labels / '007.png')
    (labels / '008.png').write_bytes(planted._sixteen_bits(colour=False))
    Image.fromarray(np.full((30, 30), 1, np.uint8)).save(labels / '009.png')
    Image.fromarray(np.full((48, 64), 3, np.uint8)).save(labels / '010.png')
    Image.fromarray(np.full((64, 48), 1, np.uint8)).save(labels / '011.png')
    (images / '012.jpg').write_bytes(planted.billion_pixels())
    named(
        labelled(tmp_path),
        [
            '000.png: the file is missing',
            '001.png: a label image without an image',
            '002.jpg: the file is empty',
            '003.jpg: it cannot be decoded',
            '004.png: the file is empty',
            '005.png: it cannot be decoded',
            '007.png: its mode is RGB',
            '008.png: its mode is I;16',
            '009.png: it is 30 x 30 pixels, its image 64 x 48',
            '010.png: it holds the values 3; expected 0 to 2, or 255 for pixels to ignore',
            '011.png: it is 48 x 64 pixels, its image 64 x 48',
            '012.jpg: its header claims more pixels',
        ],
    )


def test_zero_as_no_class(tmp_path: Path) -> None:
    planted.write_labelled(tmp_path)
    assert labelled(tmp_path, reduce_zero_label=True).problems == []  # 0 to 3 are allowed
    Image.fromarray(np.full((48, 64), 4, np.uint8)).save(tmp_path / 'labels' / 'val' / '000.png')
    named(
        labelled(tmp_path, reduce_zero_label=True),
        ['000.png: it holds the values 4; expected 0 for no class, then 1 to 3'],
    )


def test_labels_of_0_and_255_teach_nothing(tmp_path: Path) -> None:
    planted.write_labelled(tmp_path)
    for path in (tmp_path / 'labels' / 'train').iterdir():
        Image.fromarray(np.where(np.asarray(Image.open(path)) == 1, 255, 0).astype(np.uint8)).save(path)
    named(labelled(tmp_path), ['its labels hold 0 and 255 alone'])


def test_images_of_another_ending_are_noted(tmp_path: Path) -> None:
    planted.write_labelled(tmp_path)
    for name in ('000', '003'):
        (tmp_path / 'images' / 'train' / f'{name}.jpg').rename(tmp_path / 'images' / 'train' / f'{name}.jpeg')
        (tmp_path / 'labels' / 'train' / f'{name}.png').unlink()
    report = labelled(tmp_path)
    assert report.problems == []
    assert any('2 images are left out' in note and '000.jpeg, 003.jpeg' in note for note in report.notes)


def test_no_image_with_the_suffix(tmp_path: Path) -> None:
    planted.write_labelled(tmp_path, splits=('train', 'val'))
    report = labelled(tmp_path, img_suffix='.jpeg')
    assert (
        sum('no image ends in .jpeg (img_suffix); there are files ending in .jpg' in line for line in report.problems)
        == 2
    )


def test_twelve_faults_of_class_folders_are_named(tmp_path: Path) -> None:
    planted.write_folders(tmp_path, images=12)
    disk, bar = tmp_path / 'train' / 'disk', tmp_path / 'train' / 'bar'
    for index, (key, (plant, _)) in enumerate(planted.BAD_IMAGES.items()):
        if key not in ('missing', 'folder'):
            plant(disk / f'{index:03d}.jpg')
    (bar / '000.jpg').rename(tmp_path / 'train' / 'stray.jpg')
    (bar / '001.webp').write_bytes(planted.encoded(planted.picture(1), 'WEBP'))
    (bar / '.DS_Store').write_bytes(b'x')
    (bar / 'notes.txt').write_text('not an image, and not one by name')
    named(
        folders(tmp_path, classes=['bar', 'disk']),
        [f'disk{os.sep}{index:03d}.jpg: ' for index in (1, 2, 3, 4, 5, 6, 7, 8, 10, 11)]
        + ['stray.jpg: an image in no class folder', 'bar: 1 images would not be read, for their endings .webp'],
    )


def test_class_folders_have_to_match(tmp_path: Path) -> None:
    planted.write_folders(tmp_path)
    (tmp_path / 'val' / 'cone').mkdir()
    named(
        folders(tmp_path, classes=['bar', 'disk']),
        ["its 3 folders are not the config's 2 classes; there is no class cone", 'cone: the class has no image'],
    )
    named(
        folders(tmp_path),
        ['val: its class folders are bar, cone, disk, those of train bar, disk', 'cone: the class has no image'],
    )
    (tmp_path / 'val' / 'cone').rmdir()
    report = folders(tmp_path, classes=['disk', 'bar'])
    assert all('the classes have to be in the order bar, disk' in line for line in report.problems)
    assert len(report.problems) == 2


def test_faults_of_a_list_of_images_are_named(tmp_path: Path) -> None:
    planted.write_folders(tmp_path)
    lines = [
        'disk/000.jpg 0',
        'disk/001.jpg 2',
        'disk/002.jpg',
        '../val/disk/000.jpg 0',
        'disk/000.jpg 1',
        'bar/x.jpg 1',
    ]
    (tmp_path / 'train.txt').write_text('\n'.join(lines))
    dataset = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='train', ann_file='train.txt')
    named(
        checked('mmpretrain', train_dataloader=dict(dataset=dict(**dataset, classes=['disk', 'bar']))),
        [
            'line 2: the label of disk/001.jpg is 2, expected 0 to 1',
            'line 3: expected an image and its label',
            'line 4: ../val/disk/000.jpg is outside of the image folder',
            'line 5: disk/000.jpg stands in line 1 already',
            'x.jpg: the file is missing',
        ],
    )


def test_folders_and_data_sets_that_are_not_there(tmp_path: Path) -> None:
    named(folders(tmp_path), ['train: ', 'val: '])
    planted.write_labelled(tmp_path, splits=('train',))
    assert len(labelled(tmp_path).problems) == 2
    with pytest.raises(UserError, match='names no data'):
        checked('mmdet')


def test_real_coco_data_have_no_problem(shared: Path) -> None:
    root = shared / 'data' / 'coco'
    loaders = {
        f'{split}_dataloader': dict(
            dataset=dict(
                type='RepeatDataset',
                times=2,
                dataset=dict(
                    type='CocoDataset',
                    data_root=str(root),
                    ann_file=f'annotations/instances_{split}2017.json',
                    data_prefix=dict(img=f'{split}2017'),
                    pipeline=MASKS,
                ),
            )
        )
        for split in ('train', 'val')
    }
    report = checked('mmdet', **loaders)
    assert report.problems == []
    assert report.images == 100


def test_real_ade_data_have_no_problem(shared: Path, tmp_path: Path) -> None:
    source = shared / 'data' / 'ADEChallengeData2016'
    for split, coco_split in (('training', 'train2017'), ('validation', 'val2017')):
        folder = tmp_path / 'images' / split
        folder.mkdir(parents=True)
        for label in (source / 'annotations' / split).iterdir():
            (folder / f'{label.stem}.jpg').symlink_to(shared / 'data' / 'coco' / coco_split / f'{label.stem}.jpg')
    loaders = {
        f'{split}_dataloader': dict(
            dataset=dict(
                type='ADE20KDataset',
                data_prefix=dict(
                    img_path=str(tmp_path / 'images' / folder), seg_map_path=str(source / 'annotations' / folder)
                ),
            )
        )
        for split, folder in (('train', 'training'), ('val', 'validation'))
    }
    report = checked('mmseg', **loaders)
    assert report.problems == []
    assert report.images == 100


def test_the_tool(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: str, *options: str) -> tuple[int, list[str], str]:
        monkeypatch.setattr(sys, 'argv', ['check_dataset.py', config, *options])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(repo / 'tools' / 'misc' / 'check_dataset.py'), run_name='__main__')
        out, err = capsys.readouterr()
        return int(end.value.code or 0), [line for line in out.splitlines() if 'OneDL' not in line], err

    planted.write_folders(tmp_path / 'data')
    config = str(imported(tmp_path / 'data', tmp_path / 'out').folder.config)
    options = ['--split', 'train']
    assert run(config, *options)[:2] == (0, ['no problems in 12 images'])
    (tmp_path / 'data' / 'train' / 'bar' / '003.jpg').write_bytes(b'')
    code, lines, err = run(config, *options)
    assert (code, lines) == (
        1,
        [f'problem: train: {tmp_path}/data/train/bar/003.jpg: the file is empty', '1 problem in 12 images'],
    )
    assert 'images' in err  # the progress bar
    code, lines, err = run('no.py')
    assert (code, lines) == (1, [])
    assert err.startswith('error: ') and err.count('\n') == 1
