# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Sheets of labels and numbers of a prepared folder, for each task."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import planted
import pytest
from imports import imported, write_pictures
from PIL import Image

from mmlightvit.cli import main
from mmlightvit.data.folder import DatasetFolder
from mmlightvit.pictures.colours import colour_of


def folder_of(tmp_path: Path, task: str) -> DatasetFolder:
    source = tmp_path / task
    if task == 'classification':
        planted.write_folders(source, images=2)
        return imported(source, tmp_path / 'out').folder
    if task == 'segmentation':
        planted.write_labelled(source, images=2)
        return imported(source, tmp_path / 'out', classes='background,disk,bar').folder
    planted.write_coco(source, images=2)
    planted.write_coco(source, images=2, split='val')
    return imported(source, tmp_path / 'out', task=task).folder


TASKS = ('classification', 'detection', 'instance', 'segmentation')


@pytest.mark.parametrize('task', TASKS)
def test_a_sheet_shows_the_labels_in_their_colours(
    tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, task)
    assert main(['data', 'show', str(folder.path), '--split', 'val', '--count', '1']) == 0
    assert capsys.readouterr().out == f'{folder.path / "show.png"}\n'
    pixels = np.asarray(Image.open(folder.path / 'show.png')).reshape(-1, 3).astype(int)
    drawn = [
        name
        for place, name in enumerate(folder.classes)
        if (abs(pixels - colour_of(place)).max(axis=1) < 10).sum() > 50
    ]
    if task == 'classification':
        assert len(drawn) == 1
    else:
        assert set(drawn) >= {'disk', 'bar'}


def test_a_sheet_of_some_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path, 'classification')
    out = tmp_path / 'new' / 'sheet.png'
    assert main(['data', 'show', str(folder.path), '--classes', 'disk', '--out', str(out)]) == 0
    assert np.asarray(Image.open(out)).shape[1] < 700  # two of the four
    assert main(['data', 'show', str(folder.path), '--classes', 'cone']) == 1
    assert 'there is no class cone; there are bar, disk' in capsys.readouterr().err


def test_numbers_of_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path / 's', ['a.jpg', 'b.jpg', 'c.jpg'], size=(200, 300))
    rows = ['path,class,x1,y1,x2,y2,split', 'a.jpg,cat,0,0,10,10,train', 'a.jpg,cat,0,0,50,50,train']
    rows += ['a.jpg,dog,0,0,100,150,train', 'b.jpg,dog,0,0,96,96,train', 'c.jpg,cat,0,0,32,32,val']
    (tmp_path / 's' / 'x.csv').write_text('\n'.join(rows))
    folder = imported(tmp_path / 's', tmp_path / 'out').folder
    assert main(['data', 'stats', str(folder.path), '--json']) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts['splits']['train'] == {
        'pictures': 2,
        'picture_sizes': {'300 x 200': 2},
        'pictures_per_class': {'cat': 1, 'dog': 2},
        'objects': 4,
        'crowds': 0,
        'objects_per_class': {'cat': 2, 'dog': 2},
        'object_sizes': {'small': 1, 'medium': 1, 'large': 2},
        'objects_per_picture': {'1': 1, '3': 1},
    }
    assert counts['splits']['val']['object_sizes'] == {'small': 0, 'medium': 1, 'large': 0}
    assert main(['data', 'stats', str(folder.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ['cat', '2', '1'] and lines[-1] == str(folder.path / 'stats.png')
    assert np.asarray(Image.open(folder.path / 'stats.png')).shape[0] > 500


def test_numbers_of_label_maps_and_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path, 'segmentation')
    assert main(['data', 'stats', str(folder.path), '--json']) == 0
    counts = json.loads(capsys.readouterr().out)['splits']['train']
    values = [np.asarray(Image.open(picture.label_map)) for picture in folder.pictures('train')]
    for place, name in enumerate(folder.classes):
        assert counts['pixel_share'][name] == pytest.approx(np.mean([value == place for value in values]))
        assert counts['pictures_per_class'][name] == 2
    assert main(['data', 'stats', str(folder.path), '--out', str(tmp_path / 'x.png')]) == 0
    assert '%' in capsys.readouterr().out and (tmp_path / 'x.png').is_file()
