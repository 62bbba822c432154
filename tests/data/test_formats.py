# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Each format as other tools write it, with the dents that it has in the wild; every rule has its number."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from imports import HEIGHT, WIDTH, corners, imported, write_pictures
from PIL import Image

from mmlightvit.data.normalise import draw_polygons, mask_pixels
from mmlightvit.errors import UserError

pytest.importorskip('defusedxml')

# YOLO -----------------------------------------------------------------------------------------------------------------


def yolo(
    root: Path, labels: dict[str, str], yaml: str = 'names: [cat, dog]\ntrain: images/train\nval: images/val\n'
) -> Path:
    """``images/{train,val}`` with two pictures each and the label files of some."""
    write_pictures(root / 'images' / 'train', ['a.jpg', 'b.png'])
    write_pictures(root / 'images' / 'val', ['c.jpg'], 10)
    for name, text in labels.items():
        path = root / 'labels' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8', newline='')
    (root / 'data.yaml').write_text(yaml, encoding='utf-8')
    return root


def test_yolo_boxes_polygons_scores_and_negatives(tmp_path: Path) -> None:
    box = '0 0.5 0.5 0.25 0.5\r\n'
    scored = '1 0.25 0.25 0.25 0.25 0.9\r\n\r\n'
    source = yolo(tmp_path / 's', {'train/a.txt': '\ufeff' + box + scored, 'val/c.txt': box})
    done = imported(source, tmp_path / 'out')
    assert (done.folder.task, done.classes) == ('detection', ('cat', 'dog'))
    assert [item['bbox'] for item in done.objects('a.jpg')] == [[24.0, 12.0, 16.0, 24.0], [8.0, 6.0, 16.0, 12.0]]
    assert [item['category_id'] for item in done.objects('a.jpg')] == [1, 2]
    assert {item['area'] for item in done.objects('a.jpg')} == {384.0, 192.0}
    assert done.objects('b.png') == [] and 'b.png' in done.names('train')  # no label file: a negative, as YOLO has it
    assert done.names('val') == ['c.jpg']
    assert done.lost == []
    left = imported(source, tmp_path / 'out2', unlabelled='leave-out')
    assert left.reasons('b.png') == ['it has no label file']
    assert left.names('train') == ['a.jpg']


def test_yolo_polygons_keep_their_vertices_and_boxes_have_no_mask(tmp_path: Path) -> None:
    polygon = '0 0.1 0.1 0.9 0.1 0.9 0.9 0.5 0.5 0.1 0.9\n'
    source = yolo(tmp_path / 's', {'train/a.txt': polygon + '1 0.5 0.5 0.5 0.5\n', 'val/c.txt': polygon})
    done = imported(source, tmp_path / 'out')
    assert done.folder.task == 'instance'
    (item,) = done.objects('a.jpg')
    expected = np.array([[0.1, 0.1, 0.9, 0.1, 0.9, 0.9, 0.5, 0.5, 0.1, 0.9]]) * ([WIDTH, HEIGHT] * 5)
    np.testing.assert_allclose(item['segmentation'], expected, atol=1e-4)
    # A square of 0.8 without the triangle below its middle.
    assert item['area'] == pytest.approx(0.8 * WIDTH * 0.8 * HEIGHT - 0.5 * 0.8 * WIDTH * 0.4 * HEIGHT, abs=1e-3)
    assert 'no mask' in done.reasons('dog')[0]
    boxes = imported(source, tmp_path / 'boxes', task='detection')
    assert len(boxes.objects('a.jpg')) == 2 and boxes.lost == []


@pytest.mark.parametrize(
    ('row', 'words'),
    [
        ('0 0.5 0.5 0.5', 'it has 4 numbers'),
        ('0 0.1 0.1 0.2 0.2 0.3 0.3 0.4', 'it has 8 numbers'),
        ('0 0.5 1.2 0.1 0.1', 'it leaves the picture'),
        ('0 0.5 nan 0.1 0.1', 'not a finite number'),
        ('cat 0.5 0.5 0.1 0.1', 'could not convert'),
        ('-1 0.5 0.5 0.1 0.1', 'its class is -1'),
        ('0.5 0.5 0.5 0.1 0.1', 'its class is 0.5'),
        ('0 0.5 0.5 0.001 0.1', 'under --min-size'),
        ('0 0.1 0.1 0.2 0.2 0.3 0.3', 'its polygon has no area'),
        ('0 0.5 0.5 0 0.1', 'outside'),
    ],
)
def test_yolo_rows_that_are_left_out_are_named(tmp_path: Path, row: str, words: str) -> None:
    source = yolo(tmp_path / 's', {'train/a.txt': f'0 0.5 0.5 0.5 0.5\n{row}\n', 'val/c.txt': ''})
    done = imported(source, tmp_path / 'out', task='detection')
    (loss,) = done.lost
    assert (loss.file, loss.line) == ('labels/train/a.txt', 2)
    assert words in loss.reason
    assert len(done.objects('a.jpg')) == 1
    text = (done.folder.path / 'lost.csv').read_text().splitlines()
    assert text[0] == 'file,line,what,reason' and text[1].startswith('labels/train/a.txt,2,')


def test_yolo_a_little_outside_is_clipped_and_repetitions_go(tmp_path: Path) -> None:
    rows = '0 0.5 0.5 1.01 1\n0 -0.005 0.5 0.5 1\n1 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n'
    done = imported(yolo(tmp_path / 's', {'train/a.txt': rows}), tmp_path / 'out')
    assert [corners(item) for item in done.objects('a.jpg')] == [[0, 0, 64, 48], [0, 0, 16, 48], [16, 12, 48, 36]]
    assert [loss.line for loss in done.lost] == [4] and 'stands twice' in done.lost[0].reason


def test_yolo_names_are_texts_without_gaps(tmp_path: Path) -> None:
    yaml = 'train: images/train\nval: images/val\nnames:\n  1: no\n  0: 007\n'
    assert imported(yolo(tmp_path / 's', {'train/a.txt': '1 0.5 0.5 0.5 0.5'}, yaml), tmp_path / 'out').classes == (
        '007',
        'no',
    )
    with pytest.raises(UserError, match=r'no name for class 1$'):
        imported(yolo(tmp_path / 'gap', {}, yaml.replace('  1:', '  2:')), tmp_path / 'out2')
    source = yolo(tmp_path / 'more', {'train/a.txt': '0 0.5 0.5 0.5 0.5\n2 0.5 0.5 0.5 0.5'})
    with pytest.raises(UserError, match=r'a.txt, line 2: class 2, but there are names for 0 to 1'):
        imported(source, tmp_path / 'out3')


def test_yolo_of_roboflow(tmp_path: Path) -> None:
    """Folders per split, and paths that begin above the folder that they are in."""
    for split, start in (('train', 0), ('valid', 10), ('test', 20)):
        write_pictures(tmp_path / 's' / split / 'images', [f'{split}_jpg.rf.0a1b.jpg'], start)
        (tmp_path / 's' / split / 'labels').mkdir()
        (tmp_path / 's' / split / 'labels' / f'{split}_jpg.rf.0a1b.txt').write_text('0 0.5 0.5 0.5 0.5')
    yaml = 'train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 1\nnames: ["cat"]\n'
    (tmp_path / 's' / 'data.yaml').write_text(yaml + 'download: touch /tmp/never\nroboflow:\n  workspace: x\n')
    done = imported(tmp_path / 's', tmp_path / 'out')
    assert {split: done.names(split) for split in done.folder.splits} == {
        split: [f'{name}_jpg.rf.0a1b.jpg'] for split, name in (('train', 'train'), ('val', 'valid'), ('test', 'test'))
    }
    assert all(len(done.objects(f'{name}_jpg.rf.0a1b.jpg')) == 1 for name in ('train', 'valid', 'test'))


def test_yolo_lists_of_windows_and_a_list_of_folders(tmp_path: Path) -> None:
    lines = 'C:\\data\\s\\images\\train\\a.jpg\r\n.\\images\\train\\b.png\r\nC:\\data\\s\\images\\train\\gone.jpg\r\n'
    yaml = 'path: C:\\data\\s\ntrain: train.txt\nval:\n  - images/val\n  - images/more\nnames: {0: cat}\n'
    source = yolo(tmp_path / 's', {'train/a.txt': '0 0.5 0.5 0.5 0.5', 'train/stray.txt': '0 0.5 0.5 0.5 0.5'}, yaml)
    write_pictures(source / 'images' / 'more', ['d.jpg'], 30)
    (source / 'train.txt').write_text(lines)
    done = imported(source, tmp_path / 'out')
    assert done.names('train') == ['a.jpg', 'b.png'] and done.names('val') == ['c.jpg', 'd.jpg']
    assert len(done.objects('a.jpg')) == 1
    assert [(loss.file, loss.line, loss.reason) for loss in done.lost] == [
        ('train.txt', 3, 'the picture is missing'),
        ('labels/train/stray.txt', None, 'there is no picture of this name'),
    ]
    (source / 'data.yaml').write_text('train: elsewhere\nval: images/val\nnames: [cat]\n')
    with pytest.raises(UserError, match=r'train names elsewhere, which is not there'):
        imported(source, tmp_path / 'out2')


def test_yolo_of_label_studio_and_of_labelimg_without_yaml(tmp_path: Path) -> None:
    source = yolo(tmp_path / 's', {'train/a.txt': '1 0.5 0.5 0.5 0.5'})
    (source / 'data.yaml').unlink()
    (source / 'classes.txt').write_text('cat\ndog\n')
    (source / 'notes.json').write_text('{"categories": [], "info": {}}')
    done = imported(source, tmp_path / 'out')
    assert [done.label(item) for item in done.objects('a.jpg')] == ['dog']
    assert done.split_of('c.jpg') == 'val'
    write_pictures(tmp_path / 'flat', ['x.jpg', 'y.jpg'])
    (tmp_path / 'flat' / 'x.txt').write_text('0 0.5 0.5 0.5 0.5')
    (tmp_path / 'flat' / 'classes.txt').write_text('cat\n')
    flat = imported(tmp_path / 'flat', tmp_path / 'out2', format='yolo')
    assert len(flat.objects('x.jpg')) == 1


def test_yolo_labels_mirror_the_last_folder_of_images(tmp_path: Path) -> None:
    write_pictures(tmp_path / 'images' / 's' / 'images' / 'deep', ['a.jpg'])
    label = tmp_path / 'images' / 's' / 'labels' / 'deep' / 'a.txt'
    label.parent.mkdir(parents=True)
    label.write_text('0 0.5 0.5 0.5 0.5')
    (tmp_path / 'images' / 's' / 'data.yaml').write_text('names: [cat]\ntrain: images\n')
    assert len(imported(tmp_path / 'images' / 's', tmp_path / 'out', split='1').objects('a.jpg')) == 1


def test_yolo_labels_that_no_picture_takes_are_named(tmp_path: Path) -> None:
    """Label Studio names label files by an upload's prefix; any others would make silent negatives."""
    source = yolo(tmp_path / 's', {'train/0a1b2c3d-a.txt': '1 0.5 0.5 0.5 0.5', 'val/other.txt': '0 0.5 0.5 0.5 0.5'})
    done = imported(source, tmp_path / 'out')
    assert len(done.objects('a.jpg')) == 1
    assert done.reasons('val/other.txt') == ['there is no picture of this name']


def test_two_pictures_of_one_stem_are_not_both_labelled(tmp_path: Path) -> None:
    source = yolo(tmp_path / 's', {'train/a.txt': '0 0.5 0.5 0.5 0.5'})
    write_pictures(source / 'images' / 'train', ['a.png'], 40)
    done = imported(source, tmp_path / 'out')
    assert done.names('train') == ['a.jpg', 'b.png']
    assert done.reasons('a.png') == ['a.jpg has the same name and takes its label']


# COCO -----------------------------------------------------------------------------------------------------------------


def coco(root: Path, **changes: Any) -> dict[str, Any]:
    """Pictures a.jpg and b.jpg in ``root/images``, and a file about them."""
    write_pictures(root / 'images', ['a.jpg', 'b.jpg'])
    square = [10, 10, 30, 10, 30, 30, 10, 30]
    content = {
        'images': [
            {'id': 7, 'file_name': 'a.jpg', 'height': HEIGHT, 'width': WIDTH},
            {'id': 9, 'file_name': 'b.jpg', 'height': HEIGHT, 'width': WIDTH},
        ],
        'annotations': [
            {'id': 1, 'image_id': 7, 'category_id': 3, 'bbox': [10, 10, 20, 20], 'area': 400, 'iscrowd': 0,
             'segmentation': [square]},
            {'id': 2, 'image_id': 9, 'category_id': 8, 'bbox': [1.5, 2.25, 20, 10], 'area': 200, 'iscrowd': 0,
             'segmentation': [[1.5, 2.25, 21.5, 2.25, 11.125, 12.25]]},
        ],
        'categories': [{'id': 8, 'name': 'dog'}, {'id': 3, 'name': 'cat'}],
    }  # fmt: skip
    return {**content, **changes}


def write_json(path: Path, content: Any, encoding: str = 'utf-8') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding=encoding)
    return path


def test_coco_order_ids_and_masks(tmp_path: Path) -> None:
    content = coco(tmp_path / 's')
    write_json(tmp_path / 's' / 'annotations.json', content, 'utf-8-sig')
    done = imported(tmp_path / 's', tmp_path / 'out', split='1')
    assert done.classes == ('dog', 'cat')  # the order of categories, not of ids
    assert [done.label(item) for item in done.objects('a.jpg')] == ['cat']
    written = done.content('train')
    assert [item['id'] for item in written['categories']] == [1, 2]
    assert [item['id'] for item in written['annotations']] == [1, 2]
    assert [item['bbox'] for item in written['annotations']] == [[10, 10, 20, 20], [1.5, 2.25, 20, 10]]
    assert written['annotations'][1]['segmentation'] == [[1.5, 2.25, 21.5, 2.25, 11.125, 12.25]]


def test_coco_boxes_follow_from_masks(tmp_path: Path) -> None:
    content = coco(tmp_path / 's')
    for key in ('area', 'bbox'):
        del content['annotations'][0][key]
    write_json(tmp_path / 's' / 'x.json', content)
    done = imported(tmp_path / 's', tmp_path / 'out', split='1')
    (item,) = done.objects('a.jpg')
    assert (item['bbox'], item['area'], done.lost) == ([10, 10, 20, 20], 400, [])


def test_coco_of_roboflow(tmp_path: Path) -> None:
    """A file per split beside its pictures, and a category 0 that only heads the others."""
    for split, start in (('train', 0), ('valid', 10)):
        write_pictures(tmp_path / 's' / split, ['a.jpg', 'b.jpg'], start)
        content = coco(tmp_path / 'unused')
        content['categories'] = [
            {'id': 0, 'name': 'pets', 'supercategory': 'none'},
            {'id': 3, 'name': 'cat', 'supercategory': 'pets'},
            {'id': 8, 'name': 'dog', 'supercategory': 'pets'},
        ]
        write_json(tmp_path / 's' / split / '_annotations.coco.json', content)
    (tmp_path / 's' / 'README.roboflow.txt').write_text('x')
    done = imported(tmp_path / 's', tmp_path / 'out')
    assert done.classes == ('cat', 'dog')
    assert {split: len(done.names(split)) for split in done.folder.splits} == {'train': 2, 'val': 2}
    assert [image['file_name'] for image in done.content('val')['images']] == ['valid/a.jpg', 'valid/b.jpg']


def test_coco_of_label_studio_and_of_windows(tmp_path: Path) -> None:
    write_pictures(tmp_path / 'pictures' / 'deep', ['a.jpg'])
    write_pictures(tmp_path / 'pictures', ['b.jpg'], 5)
    content = coco(tmp_path / 'unused')
    content['images'][0]['file_name'] = '../../label-studio/data/media/upload/1/1a2b3c4d-a.jpg'
    content['images'][1]['file_name'] = 'images\\b.jpg'
    file = write_json(tmp_path / 'labels' / 'result.json', content)
    done = imported(file, tmp_path / 'out', images=tmp_path / 'pictures', split='1')
    assert [image['file_name'] for image in done.content('train')['images']] == ['deep/a.jpg', 'b.jpg']
    assert done.folder.images == tmp_path / 'pictures'


def test_a_name_that_two_pictures_have_is_not_guessed(tmp_path: Path) -> None:
    content = coco(tmp_path / 's')
    (tmp_path / 's' / 'other').mkdir()
    shutil.copy(tmp_path / 's' / 'images' / 'b.jpg', tmp_path / 's' / 'other' / 'a.jpg')
    write_json(tmp_path / 's' / 'x.json', content)
    done = imported(tmp_path / 's', tmp_path / 'out', split='1')
    assert done.all_names() == ['b.jpg'] and done.reasons('a.jpg') == ['the picture is missing']


def test_coco_crowds_and_run_lengths_are_kept(tmp_path: Path) -> None:
    content = coco(tmp_path / 's')
    runs = [10 * HEIGHT, 5 * HEIGHT, WIDTH * HEIGHT - 15 * HEIGHT]
    content['annotations'][0].update(segmentation={'size': [HEIGHT, WIDTH], 'counts': runs}, iscrowd=1)
    del content['annotations'][0]['bbox'], content['annotations'][0]['area']
    write_json(tmp_path / 's' / 'x.json', content)
    (item,) = imported(tmp_path / 's', tmp_path / 'out', split='1').objects('a.jpg')
    assert item['iscrowd'] == 1 and item['segmentation']['counts'] == runs
    assert (item['bbox'], item['area']) == ([10, 0, 5, HEIGHT], 5 * HEIGHT)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda item: item.update(segmentation={'size': [HEIGHT, WIDTH], 'counts': [5, 5]}), 'do not fill'),
        (lambda item: item.update(segmentation={'size': [WIDTH, HEIGHT], 'counts': [5, 64 * 48 - 5]}), 'expected'),
        (lambda item: item.update(segmentation={'size': [HEIGHT, WIDTH], 'counts': '!!'}), 'do not fill'),
        (lambda item: item.update(bbox=[70, 10, 5, 5], segmentation=None), 'outside of the picture'),
        (lambda item: item.update(bbox=None, segmentation=None), 'no bbox'),
    ],
)
def test_coco_objects_that_are_left_out_are_named(tmp_path: Path, change: Any, words: str) -> None:
    content = coco(tmp_path / 's')
    change(content['annotations'][0])
    write_json(tmp_path / 's' / 'x.json', content)
    done = imported(tmp_path / 's', tmp_path / 'out', split='1')
    (loss,) = done.lost
    assert words in loss.reason and loss.file == 'x.json'
    assert len(done.objects('b.jpg')) == 1


def test_coco_pictures_that_are_left_out_are_named(tmp_path: Path) -> None:
    content = coco(tmp_path / 's')
    images = content['images']
    images += [dict(images[0], id=20 + place, file_name=f'{name}.jpg') for place, name in enumerate('cde')]
    write_pictures(tmp_path / 's' / 'images', ['d.jpg'], 50)
    (tmp_path / 's' / 'images' / 'd.jpg').write_bytes((tmp_path / 's' / 'images' / 'd.jpg').read_bytes()[:-100])
    write_pictures(tmp_path / 's' / 'images', ['e.jpg'], 60, (30, 30))
    images.append(dict(images[0], id=7))
    content['annotations'].append(dict(content['annotations'][0], id=3, image_id=20))
    write_json(tmp_path / 's' / 'x.json', content)
    done = imported(tmp_path / 's', tmp_path / 'out', split='1')
    assert done.all_names() == ['a.jpg', 'b.jpg']
    assert [loss.reason for loss in done.lost] == [
        'the id 7 stands twice, for a.jpg and a.jpg',
        'the picture is missing',
        'their picture is left out',
        'it cannot be decoded: the file is broken or cut off',
        'it is 30 x 30 pixels, but its label says 64 x 48',
    ]


def test_coco_of_several_files(tmp_path: Path) -> None:
    content = coco(tmp_path / 's')
    write_json(tmp_path / 's' / 'annotations' / 'instances_train2017.json', content)
    write_json(tmp_path / 's' / 'annotations' / 'instances_val2017.json', {**content, 'annotations': []})
    done = imported(tmp_path / 's', tmp_path / 'out')
    assert len(done.names('train')) == len(done.names('val')) == 2
    write_json(tmp_path / 's' / 'annotations' / 'more_val2017.json', content)
    with pytest.raises(UserError, match=r'several files of one split.*name one'):
        imported(tmp_path / 's', tmp_path / 'out2')


# VOC ------------------------------------------------------------------------------------------------------------------


def voc_object(name: str, box: tuple, more: str = '') -> str:
    sides = ''.join(f'<{side}>{value}</{side}>' for side, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box))
    return f'<object><name>{name}</name>{more}<bndbox>{sides}</bndbox></object>'


def voc(root: Path, name: str, objects: str, size: tuple[int, int] = (HEIGHT, WIDTH), file: str | None = None) -> None:
    (root / 'Annotations').mkdir(parents=True, exist_ok=True)
    text = (
        f'<annotation><folder>x</folder><filename>{file or name + ".jpg"}</filename><size><width>{size[1]}</width>'
        f'<height>{size[0]}</height><depth>3</depth></size>{objects}</annotation>'
    )
    (root / 'Annotations' / f'{name}.xml').write_text(text)


def test_voc_corners_count_from_one_and_belong_to_the_box(tmp_path: Path) -> None:
    source = tmp_path / 's'
    write_pictures(source / 'JPEGImages', ['a.jpg', 'b.jpg', 'c.jpg'])
    difficult = '<difficult>1</difficult><truncated>0</truncated><part><name>head</name><bndbox/></part>'
    voc(source, 'a', voc_object('dog', (1, 1, 64, 48)) + voc_object('cat', (11, 21, 20, 40), difficult))
    voc(source, 'b', voc_object('dog', (5.5, 5, 10, 10)), (0, 0))
    (source / 'ImageSets' / 'Main').mkdir(parents=True)
    (source / 'ImageSets' / 'Main' / 'trainval.txt').write_text('a\r\nb\r\n')
    (source / 'ImageSets' / 'Main' / 'train.txt').write_text('a\n')
    (source / 'ImageSets' / 'Main' / 'val.txt').write_text('b\n')
    (source / 'ImageSets' / 'Main' / 'dog_train.txt').write_text('a 1\n')
    done = imported(source, tmp_path / 'out')
    assert done.classes == ('cat', 'dog')
    dog, cat = done.objects('a.jpg')
    assert (corners(dog), corners(cat)) == ([0, 0, 64, 48], [10, 20, 20, 40])
    assert (dog['iscrowd'], cat['iscrowd']) == (0, 1)
    assert corners(done.objects('b.jpg')[0]) == [4.5, 4, 10, 10]
    assert (done.split_of('a.jpg'), done.split_of('b.jpg')) == ('train', 'val')
    assert done.reasons('c.jpg') == ['it has no label file']


def test_voc_that_counts_from_zero_is_seen(tmp_path: Path) -> None:
    source = tmp_path / 's'
    write_pictures(source / 'JPEGImages', ['a.jpg', 'b.jpg'])
    voc(source, 'a', voc_object('dog', (0, 3, 10, 10)))
    voc(source, 'b', voc_object('dog', (5, 5, 10, 10)))
    done = imported(source, tmp_path / 'out', split='1')
    assert [corners(done.objects(name)[0]) for name in ('a.jpg', 'b.jpg')] == [[0, 3, 10, 10], [5, 5, 10, 10]]
    assert 'corners are taken as counted from 0, since some are 0' in done.notes


def test_voc_of_roboflow_has_polygons(tmp_path: Path) -> None:
    source = tmp_path / 's'
    points = ''.join(f'<x{n}>{x}</x{n}><y{n}>{y}</y{n}>' for n, (x, y) in enumerate([(5, 5), (20, 5.5), (20, 30)], 1))
    for split, start in (('train', 0), ('valid', 5)):
        write_pictures(source / split, [f'{split}.jpg'], start)
        voc(source, split, voc_object('dog', (6, 6, 20, 30), f'<polygon>{points}</polygon>'))
        shutil.move(source / 'Annotations' / f'{split}.xml', source / split / f'{split}.xml')
    (source / 'Annotations').rmdir()
    done = imported(source, tmp_path / 'out')
    assert done.folder.task == 'instance'
    assert done.objects('train.jpg')[0]['segmentation'] == [[5, 5, 20, 5.5, 20, 30]]
    assert done.split_of('valid.jpg') == 'val'


def test_voc_dents(tmp_path: Path) -> None:
    source = tmp_path / 's'
    write_pictures(source / 'JPEGImages', ['a.jpg', 'b.jpg', 'c.jpg', 'd.jpg'])
    voc(
        source,
        'a',
        voc_object('dog', (1, 1, 10, 10)) + voc_object('', (1, 1, 5, 5)) + '<object><name>x</name></object>',
    )
    voc(source, 'b', voc_object('dog', (1, 1, 10, 10)), (100, 100))
    voc(source, 'gone', voc_object('dog', (1, 1, 10, 10)))
    (source / 'Annotations' / 'c.xml').write_text('<annotation><object>')
    bomb = '<!DOCTYPE x [<!ENTITY a "b">]><annotation><filename>&a;</filename></annotation>'
    (source / 'Annotations' / 'd.xml').write_text(bomb)
    done = imported(source, tmp_path / 'out', split='1')
    assert done.all_names() == ['a.jpg']
    reasons = {loss.file.split('/')[-1]: loss.reason for loss in done.lost if loss.file.endswith('.xml')}
    assert 'but its label says 100 x 100' in reasons['b.xml']
    assert 'not XML' in reasons['c.xml'] and 'entities' in reasons['d.xml']
    assert reasons['gone.xml'] == 'the picture is missing'
    assert sorted(done.reasons('object')) == ['it has neither bndbox nor polygon', 'it has no name']


# LabelMe --------------------------------------------------------------------------------------------------------------


def shape(label: str, points: list, kind: str = 'polygon', **more: Any) -> dict[str, Any]:
    return {'label': label, 'points': points, 'group_id': None, 'shape_type': kind, 'flags': {}, **more}


def labelme(root: Path, name: str, shapes: list, **changes: Any) -> None:
    root.mkdir(parents=True, exist_ok=True)
    content = {
        'version': '5.4.1', 'flags': {}, 'shapes': shapes, 'imagePath': f'{name}.jpg', 'imageData': None,
        'imageHeight': HEIGHT, 'imageWidth': WIDTH, **changes,
    }  # fmt: skip
    (root / f'{name}.json').write_text(json.dumps(content), encoding='utf-8')


def png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'PNG')
    return base64.b64encode(buffer.getvalue()).decode()


def test_labelme_shapes(tmp_path: Path) -> None:
    source = tmp_path / 's'
    write_pictures(source, ['a.jpg', 'b.jpg'])
    mask = np.zeros((11, 21), np.uint8)
    mask[2:5, 3:9] = 255
    labelme(
        source,
        'a',
        [
            shape('cat', [[5, 5], [20, 5.5], [20, 30]]),
            shape('cat', [[10, 10], [13, 14]], 'circle'),
            shape('dog', [[30, 20], [50, 30]], 'mask', mask=png(mask)),
            shape('dog', [[1, 1], [9, 1], [9, 9], [1, 9]], 'rotation'),
            shape('cat', [[1, 1]], 'point'),
            shape('cat', [[1, 1], [5, 5], [9, 1]], 'linestrip'),
            shape('__ignore__', [[1, 1], [5, 5], [9, 1]]),
            shape('cat', [[1, 1], [5, 5]]),
        ],
    )
    labelme(source, 'b', [])
    done = imported(source, tmp_path / 'out', split='1')
    assert done.classes == ('cat', 'dog') and done.folder.task == 'instance'
    polygon, circle, drawn, turned = done.objects('a.jpg')
    assert polygon['segmentation'] == [[5, 5, 20, 5.5, 20, 30]]
    assert len(circle['segmentation'][0]) == 128
    np.testing.assert_allclose(corners(circle), [5, 5, 15, 15], atol=1e-3)
    assert circle['area'] == pytest.approx(np.pi * 25, rel=0.01)
    pixels = mask_pixels(drawn['segmentation'])
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[22:25, 33:39] = True
    np.testing.assert_array_equal(pixels, expected)
    assert (drawn['bbox'], drawn['area']) == ([33, 22, 6, 3], 18)
    assert turned['segmentation'] == [[1, 1, 9, 1, 9, 9, 1, 9]]
    assert [loss.reason for loss in done.lost] == [
        'a point has no area', 'a linestrip has no area', 'it marks no object', 'a polygon of 2 points'
    ]  # fmt: skip
    assert done.objects('b.jpg') == [] and 'b.jpg' in done.names('train')


def test_labelme_rectangles_are_boxes_in_any_order_of_corners(tmp_path: Path) -> None:
    source = tmp_path / 's'
    write_pictures(source, ['a.jpg', 'b.jpg'])
    labelme(
        source,
        'a',
        [shape('cat', [[20.5, 30], [5, 10.25]], 'rectangle'), shape('cat', [[60, 40], [70, 60]], 'rectangle')],
    )
    done = imported(source, tmp_path / 'out', split='1')
    assert done.folder.task == 'detection'
    assert [corners(item) for item in done.objects('a.jpg')] == [[5, 10.25, 20.5, 30], [60, 40, 64, 48]]
    assert done.reasons('b.jpg') == ['it has no label file']


def test_labelme_groups_are_one_object_of_several_polygons(tmp_path: Path) -> None:
    source = tmp_path / 's'
    write_pictures(source, ['a.jpg'])
    one, two = [[1, 1], [9, 1], [9, 9], [1, 9]], [[20, 20], [30, 20], [30, 30]]
    labelme(
        source,
        'a',
        [
            shape('cat', one, group_id=3),
            shape('cat', two, group_id=3),
            shape('dog', two, group_id=3),
            shape('cat', [[40, 1], [50, 9]], 'rectangle', group_id=3),
            shape('cat', two, group_id=0),
        ],
    )
    first, dog, other = imported(source, tmp_path / 'out', split='1').objects('a.jpg')
    square = [40, 1, 50, 1, 50, 9, 40, 9]
    assert first['segmentation'] == [[1, 1, 9, 1, 9, 9, 1, 9], [20, 20, 30, 20, 30, 30], square]
    assert (first['bbox'], first['area'], first['iscrowd']) == ([1, 1, 49, 29], 64 + 50 + 80, 0)
    assert len(dog['segmentation']) == len(other['segmentation']) == 1


def test_labelme_masks_of_a_group_are_one_mask(tmp_path: Path) -> None:
    write_pictures(tmp_path / 's', ['a.jpg'])
    one, two = np.zeros((2, 11, 11), np.uint8)
    one[:6], two[5:] = 255, 255
    points = [[5, 5], [15, 15]]
    shapes = [shape('cat', points, 'mask', mask=png(part), group_id=1) for part in (one, two)]
    labelme(tmp_path / 's', 'a', [*shapes, shape('cat', [[30, 30], [40, 40]], 'rectangle', group_id=1)])
    (item,) = imported(tmp_path / 's', tmp_path / 'out', split='1').objects('a.jpg')
    assert (item['bbox'], item['area']) == ([5, 5, 35, 35], 11 * 11 + 10 * 10)


def test_labelme_dents(tmp_path: Path) -> None:
    source = tmp_path / 's'
    write_pictures(source / 'pics', ['a.jpg', 'Ä b.png'])
    write_pictures(source / 'pics', ['c.jpg'], 9)
    triangle = shape('cat', [[5, 5], [20, 5], [20, 30]])
    labelme(source / 'json', 'a', [triangle], imagePath='..\\pics\\a.jpg', imageHeight=None, imageWidth=None)
    text = (source / 'json' / 'a.json').read_text()
    (source / 'json' / 'a.json').write_text('\ufeff' + text.replace('\n', '\r\n'), encoding='utf-8', newline='')
    labelme(source / 'json', 'Ä b', [triangle], imagePath='C:\\Users\\x\\Ä b.jpg')
    labelme(source / 'json', 'c', [triangle], imageHeight=999)
    labelme(source / 'json', 'gone', [triangle])
    (source / 'json' / 'empty.json').write_text('')
    done = imported(source, tmp_path / 'out', split='1')
    assert done.all_names() == ['a.jpg', 'Ä b.png']
    assert done.reasons('gone') == ['the picture is missing']
    assert 'its label says 64 x 999' in done.reasons('c.jpg')[0]
    assert 'not JSON' in done.reasons('empty')[0]


# CVAT -----------------------------------------------------------------------------------------------------------------


def cvat(root: Path, images: str, labels: tuple[str, ...] = ('dog', 'cat')) -> Path:
    names = ''.join(f'<label><name>{name}</name><color>#aa0000</color><attributes/></label>' for name in labels)
    root.mkdir(parents=True, exist_ok=True)
    head = f'<version>1.1</version><meta><task><labels>{names}</labels></task></meta>'
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{head}{images}</annotations>'
    (root / 'annotations.xml').write_text(text, encoding='utf-8')
    return root


def cvat_image(name: str, shapes: str, subset: str = '') -> str:
    subset = subset and f' subset="{subset}"'
    return f'<image id="0" name="{name}"{subset} width="{WIDTH}" height="{HEIGHT}">{shapes}</image>'


def test_cvat_shapes(tmp_path: Path) -> None:
    write_pictures(tmp_path / 's' / 'images', ['a.jpg', 'b.jpg'])
    shapes = (
        '<polygon label="cat" occluded="0" points="5.00,5.00;20.00,5.50;20.00,30.00" z_order="0"></polygon>'
        '<box label="cat" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90.0" z_order="0"/>'
        '<ellipse label="dog" cx="30" cy="20" rx="10" ry="5" z_order="0"/>'
        '<mask label="dog" rle="3, 2, 1" left="40" top="10" width="3" height="2" z_order="0"></mask>'
        '<polyline label="cat" points="1,1;5,5" z_order="0"/>'
        '<mask label="dog" rle="3, 2" left="40" top="10" width="3" height="2" z_order="0"/>'
        '<polygon label="cat" points="1,1;5,1;5,5" group_id="4"/>'
        '<polygon label="cat" points="9,9;15,9;15,15" group_id="4"/>'
        '<polygon label="cat" points="1,1;5,1" group_id="0"/>'
    )
    source = cvat(tmp_path / 's', cvat_image('a.jpg', shapes) + cvat_image('b.jpg', '') + cvat_image('gone.jpg', ''))
    done = imported(source, tmp_path / 'out', split='1')
    assert done.classes == ('dog', 'cat')  # the order of the labels
    polygon, turned, ellipse, mask, joined = done.objects('a.jpg')
    assert polygon['segmentation'] == [[5, 5, 20, 5.5, 20, 30]]
    np.testing.assert_allclose(corners(turned), [15, 5, 25, 25], atol=1e-3)  # about the centre (20, 15)
    np.testing.assert_allclose(corners(ellipse), [20, 15, 40, 25], atol=1e-3)
    pixels = mask_pixels(mask['segmentation'])
    assert sorted(zip(*(values.tolist() for values in np.nonzero(pixels)))) == [(11, 40), (11, 41)]
    assert len(joined['segmentation']) == 2 and joined['area'] == 8 + 18
    assert done.objects('b.jpg') == [] and done.reasons('gone') == ['the picture is missing']
    assert sorted(loss.reason for loss in done.lost if 'a.jpg' in loss.what or 'cat in' in loss.what) == [
        'a polyline has no area', 'its polygon has 2 points', 'the run lengths of its mask do not fill 3 x 2 pixels'
    ]  # fmt: skip


def test_cvat_subsets_tags_and_video(tmp_path: Path) -> None:
    write_pictures(tmp_path / 's' / 'images' / 'Train', ['a.jpg', 'b.jpg'])
    write_pictures(tmp_path / 's' / 'images' / 'Validation', ['a.jpg'], 20)
    images = cvat_image('a.jpg', '<tag label="cat" source="manual"/>', 'Train')
    images += cvat_image('b.jpg', '<tag label="dog"/>', 'Train') + cvat_image(
        'a.jpg', '<tag label="dog"/>', 'Validation'
    )
    done = imported(cvat(tmp_path / 's', images), tmp_path / 'out')
    assert (done.folder.task, done.classes) == ('classification', ('dog', 'cat'))
    assert (done.folder.path / 'train.txt').read_text() == 'images/Train/a.jpg 1\nimages/Train/b.jpg 0\n'
    assert (done.folder.path / 'val.txt').read_text() == 'images/Validation/a.jpg 0\n'
    with pytest.raises(UserError, match=r"'CVAT for video'; export 'CVAT for images 1.1'"):
        imported(cvat(tmp_path / 's', '<track id="0" label="cat"/>'), tmp_path / 'out2')


def test_polygons_are_drawn_by_the_centres_of_pixels() -> None:
    from matplotlib.path import Path as Outline

    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5), -1).reshape(-1, 2)
    for corners_ in (3, 4, 7, 20):
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners_))
        points = [30, 22] + rng.uniform(4, 40, (corners_, 1)) * np.stack(
            [np.cos(angle), np.sin(angle)], -1
        )  # partly outside
        expected = Outline(points).contains_points(centres).reshape(HEIGHT, WIDTH)
        np.testing.assert_array_equal(draw_polygons([points.ravel().tolist()], HEIGHT, WIDTH), expected)
    square = draw_polygons([[10, 10, 20, 10, 20, 30, 10, 30], [12.4, 40, 13.6, 40, 13.6, 41, 12.4, 41]], HEIGHT, WIDTH)
    assert square.sum() == 10 * 20 + 2 and square[10:30, 10:20].all() and square[40, 12:14].all()


def test_label_maps_are_drawn_in_the_order_of_depth(tmp_path: Path) -> None:
    write_pictures(tmp_path / 's' / 'images', ['a.jpg'])
    shapes = (
        '<polygon label="cat" points="0,0;40,0;40,40;0,40" z_order="2"/>'
        '<polygon label="dog" points="20,0;60,0;60,40;20,40" z_order="1"/>'
    )
    done = imported(cvat(tmp_path / 's', cvat_image('a.jpg', shapes)), tmp_path / 'out', task='segmentation', split='1')
    assert done.classes == ('background', 'dog', 'cat')
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:40, 40:60], expected[:40, :40] = 1, 2
    labels = np.asarray(Image.open(done.folder.path / 'labels' / 'images' / 'a.jpg.png'))
    np.testing.assert_array_equal(labels, expected)


# Masks ----------------------------------------------------------------------------------------------------------------


def masks(root: Path, image: Image.Image, name: str = 'a', folders: tuple[str, str] = ('images', 'masks')) -> Path:
    write_pictures(root / folders[0], [f'{name}.jpg'])
    (root / folders[1]).mkdir(exist_ok=True)
    image.save(root / folders[1] / f'{name}.png')
    return root


VALUES = np.zeros((HEIGHT, WIDTH), np.uint8)
VALUES[10:20, 10:30], VALUES[30:40, 5:9], VALUES[0] = 1, 2, 255


def palette(values: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(values)
    image.putpalette(colours)
    return image


MASKS = {
    'L': lambda: Image.fromarray(VALUES),
    'I;16': lambda: Image.fromarray(VALUES.astype(np.uint16)),
    'P': lambda: palette(VALUES, [0, 0, 0, 255, 0, 0, 0, 255, 0] + [0] * 759),
    # A drawing program has sorted its greys: places 0 to 3 of the palette are the levels 255, 2, 0, 1.
    'grey palette': lambda: palette(
        np.select([VALUES == 255, VALUES == 2, VALUES == 0], [0, 1, 2], 3).astype(np.uint8),
        [255, 255, 255, 2, 2, 2, 0, 0, 0, 1, 1, 1],
    ),
}


@pytest.mark.parametrize('mode', MASKS)
def test_masks_of_every_mode(tmp_path: Path, mode: str) -> None:
    source = masks(tmp_path / 's', MASKS[mode]())
    done = imported(source, tmp_path / 'out', classes='sky,cat,dog', split='1')
    assert (done.folder.task, done.classes) == ('segmentation', ('sky', 'cat', 'dog'))
    assert (done.folder.path / 'train.txt').read_text() == 'images/a.jpg\n'
    written = Image.open(done.folder.path / 'labels' / 'images' / 'a.jpg.png')
    assert written.mode == 'L'
    np.testing.assert_array_equal(np.asarray(written), VALUES)


def test_masks_of_one_bit_and_of_colours(tmp_path: Path) -> None:
    source = masks(tmp_path / 'bit', Image.fromarray(VALUES == 1))
    done = imported(source, tmp_path / 'out', classes='sky,cat', split='1')
    np.testing.assert_array_equal(np.asarray(Image.open(done.folder.path / 'labels/images/a.jpg.png')), VALUES == 1)
    colours = np.array([[0, 0, 0], [250, 50, 83]], np.uint8)[(VALUES == 1).astype(int)]
    source = masks(tmp_path / 'cvat', Image.fromarray(colours), folders=('JPEGImages', 'SegmentationClass'))
    masks(source, Image.fromarray(colours), folders=('JPEGImages', 'SegmentationObject'))
    (source / 'ImageSets' / 'Segmentation').mkdir(parents=True)
    (source / 'ImageSets' / 'Segmentation' / 'val.txt').write_text('a\n')
    (source / 'labelmap.txt').write_text('# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\n')
    done = imported(source, tmp_path / 'out2')
    assert done.classes == ('background', 'cat') and list(done.folder.splits) == ['val']
    np.testing.assert_array_equal(np.asarray(Image.open(done.folder.path / 'labels/JPEGImages/a.jpg.png')), VALUES == 1)
    (source / 'labelmap.txt').write_text('background:0,0,0::\n')
    with pytest.raises(UserError, match=r'the colour 250,50,83 has no name'):
        imported(source, tmp_path / 'out3')
    (source / 'labelmap.txt').unlink()
    with pytest.raises(UserError, match=r'its pixels are colours .RGB.; name them by --labelmap'):
        imported(source, tmp_path / 'out4', classes='background,cat')


def test_masks_that_nothing_can_be_made_of(tmp_path: Path) -> None:
    source = masks(tmp_path / 's', Image.fromarray(VALUES))
    with pytest.raises(UserError, match=r'a.png: the value 0 has no name; name the classes by --classes'):
        imported(source, tmp_path / 'out')
    with pytest.raises(UserError, match=r'a.png: the value 2 has no name; there are names for 0 to 1'):
        imported(source, tmp_path / 'out', classes='sky,cat')
    masks(source, Image.fromarray(VALUES[:30, :30]))
    with pytest.raises(UserError, match=r'it is 30 x 30 pixels, its picture 64 x 48'):
        imported(source, tmp_path / 'out', classes='sky,cat,dog')
    masks(source, Image.fromarray(np.where(VALUES == 1, 255, 0).astype(np.uint8)))
    with pytest.raises(UserError, match=r'hold 0 and 255 alone.*--labelmap'):
        imported(source, tmp_path / 'out', classes='sky,cat')
    (tmp_path / 'map.txt').write_text('sky:0,0,0::\ncat:255,255,255::\n')
    done = imported(source, tmp_path / 'out', labelmap=tmp_path / 'map.txt', split='1')
    np.testing.assert_array_equal(np.asarray(Image.open(done.folder.path / 'labels/images/a.jpg.png')), VALUES == 1)
    assert not list(tmp_path.glob('.out*'))  # no part of a folder stays behind


def test_masks_without_pictures_and_the_reverse(tmp_path: Path) -> None:
    for split, start in (('train', 0), ('val', 5)):
        write_pictures(tmp_path / 's' / 'images' / split, ['a.jpg', 'b.jpg'], start)
        (tmp_path / 's' / 'labels' / split).mkdir(parents=True)
        for name in ('a', 'c'):
            Image.fromarray(VALUES).save(tmp_path / 's' / 'labels' / split / f'{name}.png')
    done = imported(tmp_path / 's', tmp_path / 'out', classes='sky,cat,dog')
    assert (done.folder.path / 'val.txt').read_text() == 'images/val/a.jpg\n'
    assert sorted(loss.file for loss in done.lost) == [
        'images/train/b.jpg', 'images/val/b.jpg', 'labels/train/c.png', 'labels/val/c.png'
    ]  # fmt: skip


# Class folders and CSV ------------------------------------------------------------------------------------------------


def test_class_folders(tmp_path: Path) -> None:
    source = tmp_path / 's'
    for split, start in (('train', 0), ('valid', 20)):
        for place, name in enumerate(('Zebra', 'ant hill', 'ähre')):
            write_pictures(source / split / name, ['a.jpg', 'b.png'], start + 5 * place)
    write_pictures(source / 'train', ['stray.jpg'], 90)
    (source / 'train' / '.ipynb_checkpoints').mkdir()
    (source / 'train' / 'Zebra' / 'notes.md').write_text('x')
    (source / 'valid' / 'Zebra' / 'a.jpg').write_bytes(b'')
    done = imported(source, tmp_path / 'out')
    assert (done.folder.task, done.classes) == ('classification', ('Zebra', 'ant hill', 'ähre'))
    lines = (done.folder.path / 'train.txt').read_text().splitlines()
    assert lines[0] == 'train/Zebra/a.jpg 0' and lines[-1] == 'train/ähre/b.png 2' and len(lines) == 6
    assert done.reasons('stray') == ['it is in no class folder']
    assert done.reasons('valid/Zebra/a.jpg') == ['the file is empty']


def test_class_folders_without_splits(tmp_path: Path) -> None:
    for place, name in enumerate(('cat', 'dog')):
        write_pictures(tmp_path / 's' / name, [f'{number}.jpg' for number in range(10)], 20 * place)
    done = imported(tmp_path / 's', tmp_path / 'out')
    assert [len(done.names(split)) for split in ('train', 'val')] == [16, 4]
    val = [picture.label for picture in done.folder.pictures('val')]
    assert sorted(val) == ['cat', 'cat', 'dog', 'dog']
    chosen = imported(tmp_path / 's', tmp_path / 'out2', classes='dog,cat')
    assert chosen.classes == ('dog', 'cat')


def test_csv_of_boxes(tmp_path: Path) -> None:
    source = tmp_path / 's'
    write_pictures(source / 'images', ['a.jpg', 'b.jpg', 'c.jpg'])
    rows = [
        'Filename,width,height,class,xmin,ymin,xmax,ymax,split',
        'images\\a.jpg,64,48,"dog, big",1,2,11.5,12,train',
        'images/a.jpg,64,48,cat,20,30,10,20,train',
        'b.jpg,64,48,cat,5,5,90,40,validation',
        'images/c.jpg,64,48,,,,,,train',
        'gone.jpg,64,48,cat,1,1,5,5,train',
        'images/a.jpg,64,48,cat,x,1,5,5,train',
    ]
    source.joinpath('labels.csv').write_text('\ufeff' + '\r\n'.join(rows) + '\r\n\r\n', encoding='utf-8', newline='')
    done = imported(source, tmp_path / 'out')
    assert done.classes == ('cat', 'dog, big')
    assert [corners(item) for item in done.objects('a.jpg')] == [[1, 2, 11.5, 12], [10, 20, 20, 30]]
    assert corners(done.objects('b.jpg')[0]) == [5, 5, 64, 40]
    assert done.split_of('b.jpg') == 'val' and done.names('train') == ['a.jpg', 'c.jpg']
    assert [(loss.line, loss.what) for loss in done.lost] == [(6, 'gone.jpg'), (7, 'images/a.jpg')]


def test_csv_of_classes(tmp_path: Path) -> None:
    write_pictures(tmp_path / 's', ['a.jpg', 'b.jpg'])
    (tmp_path / 's' / 'labels.csv').write_text('path,label,split\na.jpg,cat,train\nb.jpg,dog,val\na.jpg,dog,train\n')
    done = imported(tmp_path / 's', tmp_path / 'out')
    assert (done.folder.path / 'train.txt').read_text() == 'a.jpg 0\n'
    assert done.lost[0].line == 4 and 'has the class cat already' in done.lost[0].reason


# All formats ----------------------------------------------------------------------------------------------------------


def test_what_exif_turns_is_annotated_as_displayed_unless_its_size_says_otherwise(tmp_path: Path) -> None:
    """A picture of 64 x 48 that is displayed as 48 x 64."""
    (tmp_path / 's').mkdir()
    for name in ('displayed', 'stored', 'yolo'):
        (tmp_path / 's' / f'{name}.jpg').write_bytes(planted.turned(planted.scene(hash(name) % 99)))
    content = coco(tmp_path / 'unused')
    content['images'] = [
        {'id': 7, 'file_name': 'displayed.jpg', 'height': 64, 'width': 48},
        {'id': 9, 'file_name': 'stored.jpg', 'height': 48, 'width': 64},
    ]
    content['annotations'][0].update(bbox=[10, 50, 30, 10], segmentation=None)
    content['annotations'][1].update(bbox=[50, 10, 10, 30], segmentation=None)
    write_json(tmp_path / 's' / 'x.json', content)
    done = imported(tmp_path / 's', tmp_path / 'out', split='1')
    sizes = {image['file_name']: (image['height'], image['width']) for image in done.content('train')['images']}
    assert sizes == {'displayed.jpg': (64, 48), 'stored.jpg': (48, 64)}
    assert done.objects('displayed.jpg')[0]['bbox'] == [10, 50, 30, 10]
    assert done.objects('stored.jpg')[0]['bbox'] == [50, 10, 10, 30]
    (tmp_path / 's' / 'yolo.txt').write_text('0 0.5 0.25 0.5 0.5')
    (tmp_path / 's' / 'classes.txt').write_text('cat\n')
    (tmp_path / 's' / 'x.json').unlink()
    turned = imported(tmp_path / 's', tmp_path / 'out2', split='1')
    assert turned.objects('yolo.jpg')[0]['bbox'] == [12, 0, 24, 32]


def test_classes_select_and_order(tmp_path: Path) -> None:
    write_json(tmp_path / 's' / 'x.json', coco(tmp_path / 's'))
    done = imported(tmp_path / 's', tmp_path / 'out', classes='cat', split='1')
    assert done.classes == ('cat',)
    assert len(done.objects('a.jpg')) == 1 and done.objects('b.jpg') == [] and len(done.names('train')) == 2
    assert done.lost == [] and 'not chosen by --classes: dog' in done.notes
    (tmp_path / 'names.txt').write_text('cat\ndog\n')
    assert imported(tmp_path / 's', tmp_path / 'out2', classes=str(tmp_path / 'names.txt')).classes == ('cat', 'dog')
    with pytest.raises(UserError, match=r'no label is called cow; there are dog, cat'):
        imported(tmp_path / 's', tmp_path / 'out3', classes='cat,cow')


def test_formats_are_told_apart(tmp_path: Path) -> None:
    source = yolo(tmp_path / 's', {'train/a.txt': '0 0.5 0.5 0.5 0.5'})
    write_json(source / 'x.json', coco(tmp_path / 'unused'))
    with pytest.raises(UserError, match=r'looks like coco and yolo; choose one by --format'):
        imported(source, tmp_path / 'out')
    (tmp_path / 'none').mkdir()
    with pytest.raises(UserError, match=r'looks like no known format'):
        imported(tmp_path / 'none', tmp_path / 'out')
    (tmp_path / 'x.zip').write_bytes(b'PK')
    with pytest.raises(UserError, match=r'is packed; unpack it'):
        imported(tmp_path / 'x.zip', tmp_path / 'out')
    with pytest.raises(UserError, match=r'does not exist'):
        imported(tmp_path / 'nowhere', tmp_path / 'out')
