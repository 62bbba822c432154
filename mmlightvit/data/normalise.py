# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What all formats share after reading: sizes, parts, clipping, areas, repetitions; the rest goes to the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmlightvit.data.probe import Probe
from mmlightvit.pictures.coco import polygon_area
from mmlightvit.pictures.masks import Masks, encode
from mmlightvit.pictures.objects import Annotation, LabelSet, Picture, bounds, draw_polygons, mask_pixels
from mmlightvit.tasks import TASKS

#: Far below what anybody draws, and enough for boxes to be read back as they were written.
_DIGITS = 4
#: Square pixels that rounding leaves of points on one line.
_NO_AREA = 1e-6


def normalise_labels(labels: LabelSet, probes: dict[Path, Probe], task: str, min_size: float) -> None:
    """Bring every picture and object to the form that is written; what cannot be is left out and named.

    Args:
        labels: Changed in place.
        probes: Of all its pictures.
        task: ``instance`` and ``segmentation`` need masks.
        min_size: Shortest side of a box in pixels, after clipping.
    """
    kept = []
    for picture in labels.pictures:
        probe = probes[picture.path]
        size = probe.annotated_size(picture.size)
        if probe.fault:
            labels.lose(picture.source, None, str(picture.path), with_objects(probe.fault, picture))
        elif size is None:
            stated = picture.size or (0, 0)
            reason = f'it is {probe.size[1]} x {probe.size[0]} pixels, but its label says {stated[1]} x {stated[0]}'
            labels.lose(picture.source, None, str(picture.path), with_objects(reason, picture))
        else:
            picture.size = size
            _normalise_objects(picture, labels, task, min_size)
            kept.append(picture)
    labels.pictures = kept


def with_objects(reason: str, picture: Picture) -> str:
    """Why a picture is left out, and what goes with it."""
    return f'{reason}; {len(picture.objects)} objects go with it' if picture.objects else reason


def _normalise_objects(picture: Picture, labels: LabelSet, task: str, min_size: float) -> None:
    kept: dict[Any, Annotation] = {}
    for item in _joined(picture.objects):
        what = f'{item.label} in {picture.path.name}'
        reason = _normalise(item, picture, min_size)
        if not reason and (TASKS[task].has_masks or TASKS[task].has_label_map) and not item.has_mask:
            reason = f'it has no mask, which {task} needs'
        key = (item.label, item.crowd, *_key(item))
        if not reason and key in kept:
            reason = 'the same object stands twice'
        if reason:
            labels.lose(item.file or picture.source, item.line, what, reason)
        else:
            kept[key] = item
    picture.objects = list(kept.values())


def _key(item: Annotation) -> tuple:
    mask = item.mask and str(item.mask['counts'])
    return tuple(np.round(item.box or (), 2)), tuple(tuple(part) for part in item.polygons), mask


def _joined(objects: list[Annotation]) -> list[Annotation]:
    """Objects, those of one label and group as one."""
    out: list[Annotation] = []
    groups: dict[Any, Annotation] = {}
    for item in objects:
        if item.group is None:
            out.append(item)
        elif (item.label, item.group) not in groups:
            groups[item.label, item.group] = item
            out.append(item)
        else:
            _join(groups[item.label, item.group], item)
    return out


def _join(one: Annotation, other: Annotation) -> None:
    if one.has_mask or other.has_mask:
        for item in (one, other):
            if item.box and not item.has_mask:  # a rectangle beside polygons is one of them
                x1, y1, x2, y2 = item.box
                item.polygons = [[x1, y1, x2, y1, x2, y2, x1, y2]]
            item.box = None
        one.polygons, one.patches = one.polygons + other.polygons, one.patches + other.patches
    elif one.box and other.box:
        one.box = bounds([one.box, other.box])
    one.crowd |= other.crowd


def _normalise(item: Annotation, picture: Picture, min_size: float) -> str | None:
    """Complete an object; the reason where it cannot be used."""
    height, width = picture.size or (0, 0)
    if picture.relative:
        item.box = item.box and [value * side for value, side in zip(item.box, (width, height) * 2)]
        item.polygons = [_scaled(part, width, height) for part in item.polygons]
    if item.polygons:
        sound = [
            part for part in item.polygons if len(part) >= 6 and len(part) % 2 == 0 and polygon_area(part) > _NO_AREA
        ]
        if not sound and not item.patches:
            points = len(item.polygons[0]) // 2
            return f'its polygon has {points} points' if points < 3 else 'its polygon has no area'
        item.polygons = [[round(value, _DIGITS) for value in part] for part in sound]
    if item.patches:
        _draw_mask(item, height, width)
    if item.box is None:
        item.box = bounds(item.polygons) if item.polygons else _mask_box(item.mask)
    if item.box is None:
        return 'its mask is empty or outside of the picture'
    x1, y1, x2, y2 = item.box
    # The value first, so that a whole number is written as one and 640.0 as 640.0, as it was read.
    x1, x2 = (min(max(value, 0), width) for value in (x1, x2))
    y1, y2 = (min(max(value, 0), height) for value in (y1, y2))
    if x2 <= x1 or y2 <= y1:
        return 'its box is outside of the picture'
    if x2 - x1 < min_size - 1e-6 or y2 - y1 < min_size - 1e-6:
        return f'its box is {x2 - x1:.3g} x {y2 - y1:.3g} pixels, under --min-size {min_size:g}'
    item.box = [round(value, _DIGITS) for value in (x1, y1, x2, y2)]
    if not item.area:
        item.area = round(_area(item), _DIGITS)
    return None


def _scaled(part: Sequence[float], width: int, height: int) -> list[float]:
    return [value * (height if place % 2 else width) for place, value in enumerate(part)]


def _area(item: Annotation) -> float:
    if item.polygons:
        return sum(polygon_area(part) for part in item.polygons)
    if item.mask:
        return float(mask_pixels(item.mask).sum())
    x1, y1, x2, y2 = item.box or (0, 0, 0, 0)
    return (x2 - x1) * (y2 - y1)


def _draw_mask(item: Annotation, height: int, width: int) -> None:
    """Run lengths of the whole picture from patches and polygons together."""
    pixels = draw_polygons(item.polygons, height, width)
    for left, top, patch in item.patches:
        y1, x1 = max(top, 0), max(left, 0)
        y2, x2 = min(top + patch.shape[0], height), min(left + patch.shape[1], width)
        if y2 > y1 and x2 > x1:
            pixels[y1:y2, x1:x2] |= patch[y1 - top : y2 - top, x1 - left : x2 - left]
    item.mask = {'size': [height, width], 'counts': encode(pixels)} if pixels.any() else None
    item.polygons, item.patches = [], []


def _mask_box(mask: dict | None) -> list[float] | None:
    if not mask:
        return None
    pixels, top, left = Masks([encode(mask_pixels(mask))], *mask['size']).window(0)
    return [left, top, left + pixels.shape[1], top + pixels.shape[0]] if pixels.any() else None


def label_map(picture: Picture, classes: Sequence[str], background: int) -> np.ndarray:
    """The class of each pixel, (H, W) uint8; later objects over earlier ones."""
    height, width = picture.size or (0, 0)
    out = np.full((height, width), background, np.uint8)
    for item in picture.objects:
        out[item.pixels(height, width)] = classes.index(item.label)
    return out


def select(labels: LabelSet, wanted: Sequence[str] | None) -> None:
    """Settle the classes: their names from the labels, order and selection by ``wanted``."""
    labels.name_classes()
    if wanted is None:
        return
    from mmlightvit.errors import UserError

    unknown = [name for name in wanted if name not in labels.classes]
    if unknown:
        raise UserError(f'--classes: no label is called {", ".join(unknown)}; there are {", ".join(labels.classes)}')
    dropped = [name for name in labels.classes if name not in wanted]
    if dropped:
        labels.notes.append(f'not chosen by --classes: {", ".join(dropped)}')
    labels.classes = list(wanted)
    kept = []
    for picture in labels.pictures:
        picture.objects = [item for item in picture.objects if item.label in wanted]
        if picture.label is None or picture.label in wanted:
            kept.append(picture)
    labels.pictures = kept
