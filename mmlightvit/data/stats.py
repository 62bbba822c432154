# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""`mmlightvit data stats`: how many of what there is in a prepared folder, as a table and as histograms."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmlightvit.data.folder import DatasetFolder
from mmlightvit.errors import UserError
from mmlightvit.pictures.objects import Picture
from mmlightvit.pictures.read import displayed_size
from mmlightvit.tasks import CLASSIFICATION, SEGMENTATION, TASKS

#: COCO's bounds of small and medium objects, in pixels of area.
_SMALL, _MEDIUM = 32**2, 96**2


def count(folder: DatasetFolder) -> dict[str, Any]:
    """Numbers of each split: pictures, objects, those of each class, sizes; of label maps the share of each class."""
    return {
        'task': folder.task,
        'classes': list(folder.classes),
        'splits': {split: _count(folder.pictures(split), folder) for split in folder.splits},
    }


def _count(pictures: list[Picture], folder: DatasetFolder) -> dict[str, Any]:
    objects = [item for picture in pictures for item in picture.objects]
    counts: dict[str, Any] = {'pictures': len(pictures)}
    sizes = Counter('{1} x {0}'.format(*(picture.size or _size(picture.path))) for picture in pictures)
    counts['picture_sizes'] = dict(sizes.most_common())
    if TASKS[folder.task].has_label_map:
        pixels = np.zeros(256, np.int64)
        present = np.zeros(256, np.int64)
        for picture in pictures:
            assert picture.label_map is not None
            with Image.open(picture.label_map) as image:
                histogram = np.array(image.histogram()[:256])
            pixels += histogram
            present += histogram > 0
        total = max(1, int(pixels.sum()))
        counts['pixel_share'] = {name: float(pixels[place]) / total for place, name in enumerate(folder.classes)}
        counts['pictures_per_class'] = {name: int(present[place]) for place, name in enumerate(folder.classes)}
        return counts
    within: Counter[str] = Counter()
    for picture in pictures:
        within.update({item.label for item in picture.objects} | ({picture.label} if picture.label else set()))
    counts['pictures_per_class'] = {name: within[name] for name in folder.classes}
    if folder.task == CLASSIFICATION:
        return counts
    per_class = Counter(item.label for item in objects)
    area = np.array([item.area or 0 for item in objects])
    counts['objects'] = len(objects)
    counts['crowds'] = sum(item.crowd for item in objects)
    counts['objects_per_class'] = {name: per_class[name] for name in folder.classes}
    counts['object_sizes'] = {
        'small': int((area < _SMALL).sum()),
        'medium': int(((area >= _SMALL) & (area < _MEDIUM)).sum()),
        'large': int((area >= _MEDIUM).sum()),
    }
    per_picture = Counter(len(picture.objects) for picture in pictures)
    counts['objects_per_picture'] = {str(number): per_picture[number] for number in sorted(per_picture)}
    return counts


def _size(path: Path) -> tuple[int, int]:
    size = displayed_size(path)
    if size is None:
        raise UserError(f'{path}: it cannot be read; mmlightvit check lists every problem')
    return size


def table(counts: dict[str, Any]) -> str:
    """The numbers as text: a row per class, a column per split."""
    splits = counts['splits']
    key = {SEGMENTATION: 'pixel_share', CLASSIFICATION: 'pictures_per_class'}.get(counts['task'], 'objects_per_class')
    width = max(len(name) for name in [*counts['classes'], 'pictures'])
    lines = [' '.join([f'{key.replace("_", " "):<{width}}', *(f'{split:>10}' for split in splits)])]
    for name in counts['classes']:
        values = [item[key][name] for item in splits.values()]
        cells = [f'{value:>10.2%}' if key == 'pixel_share' else f'{value:>10}' for value in values]
        lines.append(' '.join([f'{name:<{width}}', *cells]))
    lines.append(' '.join([f'{"pictures":<{width}}', *(f'{item["pictures"]:>10}' for item in splits.values())]))
    for kind in ('small', 'medium', 'large') if key == 'objects_per_class' else ():
        values = [f'{item["object_sizes"][kind]:>10}' for item in splits.values()]
        lines.append(' '.join([f'{kind:<{width}}', *values]))
    return '\n'.join(lines)


def draw(counts: dict[str, Any], out: Path) -> None:
    """Histograms of the numbers, one bar per split.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError('drawing needs matplotlib: pip install "mmlightvit[report]"; --json needs none') from None
    keys = ['pixel_share', 'objects_per_class', 'pictures_per_class', 'object_sizes', 'objects_per_picture']
    keys = [key for key in [*keys, 'picture_sizes'] if any(key in item for item in counts['splits'].values())]
    figure = Figure(figsize=(12, 3.2 * len(keys)), layout='constrained')
    for axes, key in zip(np.atleast_1d(figure.subplots(len(keys))), keys):
        names = list(dict.fromkeys(name for item in counts['splits'].values() for name in item.get(key, {})))[:40]
        step = 0.8 / len(counts['splits'])
        for number, (split, item) in enumerate(counts['splits'].items()):
            values = [item.get(key, {}).get(name, 0) for name in names]
            axes.bar(np.arange(len(names)) + number * step, values, step, label=split)
        axes.set_xticks(np.arange(len(names)) + 0.4 - step / 2, names, rotation=90 if len(names) > 8 else 0)
        axes.set_title(key.replace('_', ' '))
        axes.legend()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)
