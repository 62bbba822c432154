# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Labels from prepared folders and files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scenes
from PIL import Image

from mmlightvit.errors import UserError
from mmlightvit.evaluation.truth import Truth, of_coco, of_data


def prepared(folder, task: str, classes, file: str, content: str):
    """A prepared folder with one split."""
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(content)
    info = dict(
        format='mmlightvit-dataset/1', task=task, classes=classes, images='images', splits=dict(val=dict(file=file))
    )
    (folder / 'dataset.json').write_text(json.dumps(info))
    return str(folder)


def test_a_prepared_folder_of_boxes(tmp_path):
    labels = scenes.truth()
    names = [category['name'] for category in labels['categories']]
    truth = of_data(prepared(tmp_path / 'set', 'instance', names, 'annotations/val.json', json.dumps(labels)), 'val')
    assert (truth.task, truth.classes, truth.name) == ('instance', tuple(names), 'set (val)')
    assert truth.root == tmp_path / 'set' / 'images'
    assert [a['category_id'] for a in truth.coco['annotations']] == [
        (a['category_id'] - 3) // 10 + 1 for a in labels['annotations']
    ]
    with pytest.raises(UserError, match="no split 'test'"):
        of_data(str(tmp_path / 'set'), 'test')


def test_a_prepared_folder_of_classes(tmp_path):
    truth = of_data(prepared(tmp_path, 'classification', ['a', 'b'], 'val.txt', 'x y/1.png 1\n2.png 0\n'), 'val')
    assert truth.pictures == ('x y/1.png', '2.png')
    assert truth.labels.tolist() == [1, 0]


def test_a_prepared_folder_of_label_maps(tmp_path):
    folder = prepared(tmp_path, 'segmentation', ['a', 'b'], 'val.txt', 'sub/1.jpg\n')
    (tmp_path / 'labels/sub').mkdir(parents=True)
    Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(tmp_path / 'labels/sub/1.jpg.png')
    truth = of_data(folder, 'val')
    assert truth.label_map(0).tolist() == [[0, 1, 255]]


def test_values_of_label_maps_may_stand_for_other_classes(tmp_path):
    Image.fromarray(np.array([[0, 1, 2, 255]], np.uint8)).save(tmp_path / 'm.png')
    truth = Truth('set', 'segmentation', ('a', 'b'), ('m.jpg',), maps=(tmp_path / 'm.png',), remap={0: 255, 1: 0, 2: 1})
    assert truth.label_map(0).tolist() == [[255, 0, 1, 255]]


def test_a_path_means_a_picture(tmp_path):
    labels = dict(categories=[dict(id=1, name='a')], annotations=[], images=[])
    for number, name in enumerate(('x/1.png', 'y/1.png', 'y/2.png')):
        labels['images'].append(dict(id=number, file_name=name, height=5, width=5))
    truth = of_coco(labels, tmp_path)
    assert truth.place_of('y/1.png') == 1
    assert truth.place_of(str(tmp_path / 'x/1.png')) == 0
    assert truth.place_of('/elsewhere/2.png') == 2
    assert truth.place_of('/elsewhere/1.png') is None  # which of the two?


def test_what_is_no_data_is_said(tmp_path):
    with pytest.raises(UserError, match=r'dataset\.json'):
        of_data(str(tmp_path), 'val')
    (tmp_path / 'a.json').write_text('[')
    with pytest.raises(UserError, match='it is not JSON'):
        of_data(str(tmp_path / 'a.json'), 'val')
    (tmp_path / 'a.json').write_text('{"images": []}')
    with pytest.raises(UserError, match='it is not a COCO file'):
        of_data(str(tmp_path / 'a.json'), 'val')
