# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Pictures that stand in two splits, and what makes training hard: tiny boxes, rare classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmlightvit.data.probe import Probe, duplicates
from mmlightvit.data.rules import Report
from mmlightvit.data.split import classes_of
from mmlightvit.pictures.coco import some
from mmlightvit.pictures.objects import Picture
from mmlightvit.pictures.read import as_picture

_TINY = 2.0
_RARE = 10
_RATIO = 20


def find_leaks(splits: Mapping[str, Sequence[Picture]], probes: Mapping[Path, Probe], report: Report) -> None:
    """Name pictures that stand in two splits: the same ones as problems, nearly the same ones as notes.

    Args:
        splits: Pictures with labels.
        probes: Of the pictures.
        report: Extended.
    """
    entries = [
        (split, picture.path)
        for split, pictures in splits.items()
        for picture in pictures
        if picture.path in probes and not probes[picture.path].fault
    ]
    found: dict[tuple[str, str, bool], list[str]] = {}
    named: set[int] = set()  # a picture is named once, with the first that it is the same as
    for one, others, exact in duplicates([probes[path] for _, path in entries]):
        split, path = entries[one]
        for other, is_exact in sorted(zip(others.tolist(), exact.tolist()), key=lambda item: not item[1]):
            other_split, other_path = entries[other]
            if split == other_split or other in named:
                continue
            named.add(other)
            same = is_exact or _same_pixels(path, other_path)
            name = path.name if path == other_path else f'{path} and {other_path}'
            found.setdefault((split, other_split, same), []).append(name)
            report.leaks.append((str(path), str(other_path), 'same' if same else 'near'))
    for (split, other_split, same), names in found.items():
        if same:
            report.faults.append(f'{split} and {other_split} share {len(names)} pictures: {some(names)}')
        else:
            line = f'{split} and {other_split} have {len(names)} pairs of nearly the same picture: {some(names)}'
            report.notes.append(line)


def _same_pixels(one: Path, other: Path) -> bool:
    return np.array_equal(as_picture(one).pixels, as_picture(other).pixels)


def note_what_is_hard(
    splits: Mapping[str, Sequence[Picture]], probes: Mapping[Path, Probe], classes: Sequence[str], report: Report
) -> None:
    """Note tiny boxes, rare classes, and how many pictures EXIF turns.

    Args:
        splits: Pictures with labels.
        probes: Of the pictures that can be read.
        classes: Names.
        report: Extended.
    """
    for split, pictures in splits.items():
        tiny = [
            f'{picture.path.name} ({item.label})'
            for picture in pictures
            for item in picture.objects
            if item.box and min(item.box[2] - item.box[0], item.box[3] - item.box[1]) < _TINY
        ]
        if tiny:
            report.notes.append(f'{split}: {len(tiny)} boxes have a side under {_TINY:g} pixels: {some(tiny)}')
    _rare_classes(splits.get('train', ()), classes, report)
    read = [probes[picture.path] for pictures in splits.values() for picture in pictures if picture.path in probes]
    turned = sum(probe.turned for probe in read)
    if turned:
        report.notes.append(f'{turned} of {len(read)} pictures ({turned / len(read):.0%}) are turned by EXIF')


def _rare_classes(pictures: Sequence[Picture], classes: Sequence[str], report: Report) -> None:
    counts = Counter(dict.fromkeys(classes, 0))
    counts.update(item.label for picture in pictures for item in picture.objects if not item.crowd)
    what = 'objects'
    if not sum(counts.values()):
        what = 'pictures'
        counts.update(name for picture in pictures for name in classes_of(picture, classes))
    if not sum(counts.values()):
        return
    rare = [f'{name} ({counts[name]})' for name in classes if counts[name] < _RARE]
    if rare:
        report.notes.append(f'train: {len(rare)} of {len(classes)} classes have under {_RARE} {what}: {some(rare)}')
    present = [(count, name) for name, count in counts.items() if count]
    (least, rarest), (most, commonest) = min(present), max(present)
    if most >= _RATIO * least:
        report.notes.append(f'train: {commonest} has {most / least:.0f} times as many {what} as {rarest}')
