# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Splits and folds: shares, classes, groups and near-duplicates; nothing is moved, everything is in one part."""

from __future__ import annotations

import json
from pathlib import Path

import planted
import pytest
from imports import Done, imported, write_pictures
from PIL import Image

from mmlightvit.cli import main
from mmlightvit.data.folder import DatasetFolder
from mmlightvit.errors import UserError


def class_folders(root: Path, counts: dict[str, int]) -> Path:
    start = 0
    for name, count in counts.items():
        write_pictures(root / name, [f'cam{number % 5}_{number}.png' for number in range(count)], start)
        start += count
    return root


def labels(folder: DatasetFolder, split: str) -> list[str]:
    return sorted(str(picture.label) for picture in folder.pictures(split))


def test_every_class_has_its_share(tmp_path: Path) -> None:
    source = class_folders(tmp_path / 's', {'cat': 40, 'dog': 20, 'owl': 10})
    done = imported(source, tmp_path / 'out', split='0.7,0.2,0.1')
    found = {split: labels(done.folder, split) for split in ('train', 'val', 'test')}
    assert [len(found[split]) for split in ('train', 'val', 'test')] == [47, 16, 7]
    assert {name: found['test'].count(name) for name in ('cat', 'dog', 'owl')} == {'cat': 4, 'dog': 2, 'owl': 1}
    assert [found['val'].count(name) for name in ('cat', 'dog', 'owl')] in ([9, 5, 2], [9, 4, 3], [9, 4, 2], [10, 4, 2])
    other = imported(source, tmp_path / 'other', split='0.7,0.2,0.1', seed=1)
    assert other.names('val') != done.names('val')


def test_the_rarest_class_of_a_picture_is_its_stratum(tmp_path: Path) -> None:
    """20 pictures with cats, 5 of which have the only owls: one owl of five is in val."""
    write_pictures(tmp_path / 's' / 'images', [f'{number}.png' for number in range(20)])
    (tmp_path / 's' / 'labels').mkdir()
    for number in range(20):
        rows = '0 0.3 0.3 0.2 0.2\n' * 1 + '1 0.7 0.7 0.2 0.2\n' * (number % 4 == 0)
        (tmp_path / 's' / 'labels' / f'{number}.txt').write_text(rows)
    (tmp_path / 's' / 'data.yaml').write_text('names: [cat, owl]\n')
    for seed in range(5):
        done = imported(tmp_path / 's', tmp_path / f'out{seed}', seed=seed)
        owls = [item for item in done.content('val')['annotations'] if item['category_id'] == 2]
        assert len(done.names('val')) == 4 and len(owls) == 1


def test_groups_stay_together(tmp_path: Path) -> None:
    source = class_folders(tmp_path / 's', {'cat': 20, 'dog': 20})
    done = imported(source, tmp_path / 'out', group_by=r'/(cam\d)_')
    cameras = {split: {name.split('_')[0] for name in done.names(split)} for split in ('train', 'val')}
    assert len(cameras['val']) == 1 and not cameras['train'] & cameras['val']
    assert done.folder.info['groups'] == {'by': r'/(cam\d)_', 'count': 5}
    for pattern, words in (('(', 'no regular expression'), ('cam', 'has no group'), ('(x9)', 'matches no picture')):
        with pytest.raises(UserError, match=words):
            imported(source, tmp_path / 'no', group_by=pattern)


def near_duplicates(root: Path) -> Path:
    """12 pictures, each in three forms: smaller, brighter, and encoded roughly."""
    for number in range(12):
        picture = planted.scene(number, 120, 160)
        folder = root / ('cat' if number % 2 else 'dog')
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f'{number}_a.png')
        picture.resize((80, 60)).save(folder / f'{number}_b.jpg', quality=60)
        picture.point(lambda value: min(255, int(value * 0.8) + 30)).save(folder / f'{number}_c.jpg', quality=40)
    return root


def test_near_duplicates_stay_together(tmp_path: Path) -> None:
    done = imported(near_duplicates(tmp_path / 's'), tmp_path / 'out', split='0.5,0.5')
    assert done.folder.info['groups']['count'] == 12
    scenes = {split: {name.split('_')[0] for name in done.names(split)} for split in ('train', 'val')}
    assert len(done.names('val')) == 18 and not scenes['train'] & scenes['val']


def test_pictures_of_one_colour_are_no_duplicates_but_the_same_file_is(tmp_path: Path) -> None:
    (tmp_path / 's' / 'cat').mkdir(parents=True)
    for number in range(8):
        Image.new('RGB', (64, 48), (30 * number, 10, 10)).save(tmp_path / 's' / 'cat' / f'{number}.png')
    done = imported(tmp_path / 's', tmp_path / 'out')
    assert done.folder.info['groups']['count'] == 8
    for number in range(8):
        Image.new('RGB', (64, 48), (7, 7, 7)).save(tmp_path / 's' / 'cat' / f'{number}.png')
    done = imported(tmp_path / 's', tmp_path / 'out2')
    assert list(done.folder.splits) == ['train'] and 'one group, so there is no val' in ' '.join(done.notes)


def prepared(tmp_path: Path) -> Done:
    return imported(class_folders(tmp_path / 's', {'cat': 20, 'dog': 10}), tmp_path / 'out', split='0.8,0.1,0.1')


def test_split_divides_a_prepared_folder_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = prepared(tmp_path)
    before, test = done.all_names(), done.names('test')
    assert main(['data', 'split', str(done.folder.path), '--val', '0.5', '--seed', '2']) == 0
    folder = DatasetFolder.load(done.folder.path)
    assert capsys.readouterr().out == 'train 14, val 13, test 3\n' or len(folder.pictures('val')) in (13, 14)
    again = Done(folder, [], [])
    assert again.all_names() == before and again.names('test') == test
    assert folder.info['seed'] == 2 and 'annotations' not in folder.info['files']
    assert main(['data', 'split', str(folder.path), '--val', '0', '--test', '0.5']) == 0
    folder = DatasetFolder.load(folder.path)
    assert set(folder.splits) == {'train', 'test'} and not (folder.path / 'val.txt').exists()
    assert set(folder.info['files']) == {'config.py', 'lost.csv', 'test.txt', 'train.txt'}
    assert main(['data', 'split', str(folder.path), '--val', '0.6', '--test', '0.5']) == 1


def test_folds_hold_every_picture_out_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = prepared(tmp_path)
    test, rest = done.names('test'), sorted(done.names('train') + done.names('val'))
    assert main(['data', 'split', str(done.folder.path), '--folds', '3']) == 0
    folder = DatasetFolder.load(done.folder.path)
    held_out = []
    for number in (1, 2, 3):
        fold = Done(folder.fold(number), [], [])
        assert sorted(fold.names('train') + fold.names('val')) == rest and fold.names('test') == test
        assert sorted(set(labels(fold.folder, 'val'))) == ['cat', 'dog']
        held_out += fold.names('val')
    assert sorted(held_out) == rest
    assert Done(folder, [], []).names('train') == done.names('train')  # the splits stay
    for number in (0, 4):
        with pytest.raises(UserError, match=f'no fold {number}; it has 3'):
            folder.fold(number)
    assert main(['data', 'split', str(folder.path), '--folds', '100']) == 1
    assert 'cannot be divided into 100' in capsys.readouterr().err


def test_splits_of_coco_files_and_of_label_maps(tmp_path: Path) -> None:
    write_pictures(tmp_path / 's' / 'images', [f'{number}.png' for number in range(10)])
    (tmp_path / 's' / 'masks').mkdir()
    for number in range(10):
        value = 2 if number in (3, 7) else 1
        Image.new('L', (64, 48), value).save(tmp_path / 's' / 'masks' / f'{number}.png')
    done = imported(tmp_path / 's', tmp_path / 'out', classes='sky,cat,owl', split='0.5,0.5')
    held = {'3.png', '7.png'} & set(done.names('val'))
    assert len(held) == 1  # the rarest class is in both
    names = done.all_names()
    assert main(['data', 'split', str(tmp_path / 'out'), '--val', '0.2']) == 0
    folder = DatasetFolder.load(tmp_path / 'out')
    assert Done(folder, [], []).all_names() == names and len(folder.pictures('val')) == 2
    assert all(picture.label_map and picture.label_map.is_file() for picture in folder.pictures('val'))
    assert any(name.startswith('labels/') for name in json.loads((tmp_path / 'out/dataset.json').read_text())['files'])
