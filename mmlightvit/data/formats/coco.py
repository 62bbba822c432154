# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""COCO files, also as Roboflow, Label Studio and this project write them."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from mmlightvit.data.source import Source, near_files
from mmlightvit.errors import UserError
from mmlightvit.pictures import coco
from mmlightvit.pictures.objects import SPLIT_NAMES, Annotation, Picture, bounds


def found(source: Source) -> bool:
    return bool(_files(source))


def read(source: Source) -> None:
    files = _files(source)
    splits = {path: _split(path) for path in files}
    twice = [path for path in files if list(splits.values()).count(splits[path]) > 1]
    if twice:
        raise UserError(
            f'{source.path} holds several files of one split: {", ".join(map(source.name, twice))}; name one of them'
        )
    if len(files) == 1:
        splits = {files[0]: None if source.path.is_file() else splits[files[0]]}
    prepared = source.folder / 'dataset.json'
    if prepared.is_file() and not source.images:  # a folder that the import has written
        source.images = Path(prepared.parent, json.loads(prepared.read_text('utf-8')).get('images', '.'))
    order = {'train': 0, 'val': 1, 'test': 2, None: 3}
    contents = {}
    for path in sorted(files, key=lambda path: order[splits[path]]):
        try:
            contents[path] = coco.parse(path.read_bytes())
        except (ValueError, OSError) as error:
            raise UserError(f'{path}: {error}') from None
    source.ask_classes(_class_names(list(contents.values()), source))
    for path, content in contents.items():
        _read_file(source, path, splits[path], content)


def _files(source: Source) -> list[Path]:
    keys = (b'"images"', b'"annotations"', b'"categories"')
    return [path for path in near_files(source, '.json') if all(key in path.read_bytes() for key in keys)]


def _split(path: Path) -> str | None:
    words = re.split(r'[^a-z]+', f'{path.parent.name} {path.stem}'.lower())
    return next((SPLIT_NAMES[word] for word in reversed(words) if word in SPLIT_NAMES), None)


def _class_names(contents: list[dict], source: Source) -> list[str]:
    """Names in the order of the files; without a category that only heads others, as Roboflow's first does."""
    used = set()
    for content in contents:
        ids = {str(item.get('category_id')) for item in content['annotations']}
        used |= {category.get('name') for category in content['categories'] if str(category.get('id')) in ids}
    heads = {category.get('supercategory') for content in contents for category in content['categories']}
    names = [
        category['name']
        for content in contents
        for category in content['categories']
        if isinstance(category.get('name'), str)
    ]
    dropped = [name for name in dict.fromkeys(names) if name in heads and name not in used and len(set(names)) > 1]
    # A category may be its own supercategory; only one that heads another goes.
    dropped = [
        name
        for name in dropped
        if any(
            category.get('supercategory') == name != category.get('name')
            for content in contents
            for category in content['categories']
        )
    ]
    if dropped:
        source.labels.notes.append(f'left out, since it only heads other categories: {", ".join(dropped)}')
    return [name for name in dict.fromkeys(names) if name not in dropped]


def _read_file(source: Source, path: Path, split: str | None, content: dict) -> None:
    labels, name = source.labels, source.name(path)
    places = [item.get('file_name') for item in content['images']]
    found: dict[str, Path] = {}
    for file_name in places:
        picture = source.picture(file_name, path.parent, split) if isinstance(file_name, str) else None
        if picture:
            found[file_name.replace('\\', '/')] = picture
    findings = coco.apply(content)
    labels.notes += [f'{name}: {note}' for note in findings.notes()]
    bad: dict[str, set[int]] = {'images': set(), 'annotations': set(), 'categories': set()}
    for fault in findings.faults:
        # A box may follow from its mask, boxes are clipped, and sizes are read from the pictures.
        item = content[fault.kind][fault.place]
        if fault.geometry or (fault.reason == 'it has no bbox' and item.get('segmentation')):
            continue
        if fault.reason == 'it has no height and width in pixels':
            continue
        bad[fault.kind].add(fault.place)
        labels.lose(name, None, fault.what, fault.reason)
    pictures: dict[Any, Picture] = {}
    by_path: dict[Path, Picture] = {}
    for place, item in enumerate(content['images']):
        if place in bad['images']:
            continue
        file = found.get(item['file_name'])
        if file is None:
            labels.lose(name, None, item['file_name'], 'the picture is missing')
            continue
        if file in by_path:
            labels.notes.append(f'{name}: {item["file_name"]} is the picture {file} again; their objects are joined')
            pictures[item['id']] = by_path[file]
            continue
        size = (item.get('height') or 0, item.get('width') or 0)
        pictures[item['id']] = by_path[file] = Picture(file, size, split, source=name)
        labels.pictures.append(by_path[file])
    category = {item.get('id'): item.get('name') for item in content['categories']}
    orphans: Counter[Any] = Counter()
    for place, item in enumerate(content['annotations']):
        if place in bad['annotations']:
            continue
        if item.get('image_id') not in pictures:
            orphans[item.get('image_id')] += 1
            continue
        if not isinstance(category.get(item.get('category_id')), str):
            labels.lose(name, None, f'annotation {item["id"]}', 'its category has no name')
            continue
        _read_object(item, category[item['category_id']], pictures[item['image_id']], source, name)
    for image, count in orphans.items():
        labels.lose(name, None, f'{count} objects of image {image}', 'their picture is left out')


def _read_object(item: dict, label: str, picture: Picture, source: Source, name: str) -> None:
    result = Annotation(label, crowd=bool(item.get('iscrowd')), score=item.get('score'), file=name)
    result.area = item.get('area')
    mask = item.get('segmentation')
    what = f'annotation {item["id"]} of {picture.path.name}'
    fault = None
    if isinstance(mask, dict):
        fault = coco.run_fault(mask)
        size = list(mask.get('size') or ())
        if not fault and any(picture.size or ()) and size != list(picture.size or ()):
            fault = f'its mask is run lengths of {size}, expected {list(picture.size or ())}'
        result.mask = None if fault else mask
    elif mask:
        fault = coco.polygon_fault(mask) if isinstance(mask, list) else 'its mask is no list of polygons'
        result.polygons = [] if fault else mask
    if fault:
        source.labels.lose(name, None, what, fault)
        return
    box = item.get('bbox')
    if box:
        x, y, w, h = box
        result.box = [x, y, x + w, y + h]
    elif result.polygons:
        result.box = bounds(result.polygons)
    picture.objects.append(result)
