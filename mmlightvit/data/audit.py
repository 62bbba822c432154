# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What a check says of labelled pictures, whatever they were read from: leaks between splits, tiny boxes, rare classes.

A prepared folder is checked here; a config in :mod:`mmlightvit.data.check`, which adds this to its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmlightvit.data.folder import DatasetFolder
from mmlightvit.data.probe import Probe, duplicates, probe_all
from mmlightvit.data.split import classes_of
from mmlightvit.pictures import coco
from mmlightvit.pictures.coco import some
from mmlightvit.pictures.objects import SPLITS, Picture
from mmlightvit.pictures.read import as_picture
from mmlightvit.tasks import TASKS

_TINY = 2.0
_RARE = 10
_RATIO = 20


@dataclass
class Report:
    """What a check found, in the order of reading.

    Args:
        problems: One line per fault, beginning with the split.
        refused: Those problems that a run refuses at once: paths that climb out.
        notes: Facts that may be meant.
        images: Image files read, label images not counted.
        leaks: Pairs of pictures in two splits, and whether they are the same or nearly.
    """

    problems: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    images: int = 0
    leaks: list[tuple[str, str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def check_folder(
    folder: DatasetFolder, probes: Mapping[Path, Probe] | None = None, splits: Collection[str] = SPLITS
) -> Report:
    """Read a prepared folder again: its labels against its pictures, and all of :func:`audit`.

    Args:
        folder: The folder.
        probes: Of its pictures, where they are known already.
        splits: Which of them.
    """
    report = Report()
    read: dict[str, list[Picture]] = {}
    for split, file in folder.splits.items():
        if split not in splits:
            continue
        if TASKS[folder.task].has_objects:
            content = coco.read(file)
            findings = coco.apply(content, folder.size_of, TASKS[folder.task].has_masks)
            report.problems += [f'{split}: {fault}' for fault in findings.unusable()]
            report.problems += [f'{split}: {line}' for line in coco.class_problems(content, file, folder.classes)]
            report.notes += [f'{split}: {note}' for note in findings.notes()]
            coco.leave_out(content, findings.unusable())
            read[split] = folder.of_content(content, split)
        else:
            read[split] = folder.pictures(split)
    known = dict(probes or {})
    wanted = {picture.path for pictures in read.values() for picture in pictures}
    known.update(probe_all(sorted(wanted - set(known))))
    for split, pictures in read.items():
        faults = {picture.path: _fault(picture, known[picture.path], len(folder.classes)) for picture in pictures}
        report.problems += [f'{split}: {path}: {fault}' for path, fault in faults.items() if fault]
        read[split] = [picture for picture in pictures if not faults[picture.path]]
    report.images = len(wanted)
    audit(read, known, folder.classes, report)
    return report


def _fault(picture: Picture, probe: Probe, classes: int) -> str | None:
    if probe.fault:
        return probe.fault
    if picture.size and not probe.annotated_size(picture.size):
        return (
            f'it is {probe.size[1]} x {probe.size[0]} pixels, but its label says {picture.size[1]} x {picture.size[0]}'
        )
    if picture.label_map:
        try:
            values = np.asarray(Image.open(picture.label_map))
        except OSError as error:
            return f'its label map {picture.label_map} cannot be read: {error}'
        if values.shape not in (probe.size, probe.stored):
            return f'its label map {picture.label_map} has another size'
        wrong = [int(value) for value in np.unique(values) if classes <= value != 255]
        if wrong:
            return (
                f'its label map {picture.label_map} holds the values {some(wrong)}; expected 0 to {classes - 1} or 255'
            )
    return None


def audit(
    splits: Mapping[str, Sequence[Picture]], probes: Mapping[Path, Probe], classes: Sequence[str], report: Report
) -> None:
    """Add leaks between splits as problems, and to the notes what makes training hard.

    Args:
        splits: Pictures with labels.
        probes: Of the pictures that can be read.
        classes: Names.
        report: Extended.
    """
    _leaks(splits, probes, report)
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


def _leaks(splits: Mapping[str, Sequence[Picture]], probes: Mapping[Path, Probe], report: Report) -> None:
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
            report.problems.append(f'{split} and {other_split} share {len(names)} pictures: {some(names)}')
        else:
            line = f'{split} and {other_split} have {len(names)} pairs of nearly the same picture: {some(names)}'
            report.notes.append(line)


def _same_pixels(one: Path, other: Path) -> bool:
    return np.array_equal(as_picture(one).pixels, as_picture(other).pixels)


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
