# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Pascal VOC: an XML file per picture. Corners are counted from 1 and belong to the box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmlightvit.data.source import Source, near_files, numbers, read_text, read_xml, starts_with
from mmlightvit.pictures.objects import Annotation, Picture


def found(source: Source) -> bool:
    return any(starts_with(path, 'annotation') for path in near_files(source, '.xml')[:3])


def read(source: Source) -> None:
    splits = _image_sets(source)
    zero_based = False
    for path in source.files('*.xml'):
        name = source.name(path)
        try:
            root = read_xml(path)
        except ValueError as error:
            source.labels.lose(name, None, path.name, str(error))
            continue
        if root.tag != 'annotation':
            source.labels.lose(name, None, path.name, f'it is <{root.tag}>, not <annotation>')
            continue
        split = splits.get(path.stem) if splits else source.split_of(path)
        if splits and split is None:
            source.labels.lose(name, None, path.name, 'no list in ImageSets/Main names it')
            continue
        file = _picture(root, path, source, split)
        if file is None:
            source.labels.lose(name, None, root.findtext('filename') or path.stem, 'the picture is missing')
            continue
        picture = Picture(file, _size(root), split, source=name)
        for place, item in enumerate(root.findall('object'), 1):
            try:
                picture.objects.append(_object(item, name, place))
            except ValueError as error:
                source.labels.lose(name, None, f'object {place} ({item.findtext("name")})', str(error))
        zero_based |= any(0 in item.box[:2] for item in picture.objects if item.box)
        source.labels.pictures.append(picture)
    if zero_based:
        source.labels.notes.append('corners are taken as counted from 0, since some are 0')
        return
    for picture in source.labels.pictures:
        for item in picture.objects:
            if item.box:
                x1, y1, x2, y2 = item.box
                item.box = [x1 - 1, y1 - 1, x2, y2]


def _image_sets(source: Source) -> dict[str, str]:
    """Split of each stem; empty where there are no lists."""
    splits: dict[str, str] = {}
    for name, split in (('trainval', 'train'), ('train', 'train'), ('val', 'val'), ('test', 'test')):
        for file in sorted(source.folder.glob(f'**/ImageSets/*/{name}.txt')):
            splits.update({line.split()[0]: split for line in read_text(file).splitlines() if line.strip()})
    return splits


def _picture(root: Any, path: Path, source: Source, split: str | None) -> Path | None:
    for folder in (path.parent, path.parent.parent / 'JPEGImages', path.parent.parent / 'images'):
        file = source.picture_of_stem(folder, path.stem)
        if file:
            return file
    return source.picture(root.findtext('filename') or '', path.parent, split) or source.picture(
        path.stem, path.parent, split
    )


def _size(root: Any) -> tuple[int, int]:
    texts = [root.findtext(f'size/{side}') for side in ('height', 'width')]
    try:
        height, width = (int(value) for value in numbers(texts))
    except ValueError:
        return 0, 0
    return height, width


def _object(item: Any, file: str, place: int) -> Annotation:
    label = (item.findtext('name') or '').strip()
    if not label:
        raise ValueError('it has no name')
    result = Annotation(label, crowd=(item.findtext('difficult') or '0').strip() == '1', file=file, line=None)
    box, polygon = item.find('bndbox'), item.find('polygon')
    if box is not None:
        x1, y1, x2, y2 = numbers([box.findtext(side) for side in ('xmin', 'ymin', 'xmax', 'ymax')])
        result.box = [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]
    if polygon is not None:
        points = [(f'x{number}', f'y{number}') for number in range(1, len(polygon) // 2 + 1)]
        result.polygons = [numbers([polygon.findtext(key) for point in points for key in point])]
    if box is None and polygon is None:
        raise ValueError('it has neither bndbox nor polygon')
    return result
