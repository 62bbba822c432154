# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""COCO files, also as Roboflow, Label Studio and this project write them."""

from __future__ import annotations

import json
import re
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
        contents[path] = coco.read(path)
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
    faults = [fault for fault in findings.unusable() if not _has_box(content, fault)]
    for fault in faults:
        labels.lose(name, None, fault.what, fault.reason)
    orphans = coco.leave_out(content, faults)
    pictures: dict[Any, Picture] = {}
    by_path: dict[Path, Picture] = {}
    for item in content['images']:
        file = found.get(item['file_name'])
        if file is None:
            labels.lose(name, None, item['file_name'], 'the picture is missing')
            continue
        if file in by_path:
            labels.notes.append(f'{name}: {item["file_name"]} is the picture {file} again; their objects are joined')
            pictures[item['id']] = by_path[file]
            continue
        pictures[item['id']] = by_path[file] = Picture(file, coco.size(item), split, source=name)
        labels.pictures.append(by_path[file])
    names = {item['id']: item['name'] for item in content['categories']}
    for item in content['annotations']:
        if item['image_id'] not in pictures:
            orphans[item['image_id']] += 1
        elif item['category_id'] not in names:
            labels.lose(name, None, f'annotation {item["id"]}', 'its category has no name')
        else:
            pictures[item['image_id']].objects.append(_annotation(item, names[item['category_id']], name))
    for image, count in orphans.items():
        labels.lose(name, None, f'{count} objects of image {image}', 'their picture is left out')


def _has_box(content: dict, fault: coco.Fault) -> bool:
    """Whether the box follows from the mask."""
    return fault.reason == coco.NO_BOX and bool(content['annotations'][fault.place].get('segmentation'))


def _annotation(item: dict, label: str, name: str) -> Annotation:
    result = Annotation(label, crowd=bool(item['iscrowd']), score=item.get('score'), file=name, area=item.get('area'))
    mask = item.get('segmentation') or []
    result.polygons, result.mask = ([], mask) if isinstance(mask, dict) else (mask, None)
    if item.get('bbox'):
        x, y, w, h = item['bbox']
        result.box = [x, y, x + w, y + h]
    elif result.polygons:
        result.box = bounds(result.polygons)
    return result
