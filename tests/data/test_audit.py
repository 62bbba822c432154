# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""`mmlightvit data check` on a prepared folder: a planted leak is found, none is invented."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import planted
import pytest
from imports import imported, write_pictures
from PIL import Image

from mmlightvit.cli import main
from mmlightvit.data.check import Report, check_folder
from mmlightvit.data.folder import DatasetFolder


def coco(root: Path, objects: dict[str, list[tuple[str, list[float]]]]) -> DatasetFolder:
    """Pictures ``split/name.jpg`` with boxes, imported with the splits as they are."""
    for place, name in enumerate(objects):
        write_pictures(root / 'images' / name.split('/')[0], [name.split('/')[1]], place)
    rows = ['path,class,x1,y1,x2,y2,split']
    for name, boxes in objects.items():
        for label, box in boxes:
            rows.append(f'images/{name},{label},{",".join(map(str, box))},{name.split("/")[0]}')
    (root / 'labels.csv').write_text('\n'.join(rows))
    return imported(root, root.parent / 'out').folder


def few(tmp_path: Path) -> DatasetFolder:
    box = [('cat', [5, 5, 20, 20])]
    return coco(
        tmp_path / 's', {f'{split}/{split}{n}.jpg': box for split in ('train', 'val', 'test') for n in range(3)}
    )


def test_a_good_folder_has_no_problem(tmp_path: Path) -> None:
    report = check_folder(few(tmp_path))
    assert (report.problems, report.leaks, report.images) == ([], [], 9)
    assert report.notes == ['train: 1 of 1 classes have under 10 objects: cat (3)']


def test_the_same_picture_in_two_splits_is_a_problem(tmp_path: Path) -> None:
    folder = few(tmp_path)
    images = folder.images / 'images'
    shutil.copy(images / 'train' / 'train1.jpg', images / 'val' / 'val2.jpg')
    with Image.open(images / 'train' / 'train2.jpg') as image:  # other bytes, the same pixels
        image.save(images / 'test' / 'test0.jpg', format='PNG')
    report = check_folder(folder)
    assert report.problems == [
        f'train and val share 1 pictures: {images}/train/train1.jpg and {images}/val/val2.jpg',
        f'train and test share 1 pictures: {images}/train/train2.jpg and {images}/test/test0.jpg',
    ]
    assert [kind for _, _, kind in report.leaks] == ['same', 'same']
    assert main(['data', 'check', str(folder.path)]) == 1
    assert main(['data', 'check', str(folder.path), '--split', 'train']) == 0


def test_the_same_picture_twice_in_one_split_is_no_leak(tmp_path: Path) -> None:
    folder = few(tmp_path)
    images = folder.images / 'images'
    shutil.copy(images / 'train' / 'train1.jpg', images / 'train' / 'train2.jpg')
    assert check_folder(folder).leaks == [] and check_folder(folder).problems == []


def test_nearly_the_same_picture_is_a_note_with_the_names(tmp_path: Path) -> None:
    folder = few(tmp_path)
    images = folder.images / 'images'
    with Image.open(images / 'train' / 'train1.jpg') as image:
        image.save(images / 'val' / 'val0.jpg', quality=30)
    report = check_folder(folder)
    assert report.problems == []
    (line,) = [note for note in report.notes if 'nearly' in note]
    assert line == (
        f'train and val have 1 pairs of nearly the same picture: {images}/train/train1.jpg and {images}/val/val0.jpg'
    )


def test_real_pictures_have_no_leak_until_one_is_planted(tmp_path: Path, shared: Path) -> None:
    root = shared / 'data' / 'coco'
    report = check_folder(imported(root, tmp_path / 'out').folder)
    assert (report.problems, report.leaks) == ([], [])
    for split in ('train2017', 'val2017'):
        (tmp_path / 's' / split).mkdir(parents=True)
        for path in (root / split).iterdir():
            shutil.copy(path, tmp_path / 's' / split)
    shutil.copytree(root / 'annotations', tmp_path / 's' / 'annotations')
    first = sorted((tmp_path / 's' / 'train2017').iterdir())[0]
    victim = sorted((tmp_path / 's' / 'val2017').iterdir())[0]
    with Image.open(victim) as image:
        size = image.size
    victim.unlink()
    with Image.open(first) as image:
        image.convert('RGB').resize(size).save(victim, quality=70)
    report = check_folder(imported(tmp_path / 's', tmp_path / 'out2').folder)
    assert report.leaks == [(str(first), str(victim), 'near')]


def test_tiny_boxes_rare_classes_and_exif_are_noted(tmp_path: Path) -> None:
    boxes = [('cat', [place, 5, place + 9, 30]) for place in range(40)]
    folder = coco(
        tmp_path / 's',
        {
            'train/a.jpg': [*boxes, ('owl', [1, 1, 2.5, 20])],
            'train/b.jpg': [('dog', [1, 1, 20, 30])] * 1,
            'val/c.jpg': [('cat', [5, 5, 20, 20])],
        },
    )
    (folder.images / 'images' / 'val' / 'c.jpg').write_bytes(planted.turned(planted.scene(7), 3))
    assert check_folder(folder).notes == [
        'train: 1 boxes have a side under 2 pixels: a.jpg (owl)',
        'train: 2 of 3 classes have under 10 objects: dog (1), owl (1)',
        'train: cat has 40 times as many objects as dog',
        '1 of 3 pictures (33%) are turned by EXIF',
    ]


def test_what_changed_since_the_import_is_found(tmp_path: Path) -> None:
    folder = few(tmp_path)
    images = folder.images / 'images'
    (images / 'train' / 'train0.jpg').unlink()
    planted.scene(3, 20, 20).save(images / 'val' / 'val0.jpg')
    content = json.loads(folder.file_of('test').read_text())
    content['annotations'][0]['bbox'] = [1, 1, -5, 5]
    folder.file_of('test').write_text(json.dumps(content))
    assert check_folder(folder).problems == [
        'test: annotation 1 of images/test/test0.jpg: its box is empty: -5 x 5 pixels',
        f'train: {images}/train/train0.jpg: the file is missing',
        f'val: {images}/val/val0.jpg: it is 20 x 20 pixels, but its label says 64 x 48',
    ]


def test_label_maps_are_held_against_the_classes(tmp_path: Path) -> None:
    write_pictures(tmp_path / 's' / 'images', ['a.png', 'b.png', 'c.png'])
    (tmp_path / 's' / 'masks').mkdir()
    for name in 'abc':
        Image.new('L', (64, 48), 1).save(tmp_path / 's' / 'masks' / f'{name}.png')
    folder = imported(tmp_path / 's', tmp_path / 'out', classes='sky,cat', split='1').folder
    maps = folder.path / 'labels' / 'images'
    Image.new('L', (64, 48), 5).save(maps / 'a.png.png')
    Image.new('L', (4, 4), 1).save(maps / 'b.png.png')
    (maps / 'c.png.png').unlink()
    first, second, third = check_folder(folder).problems
    assert 'holds the values 5; expected 0 to 1 or 255' in first
    assert 'has another size' in second and 'cannot be read' in third


def test_json_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = few(tmp_path)
    assert main(['data', 'check', str(folder.path), '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == Report(notes=found['notes'], images=9).to_dict()
    assert main(['data', 'check', str(tmp_path)]) == 1
    assert 'is no prepared folder' in capsys.readouterr().err
