# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""LabelMe: a JSON file per picture with shapes."""

from __future__ import annotations

import base64
import binascii
import io
import json
from typing import Any

import numpy as np
from PIL import Image

from mmlightvit.data.source import Source, near_files, numbers
from mmlightvit.errors import UserError
from mmlightvit.pictures.objects import Annotation, Patch, Picture, ellipse

_NOT_OBJECTS = ('__ignore__', '_background_')
_LINES = ('point', 'points', 'line', 'linestrip')


def found(source: Source) -> bool:
    return any(_is_labelme(path.read_bytes()) for path in near_files(source, '.json')[:3])


def _is_labelme(content: bytes) -> bool:
    return b'"shapes"' in content and b'"imagePath"' in content


def read(source: Source) -> None:
    for path in source.files('*.json'):
        name = source.name(path)
        try:
            content = json.loads(path.read_bytes().decode('utf-8-sig'))
        except (ValueError, OSError) as error:
            source.labels.lose(name, None, path.name, f'it is not JSON: {error}')
            continue
        if not isinstance(content, dict) or not isinstance(content.get('shapes'), list):
            source.labels.lose(name, None, path.name, 'it is no LabelMe file: it has no list of shapes')
            continue
        split = source.split_of(path)
        stated = content.get('imagePath')
        file = source.picture(stated, path.parent, split) if isinstance(stated, str) else None
        file = file or source.picture_of_stem(path.parent, path.stem) or source.picture(path.stem + '.', path.parent)
        if file is None:
            source.labels.lose(name, None, str(stated or path.stem), 'the picture is missing')
            continue
        height, width = content.get('imageHeight'), content.get('imageWidth')
        size = (int(height or 0), int(width or 0))
        picture = Picture(file, size, split, source=name)
        for place, shape in enumerate(content['shapes'], 1):
            try:
                picture.objects.append(_object(shape, name))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                label = shape.get('label') if isinstance(shape, dict) else shape
                source.labels.lose(name, None, f'shape {place} ({label})', str(error) or 'it is no shape')
        source.labels.pictures.append(picture)
    if not source.labels.pictures and not source.labels.lost:
        raise UserError(f'{source.path} has no .json file')


def _object(shape: dict[str, Any], file: str) -> Annotation:
    label = str(shape.get('label') or '').strip()
    if not label or label in _NOT_OBJECTS:
        raise ValueError('it marks no object' if label else 'it has no label')
    kind = shape.get('shape_type') or 'polygon'
    points = [numbers(point) for point in shape['points']]
    result = Annotation(label, group=shape.get('group_id'), file=file)
    if kind in _LINES:
        raise ValueError(f'a {kind} has no area')
    if kind in ('rectangle', 'mask') and len(points) == 2:
        (xa, ya), (xb, yb) = points
        result.box = [min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb)]
        if kind == 'mask':
            result.patches, result.box = [_patch(shape.get('mask'), result.box)], None
    elif kind == 'circle' and len(points) == 2:
        (x, y), rim = points
        radius = float(np.hypot(rim[0] - x, rim[1] - y))
        result.polygons = [ellipse(x, y, radius, radius)]
    elif len(points) >= 3:
        result.polygons = [[value for point in points for value in point]]
    else:
        raise ValueError(f'a {kind} of {len(points)} points')
    return result


def _patch(text: Any, box: Any) -> Patch:
    left, top = int(box[0]), int(box[1])
    try:
        with Image.open(io.BytesIO(base64.b64decode(text or '', validate=False))) as image:
            pixels = np.asarray(image) != 0
    except (OSError, binascii.Error, TypeError) as error:
        raise ValueError(f'its mask cannot be read: {error}') from None
    expected = (int(box[3]) - top + 1, int(box[2]) - left + 1)
    if pixels.shape != expected:
        raise ValueError(
            f'its mask is {pixels.shape[1]} x {pixels.shape[0]} pixels, expected {expected[1]} x {expected[0]}'
        )
    return Patch(left, top, pixels)
