# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""CVAT for images 1.1: one XML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmlightvit.data.source import Source, near_files, numbers, read_xml, starts_with
from mmlightvit.errors import UserError
from mmlightvit.pictures.objects import SPLIT_NAMES, Annotation, Patch, Picture, ellipse, turned_box


def found(source: Source) -> bool:
    return bool(_files(source))


def _files(source: Source) -> list[Path]:
    return [path for path in near_files(source, '.xml') if starts_with(path, 'annotations')]


def read(source: Source) -> None:
    files = _files(source)
    if not files:
        raise UserError(f'{source.path} has no .xml with <annotations>')
    for path in files:
        try:
            root = read_xml(path)
        except ValueError as error:
            raise UserError(f'{path}: {error}') from None
        if root.find('track') is not None:
            raise UserError(f"{path}: this is 'CVAT for video'; export 'CVAT for images 1.1'")
        names = [
            item.findtext('name') for item in root.findall('meta//labels/label') if item.findtext('parent') is None
        ]
        source.ask_classes(list(dict.fromkeys([*source.labels.classes, *filter(None, names)])))
        for image in root.findall('image'):
            _read_image(image, path, source)


def _read_image(image: Any, path: Path, source: Source) -> None:
    name, file_name = source.name(path), image.get('name') or ''
    subset = image.get('subset') or ''
    split = SPLIT_NAMES.get(subset.lower())
    beside = path.parent / 'images'
    file = (source.picture(file_name, beside / subset, split) if subset else None) or source.picture(
        file_name, beside, split
    )
    if file is None:
        source.labels.lose(name, None, file_name, 'the picture is missing')
        return
    try:
        height, width = (int(value) for value in numbers([image.get('height'), image.get('width')]))
    except ValueError:
        height = width = 0
    picture = Picture(file, (height, width), split, source=name)
    shapes = sorted(enumerate(image, 1), key=lambda item: int(item[1].get('z_order') or 0))  # what lies below, first
    for place, shape in shapes:
        if shape.tag == 'tag':
            if picture.label not in (None, shape.get('label')):
                reason = f'the picture has the class {picture.label} already'
                source.labels.lose(name, None, f'tag {shape.get("label")} of {file_name}', reason)
            else:
                picture.label = shape.get('label')
            continue
        try:
            picture.objects.append(_object(shape, name))
        except (ValueError, TypeError) as error:
            source.labels.lose(name, None, f'{shape.tag} {place} of {file_name} ({shape.get("label")})', str(error))
    source.labels.pictures.append(picture)


def _object(shape: Any, file: str) -> Annotation:
    label = shape.get('label')
    if not label:
        raise ValueError('it has no label')
    group = shape.get('group_id')
    result = Annotation(label, group=None if group in (None, '', '0') else group, file=file)
    if shape.tag == 'box':
        x1, y1, x2, y2 = numbers([shape.get(side) for side in ('xtl', 'ytl', 'xbr', 'ybr')])
        angle = float(shape.get('rotation') or 0)
        if angle:
            result.polygons = [turned_box(x1, y1, x2, y2, angle)]
        else:
            result.box = [x1, y1, x2, y2]
    elif shape.tag == 'polygon':
        result.polygons = [numbers((shape.get('points') or '').replace(';', ',').split(','))]
    elif shape.tag == 'ellipse':
        cx, cy, rx, ry = numbers([shape.get(key) for key in ('cx', 'cy', 'rx', 'ry')])
        result.polygons = [ellipse(cx, cy, rx, ry, float(shape.get('rotation') or 0))]
    elif shape.tag == 'mask':
        result.patches = [_patch(shape)]
    else:
        raise ValueError(f'a {shape.tag} has no area')
    return result


def _patch(shape: Any) -> Patch:
    runs = np.array([int(word) for word in (shape.get('rle') or '').split(',')])
    left, top, width, height = (int(shape.get(key)) for key in ('left', 'top', 'width', 'height'))
    if runs.min() < 0 or runs.sum() != width * height:
        raise ValueError(f'the run lengths of its mask do not fill {width} x {height} pixels')
    return Patch(left, top, np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width))
