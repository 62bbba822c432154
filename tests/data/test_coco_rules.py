# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The rules of COCO files by themselves: what is named, and what stays as it is; test_coco_table.py has the rest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mmlightvit.pictures import coco
from mmlightvit.pictures.masks import encode

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


def good() -> dict[str, Any]:
    return {
        'images': [{'id': key, 'file_name': f'{key}.jpg', 'height': 48, 'width': 64} for key in (5, 6)],
        'annotations': [
            {'id': place + 1, 'image_id': 5 + place % 2, 'category_id': 1 + place % 2, 'bbox': [10, 10, 20, 20],
             'area': 400, 'iscrowd': 0, 'segmentation': [SQUARE]}
            for place in range(4)
        ],
        'categories': [{'id': 1, 'name': 'person'}, {'id': 2, 'name': 'other'}],
    }  # fmt: skip


def each(key: str, value: Any, kind: str = 'annotations') -> Callable[[dict], None]:
    """Sets a key of every item, or removes it."""

    def change(content: dict) -> None:
        for item in content[kind]:
            if value is KeyError:
                del item[key]
            else:
                item[key] = value(item[key]) if callable(value) else value

    return change


def zero_and_gap(content: dict) -> None:
    new = {1: 0, 2: 90}
    for item in content['categories']:
        item['id'] = new[item['id']]
    for item in content['annotations']:
        item['category_id'] = new[item['category_id']]


def huge(content: dict) -> None:
    for item in content['images']:
        item['id'] += 2**53
    for item in content['annotations']:
        item['image_id'] += 2**53


UNCHANGED: dict[str, Callable[[dict], Any]] = {
    'good': lambda content: None,
    'gaps and 0 in category ids': zero_and_gap,
    'huge ids': huge,
    'crowd polygons': each('iscrowd', 1),
    'no object': lambda content: content['annotations'].clear(),
    'a picture without objects': lambda content: content['annotations'].pop(1) and content['annotations'].pop(2),
    'uncompressed run lengths': each('segmentation', {'size': [48, 64], 'counts': [480, 960, 48 * 64 - 1440]}),
    'compressed run lengths': each(
        'segmentation', {'size': [48, 64], 'counts': encode(np.ones((20, 10), bool), (5, 7), (48, 64))}
    ),
}
NAMED: dict[str, tuple[Callable[[dict], Any], str]] = {
    'a box of texts': (each('bbox', ['1', '2', '3', '4']), 'not [x, y, width, height]'),
    'empty mask': (each('segmentation', []), 'it has no mask'),
    'no mask': (each('segmentation', KeyError), 'it has no mask'),
    'texts in a mask': (each('segmentation', [['a'] * 6]), 'not a finite number'),
    'a mask of text': (each('segmentation', 'mask.png'), 'neither polygons nor run lengths'),
    'run lengths of another size': (each('segmentation', {'size': [64, 48], 'counts': [1, 48 * 64 - 1]}), 'expected'),
    'run lengths too short': (each('segmentation', {'size': [48, 64], 'counts': [1, 2]}), 'do not fill'),
    'broken run lengths': (each('segmentation', {'size': [48, 64], 'counts': 'P?0'}), 'do not fill'),
    'corners for sizes': (each('bbox', [40, 30, 60, 40]), 'outside of its image of 64 x 48'),
    'shares for pixels': (each('bbox', [0.1, 0.1, 0.2, 0.2]), 'narrower than a pixel'),
}


def applied(change: Callable[[dict], Any], **options: Any) -> tuple[dict, coco.Findings]:
    content = good()
    change(content)
    return content, coco.apply(content, lambda item: (48, 64), with_mask=True, **options)


@pytest.mark.parametrize('name', UNCHANGED)
def test_what_is_fine_stays_as_it_is(name: str) -> None:
    before = good()
    UNCHANGED[name](before)
    content, findings = applied(UNCHANGED[name])
    assert content == before
    assert findings.faults == [] and findings.notes() == []


@pytest.mark.parametrize('name', NAMED)
def test_what_has_no_meaning_is_named_once_an_object(name: str) -> None:
    change, words = NAMED[name]
    _, findings = applied(change)
    assert [fault.place for fault in findings.faults] == [0, 1, 2, 3]
    assert all(words in str(fault) and '.jpg: ' in str(fault) for fault in findings.faults)
    assert str(findings.faults[2]).startswith('annotation 3 of 5.jpg: ')


def test_masks_are_no_matter_where_boxes_are_asked_for() -> None:
    content = good()
    each('segmentation', KeyError)(content)
    findings = coco.apply(content)
    assert findings.faults == [] and findings.without_mask == 4


def test_faults_of_images_and_categories() -> None:
    content = good()
    content['images'] += [
        {'id': 5, 'file_name': '7.jpg'},
        {'file_name': '8.jpg'},
        {'id': 9},
        {'id': 10, 'file_name': '6.jpg'},
    ]
    content['categories'].append({'id': 3, 'supercategory': 'x'})
    content['annotations'].append({'id': 9, 'image_id': 77, 'category_id': 1, 'bbox': [1, 1, 5, 5]})
    assert [str(fault) for fault in coco.apply(content).faults] == [
        'category 3: it has no name',
        'entry 2 of images: the id 5 stands twice, for 5.jpg and 7.jpg',
        'entry 3 of images: it has no id: None',
        'image 9: it has no file_name',
        'image 10: the images 6 and 10 are the same file 6.jpg',
        'annotation 9: there is no image 77',
    ]


def test_parsing() -> None:
    assert coco.parse(json.dumps(good()).encode('utf-8-sig')) == good()
    for text, words in (
        (b'{', 'it is not JSON'),
        (b'\xff\xfe{', 'not UTF-8'),
        (b'[]', 'no list of objects images, annotations, categories'),
        (b'{"images": [], "annotations": [3], "categories": []}', 'no list of objects annotations'),
    ):
        with pytest.raises(ValueError, match=words):
            coco.parse(text)


def test_nothing_to_learn_is_one_line_with_the_names() -> None:
    content = good()
    assert coco.nothing_to_learn(content, 'a.json', ['person']) is None
    line = coco.nothing_to_learn(content, 'a.json', ['Person'])
    assert line == ('a.json: it has no object of the classes Person; its categories are person, other, with 4 objects')
    content['annotations'].clear()
    assert 'with 0 objects' in (coco.nothing_to_learn(content, 'a.json', ['person']) or '')


def test_a_tenth_of_coco_takes_a_tenth_of_ten_seconds() -> None:
    content = good()
    content['annotations'] = [dict(content['annotations'][0], id=place, area=None) for place in range(10_000)]
    start = time.process_time()
    findings = coco.apply(content, with_mask=True)
    assert time.process_time() - start < 1
    assert findings.objects == 10_000
