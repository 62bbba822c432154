# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Nothing outside of the source comes in, whatever its label files name or its links lead to."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from imports import imported, write_pictures
from PIL import Image

from mmlightvit.data.importer import Options, import_labels
from mmlightvit.data.probe import pictures_in
from mmlightvit.data.source import OUTSIDE
from mmlightvit.errors import UserError

GOOD = ('0.png', '1.png', '2.png', '3.png')


def coco(folder: Path, name: str) -> None:
    images = [dict(id=place, file_name=file, width=64, height=48) for place, file in enumerate((*GOOD, name))]
    objects = [
        dict(id=place, image_id=place, category_id=1, bbox=[5, 5, 20, 20], area=400, iscrowd=0)
        for place in range(len(images))
    ]
    content = dict(images=images, annotations=objects, categories=[dict(id=1, name='cat')])
    (folder / 'labels.json').write_text(json.dumps(content))


def voc(folder: Path, name: str) -> None:
    for place, file in enumerate((*GOOD, name)):
        (folder / f'label{place}.xml').write_text(
            f'<annotation><filename>{file}</filename><size><width>64</width><height>48</height></size><object>'
            '<name>cat</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object>'
            '</annotation>'
        )


def cvat(folder: Path, name: str) -> None:
    images = ''.join(
        f'<image id="{place}" name="{file}" width="64" height="48"><box label="cat" xtl="5" ytl="5" xbr="20" ybr="20"/>'
        '</image>'
        for place, file in enumerate((*GOOD, name))
    )
    (folder / 'annotations.xml').write_text(f'<annotations><version>1.1</version>{images}</annotations>')


def labelme(folder: Path, name: str) -> None:
    shape = dict(label='cat', points=[[5, 5], [30, 30]], shape_type='rectangle', flags={}, group_id=None)
    for place, file in enumerate((*GOOD, name)):
        content = dict(version='5', shapes=[shape], imagePath=file, imageData=None, imageHeight=48, imageWidth=64)
        (folder / f'label{place}.json').write_text(json.dumps(content))


def csv_file(folder: Path, name: str) -> None:
    rows = [f'{file},{"cat" if place % 2 else "dog"}' for place, file in enumerate((*GOOD, name))]
    (folder / 'labels.csv').write_text('\n'.join(['path,class', *rows]))


def yolo_list(folder: Path, name: str) -> None:
    (folder / 'data.yaml').write_text('names: [cat]\ntrain: list.txt\n')
    (folder / 'list.txt').write_text('\n'.join((*GOOD, name)))
    for file in GOOD:
        (folder / file).with_suffix('.txt').write_text('0 0.5 0.5 0.3 0.3\n')


READERS: dict[str, Callable[[Path, str], None]] = {
    'coco': coco,
    'voc': voc,
    'cvat': cvat,
    'labelme': labelme,
    'csv': csv_file,
    'yolo': yolo_list,
}


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A source with four pictures, and a folder beside it with a private one."""
    write_pictures(tmp_path / 'set', GOOD)
    write_pictures(tmp_path / 'secret', ['private.png'], start=50)
    (tmp_path / 'secret' / 'private.txt').write_text('0 0.5 0.5 0.3 0.3\n')
    return tmp_path / 'set', tmp_path / 'secret'


def holds_nothing_private(out: Path, secret: Path) -> bool:
    private = {path.read_bytes() for path in secret.iterdir()}
    return not any(path.is_file() and path.read_bytes() in private for path in out.rglob('*'))


@pytest.mark.parametrize(
    'name',
    ['{secret}/private.png', '../secret/private.png', '..\\secret\\private.png', 'link.png', 'linked/private.png'],
)
@pytest.mark.parametrize('reader', READERS)
def test_what_lies_outside_is_left_out_and_named_by_every_reader(
    places, tmp_path: Path, reader: str, name: str
) -> None:
    source, secret = places
    if name.startswith('link'):
        link = source / name.partition('/')[0]
        link.symlink_to(secret / ('private.png' if link.suffix else '.'))
    READERS[reader](source, name.format(secret=secret))
    done = imported(source, tmp_path / 'out', copy=True, split='0.5,0.5')
    assert done.all_names() == list(GOOD)
    assert holds_nothing_private(tmp_path / 'out', secret)
    reasons = done.reasons('private.png') + done.reasons('link.png')
    assert reasons and all(reason.startswith(OUTSIDE) for reason in reasons)
    # The user's own word names another folder.
    done = imported(source, tmp_path / 'more', copy=True, split='0.5,0.5', images=secret)
    assert len(done.all_names()) == 5


def test_a_picture_of_the_source_is_taken_where_one_outside_has_its_name(places, tmp_path: Path) -> None:
    source, secret = places
    write_pictures(secret, ['0.png'], start=70)
    csv_file(source, '3.png')
    text = (source / 'labels.csv').read_text().replace('0.png', str(secret / '0.png'))
    (source / 'labels.csv').write_text(text)
    done = imported(source, tmp_path / 'out', copy=True, split='1')
    assert (tmp_path / 'out' / 'images' / '0.png').read_bytes() == (source / '0.png').read_bytes()
    assert done.lost[0].reason.startswith('the picture has the class') or done.lost == []


@pytest.mark.parametrize(
    'settings',
    [
        'train: .\nval: {secret}',
        'path: {secret}\ntrain: .',
        'path: ../secret\ntrain: .',
        'train: .\nval: ../secret',
        'train: .\nval: [linked]',
    ],
)
def test_folders_that_yolo_names(places, tmp_path: Path, settings: str) -> None:
    source, secret = places
    (source / 'linked').symlink_to(secret)
    for file in GOOD:
        (source / file).with_suffix('.txt').write_text('0 0.5 0.5 0.3 0.3\n')
    (source / 'data.yaml').write_text(f'names: [cat]\n{settings.format(secret=secret)}\n')
    done = imported(source, tmp_path / 'out', copy=True, split='0.5,0.5')
    assert done.all_names() == list(GOOD)
    assert holds_nothing_private(tmp_path / 'out', secret)
    assert OUTSIDE in done.reasons('data.yaml') + done.reasons('linked')


def test_texts_outside_are_not_read(places, tmp_path: Path) -> None:
    """A list, a label and names of classes, whose lines would come into the ledger."""
    source, secret = places
    (secret / 'words.txt').write_text('password\n')
    (source / 'data.yaml').write_text(f'names: [cat]\ntrain: .\nval: {secret / "words.txt"}\n')
    (source / '0.txt').symlink_to(secret / 'words.txt')
    for file in GOOD[1:]:
        (source / file).with_suffix('.txt').write_text('0 0.5 0.5 0.3 0.3\n')
    done = imported(source, tmp_path / 'out', split='0.5,0.5')
    assert 'password' not in (tmp_path / 'out' / 'lost.csv').read_text()
    assert done.reasons('0.txt') == [OUTSIDE]
    (source / 'data.yaml').unlink()
    (source / 'classes.txt').symlink_to(secret / 'words.txt')
    with pytest.raises(UserError, match='looks like no known format'):
        import_labels(source, tmp_path / 'none', Options())


def test_links_of_folders_of_classes_and_of_masks(places, tmp_path: Path) -> None:
    source, secret = places
    for name in ('cat', 'dog'):
        write_pictures(source / 'classes' / name, GOOD, start=len(name) + ord(name[0]))
    (source / 'classes' / 'dog' / 'link.png').symlink_to(secret / 'private.png')
    (source / 'classes' / 'owl').symlink_to(secret)
    (source / 'classes' / 'cat' / 'below').symlink_to('/')
    done = imported(source / 'classes', tmp_path / 'out', copy=True, split='0.5,0.5')
    assert done.all_names() == sorted(GOOD * 2) and done.classes == ('cat', 'dog')
    named = [loss.what.rpartition('/')[2] for loss in done.lost if loss.reason.startswith(OUTSIDE)]
    assert sorted(named) == ['below', 'link.png', 'owl']
    masks = source / 'scenes'
    write_pictures(masks / 'images', GOOD)
    (masks / 'masks').mkdir()
    for file in GOOD[1:]:
        Image.new('L', (64, 48), 1).save(masks / 'masks' / file)
    Image.new('L', (64, 48), 1).save(secret / 'mask.png')
    (masks / 'masks' / '0.png').symlink_to(secret / 'mask.png')
    done = imported(masks, tmp_path / 'masks', copy=True, split='0.5,0.5', classes='sky,cat')
    assert done.all_names() == list(GOOD[1:]) and done.reasons('0.png') == [OUTSIDE]


def test_a_label_file_behind_a_link_is_named(places, tmp_path: Path) -> None:
    source, secret = places
    coco(secret, 'private.png')
    (source / 'labels.json').symlink_to(secret / 'labels.json')
    with pytest.raises(UserError, match='looks like no known format'):
        import_labels(source, tmp_path / 'out', Options())


def test_a_prepared_folder_names_pictures_elsewhere_and_collects_none(places, tmp_path: Path) -> None:
    source, _ = places
    csv_file(source, '3.png')
    imported(source, tmp_path / 'prepared', split='0.5,0.5')
    (tmp_path / 'coco').mkdir()
    coco(tmp_path / 'coco', '3.png')
    info = json.loads((tmp_path / 'prepared' / 'dataset.json').read_text())
    (tmp_path / 'coco' / 'dataset.json').write_text(json.dumps(info))
    assert len(imported(tmp_path / 'coco', tmp_path / 'referred', split='1').all_names()) == 4
    with pytest.raises(UserError, match='lies outside of the source; --images'):
        imported(tmp_path / 'coco', tmp_path / 'copied', copy=True)
    assert len(imported(tmp_path / 'coco', tmp_path / 'copied', copy=True, images=source, split='1').all_names()) == 4


def test_names_from_the_current_folder_are_followed_down_and_collected_by_nobody(
    places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As predictions write them."""
    source, secret = places
    (source / 'labels').mkdir()
    monkeypatch.chdir(tmp_path)
    csv_file(source / 'labels', 'secret/private.png')
    rows = (source / 'labels' / 'labels.csv').read_text().replace('\n', '\nset/').replace('set/secret', 'secret')
    (source / 'labels' / 'labels.csv').write_text(rows)
    assert len(imported(source / 'labels', tmp_path / 'referred', split='1').all_names()) == 5
    with pytest.raises(UserError, match='lies outside of the source; --images'):
        imported(source / 'labels', tmp_path / 'copied', copy=True)
    (source / 'labels' / 'labels.csv').write_text(rows.replace('secret', str(secret)).replace('\nset', f'\n{source}'))
    with pytest.raises(UserError, match='lies outside of the source; --images'):
        imported(source / 'labels', tmp_path / 'absolute')


def test_each_real_folder_is_gone_through_once(tmp_path: Path) -> None:
    write_pictures(tmp_path / 'a' / 'b', GOOD)
    write_pictures(tmp_path / 'c', ['9.png'])
    os.symlink('..', tmp_path / 'a' / 'up')
    os.symlink('.', tmp_path / 'a' / 'b' / 'here')
    os.symlink(tmp_path / 'a', tmp_path / '0')  # comes first in the alphabet
    expected = [tmp_path / 'a' / 'b' / name for name in GOOD] + [tmp_path / 'c' / '9.png']
    assert list(pictures_in(tmp_path)) == expected
