# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A CSV file with a class or a box a line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from mmlightvit.data.source import Source, near_files, numbers, read_text
from mmlightvit.errors import UserError
from mmlightvit.pictures.objects import SPLIT_NAMES, Annotation, Picture

#: What each column may be called.
_COLUMNS = {
    'path': ('path', 'filename', 'file', 'image'),
    'label': ('label', 'class'),
    'split': ('split',),
    'x1': ('x1', 'xmin'),
    'y1': ('y1', 'ymin'),
    'x2': ('x2', 'xmax'),
    'y2': ('y2', 'ymax'),
    'width': ('width',),
    'height': ('height',),
}
_BOX = ('x1', 'y1', 'x2', 'y2')


def found(source: Source) -> bool:
    return any(_header(path) for path in near_files(source, '.csv'))


def _header(path: Path) -> dict[str, int]:
    """Place of each column; empty where the header is not known."""
    with path.open(encoding='utf-8-sig', errors='replace', newline='') as file:
        names = [name.strip().lower() for name in next(csv.reader(file), [])]
    places = {
        column: next(names.index(name) for name in called if name in names)
        for column, called in _COLUMNS.items()
        if set(called) & set(names)
    }
    boxes = [side for side in _BOX if side in places]
    return places if 'path' in places and 'label' in places and len(boxes) in (0, 4) else {}


def read(source: Source) -> None:
    files = [path for path in near_files(source, '.csv') if _header(path)]
    if len(files) != 1:
        raise UserError(
            f'{source.path}: expected one .csv with the columns path,label or path,class,x1,y1,x2,y2, got {len(files)}'
        )
    path, name, places = files[0], source.name(files[0]), _header(files[0])
    pictures: dict[Path, Picture] = {}
    rows = csv.reader(io.StringIO(read_text(path)))
    next(rows)
    for row in rows:
        if not any(word.strip() for word in row):
            continue
        value = {column: row[place].strip() if place < len(row) else '' for column, place in places.items()}
        split = SPLIT_NAMES.get(value.get('split', '').lower())
        file = source.picture(value['path'], path.parent, split)
        if file is None:
            source.labels.lose(name, rows.line_num, value['path'], 'the picture is missing')
            continue
        picture = pictures.get(file)
        if picture is None:
            picture = pictures[file] = Picture(file, None, split, source=name)
            source.labels.pictures.append(picture)
        try:
            _read_row(value, picture, name, rows.line_num)
        except ValueError as error:
            source.labels.lose(name, rows.line_num, value['path'], str(error))


def _read_row(value: dict[str, str], picture: Picture, name: str, line: int) -> None:
    if 'x1' not in value:
        if not value['label']:
            raise ValueError('it has no label')
        if picture.label not in (None, value['label']):
            raise ValueError(f'the picture has the class {picture.label} already')
        picture.label = value['label']
        return
    if not any(value[side] for side in _BOX) and not value['label']:
        return  # a picture without objects
    if not value['label']:
        raise ValueError('it has no class')
    x1, y1, x2, y2 = numbers([value[side] for side in _BOX])
    picture.objects.append(
        Annotation(value['label'], [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)], file=name, line=line)
    )
