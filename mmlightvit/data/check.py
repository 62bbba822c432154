# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Reading all the data of a config or of a prepared folder before training does, and saying every problem.

The rules are those of :mod:`mmlightvit.data.rules`, which a run holds too (:mod:`mmlightvit.data.run_check`), as does
the data guard (:func:`check_annotations`); here every picture is read beside.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmlightvit.data import rules
from mmlightvit.data.data_root import leaf_datasets
from mmlightvit.data.datasets import CLASSES, COCO, LABEL_MAPS, DataSet, open_data_set
from mmlightvit.data.folder import DatasetFolder
from mmlightvit.data.leaks import find_leaks, note_what_is_hard
from mmlightvit.data.probe import Probe, Progress, in_threads, no_progress, probe, probe_all
from mmlightvit.data.rules import Part, Report
from mmlightvit.durable.images import BadSample, decode, fetch, read_header
from mmlightvit.errors import UserError
from mmlightvit.pictures import coco
from mmlightvit.pictures.coco import some
from mmlightvit.pictures.objects import Annotation, Picture
from mmlightvit.tasks import SPLITS, TASKS


class _LabelMap(NamedTuple):
    """What reading a label map told: a fault, or its size and the values that occur."""

    fault: str | None = None
    size: tuple[int, ...] = ()
    values: tuple[int, ...] = ()


def check_config(cfg: Config, splits: Sequence[str] = SPLITS, progress: Progress = no_progress) -> Report:
    """Read all the data that a config names.

    Args:
        cfg: A config of detection, classification or segmentation; its toolbox is imported.
        splits: Which of ``train``, ``val`` and ``test``. Data that two splits share are read once.
        progress: Shows how far the reading is.

    Returns:
        The problems, empty where the data are good, and notes.

    Raises:
        UserError: The config names no data for these splits.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    report, parts, first = Report(), [], dict[str, str]()
    named = [(name, entry) for name in splits for entry in leaf_datasets(cfg, name)]
    for split, entry in named:
        try:
            data = open_data_set(entry, split, cfg)
        except UserError as error:
            report.refused.append(str(error))
            continue
        if first.setdefault(data.same_data(), split) == split:
            parts.append(Part(data, with_mask=data.loads_masks))
        else:
            report.notes.append(f'{split}: the same data as {first[data.same_data()]}')
    if not parts and not report.refused:
        raise UserError(f'the config names no data for {", ".join(splits)}: it has no dataloader with a dataset')
    rules.check_model(cfg, report)
    for part in parts:
        rules.read_labels(part)
    jobs = [(item.image, item.label, part.data) for part in parts for item in part.named]
    probes, maps = _read_pictures(jobs, progress)
    for part in parts:
        _check_label_maps(part, probes, maps)
        rules.check_labels(part, probes)
        if part is parts[0]:
            rules.check_fit(cfg, part.data, part.report)
        report.add(part.data.split, part.report)
    _compare_folders(parts, report)
    read: dict[str, list[Picture]] = {}
    for part in parts:
        if part.data.is_local:
            read.setdefault(part.data.split, []).extend(_pictures(part))
    known = {Path(path): found for path, found in probes.items()}
    find_leaks(read, known, report)
    note_what_is_hard(read, known, (), report)
    return report


def check_annotations(dataset: Any) -> Report:
    """What a COCO annotation file tells without its pictures; nothing for data sets of another kind.

    Args:
        dataset: As built; mmdet's ``CocoDataset`` or a child of it.
    """
    part = Part(DataSet(dataset, 'train'))
    if part.data.kind == COCO:
        rules.read_labels(part)
        outside = list(part.report.refused)
        rules.check_labels(part)
        found = part.report
        found.refused, found.faults = outside, [*found.refused[len(outside) :], *found.faults]
    return part.report


# Pictures -------------------------------------------------------------------------------------------------------------


def _read_pictures(
    jobs: Sequence[tuple[str, str | None, DataSet]], progress: Progress
) -> tuple[dict[str, Probe], dict[str, _LabelMap]]:
    """Every picture and label map, each once, by its path."""
    wanted = {(image, label): data for image, label, data in jobs}

    def look(pair: tuple[str, str | None]) -> tuple[Probe, _LabelMap | None]:
        image, label = pair
        found = probe(Path(image), wanted[pair].backend_args, wanted[pair].max_pixels)
        return found, None if found.fault or not label else _read_label_map(label, wanted[pair].backend_args)

    probes, maps = {}, {}
    for (image, label), (found, label_map) in in_threads(look, list(wanted), progress, 'images'):
        probes[image] = found
        if label and label_map is not None:
            maps[label] = label_map
    return probes, maps


def _read_label_map(label: str, backend_args: dict | None) -> _LabelMap:
    try:
        content = fetch(label, backend_args)
        mode = read_header(content).mode
        if mode not in ('L', 'P', '1'):
            raise BadSample(f'its mode is {mode}, expected 8-bit class indices (L or P)')
        labels = decode(content, 'unchanged', 'pillow')
    except BadSample as error:
        return _LabelMap(str(error))
    values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    return _LabelMap(None, labels.shape, tuple(values.tolist()))


def _check_label_maps(part: Part, probes: Mapping[str, Probe], maps: Mapping[str, _LabelMap]) -> None:
    data, report = part.data, part.report
    pairs = [(item.image, item.label) for item in part.named if item.label in maps]
    if data.kind != LABEL_MAPS or not part.named:
        return
    seen = np.zeros(256, bool)
    for image, label in pairs:
        report.faults += _label_map_problem(data, str(label), probes[image], maps[str(label)])
        seen[list(maps[str(label)].values)] = True
    rules.check_values(data, seen, report)
    names = data.own_classes or data.classes
    values = enumerate(names, int(data.built.reduce_zero_label))
    absent = [name for value, name in values if value < len(seen) and not seen[value]]
    if absent:
        report.notes.append(f'{data.labels}: {len(absent)} of {len(names)} classes have no pixel: {some(absent)}')


def _label_map_problem(data: DataSet, label: str, found: Probe, label_map: _LabelMap) -> list[str]:
    if label_map.fault:
        return [f'{label}: {label_map.fault}']
    if label_map.size not in (found.size, found.stored):
        (height, width), (own_height, own_width) = found.size, label_map.size
        return [f'{label}: it is {own_width} x {own_height} pixels, its image {width} x {height}']
    classes, shift = len(data.own_classes or data.classes), data.built.reduce_zero_label
    allowed = {*range(classes + shift), data.built.ignore_index}
    wrong = [value for value in label_map.values if value not in allowed]
    if not classes or not wrong:
        return []
    return [
        f'{label}: it holds the values {some(wrong)}; expected {"0 for no class, then 1" if shift else "0"} to '
        f'{classes - 1 + shift}, or {data.built.ignore_index} for pixels to ignore'
    ]


def _pictures(part: Part) -> list[Picture]:
    """What to look for in other splits, and whose objects to count."""
    if part.content is None:
        return [Picture(Path(item.image)) for item in part.named]
    by_id = {item['id']: Picture(Path(part.data.images, item['file_name'])) for item in part.content['images']}
    names = {item['id']: item['name'] for item in part.content['categories']}
    for item in part.content['annotations']:
        x, y, w, h = item['bbox']
        label = names.get(item['category_id'], '')
        by_id[item['image_id']].objects.append(Annotation(label, [x, y, x + w, y + h], crowd=bool(item['iscrowd'])))
    return list(by_id.values())


def _compare_folders(parts: Sequence[Part], report: Report) -> None:
    """Class folders that name the classes are the same in all splits."""
    named = [part.data for part in parts if part.data.kind == CLASSES and not part.data.built.metainfo.get('classes')]
    for data in named[1:]:
        if data.classes != named[0].classes:
            report.faults.append(
                f'{data.split}: its class folders are {some(data.classes)}, those of {named[0].split} '
                f'{some(named[0].classes)}'
            )


# Prepared folders -----------------------------------------------------------------------------------------------------


def check_folder(
    folder: DatasetFolder, probes: Mapping[Path, Probe] | None = None, splits: Collection[str] = SPLITS
) -> Report:
    """Read a prepared folder again: its labels against its pictures, leaks, and what makes training hard.

    Args:
        folder: The folder.
        probes: Of its pictures, where they are known already.
        splits: Which of them.
    """
    report = Report()
    read: dict[str, list[Picture]] = {}
    for split, file in folder.splits.items():
        if split in splits:
            read[split] = _read_split(folder, split, file, report)
    known = dict(probes or {})
    wanted = {picture.path for pictures in read.values() for picture in pictures}
    known.update(probe_all(sorted(wanted - set(known))))
    for split, pictures in read.items():
        faults = {picture.path: _fault(picture, known[picture.path], len(folder.classes)) for picture in pictures}
        report.faults += [f'{split}: {path}: {fault}' for path, fault in faults.items() if fault]
        read[split] = [picture for picture in pictures if not faults[picture.path]]
    report.images = len(wanted)
    find_leaks(read, known, report)
    note_what_is_hard(read, known, folder.classes, report)
    return report


def _read_split(folder: DatasetFolder, split: str, file: Path, report: Report) -> list[Picture]:
    """The pictures of a split whose labels can be used."""
    if not TASKS[folder.task].has_objects:
        return folder.pictures(split)
    content = coco.read(file)
    findings = coco.apply(content, folder.size_of, TASKS[folder.task].has_masks)
    report.faults += [f'{split}: {fault}' for fault in findings.unusable()]
    report.faults += [f'{split}: {line}' for line in coco.class_problems(content, file, folder.classes)]
    report.notes += [f'{split}: {note}' for note in findings.notes()]
    coco.leave_out(content, findings.unusable())
    if split == 'train' and (nothing := coco.nothing_to_learn(content, file, folder.classes)):
        report.refused.append(f'{split}: {nothing}')
    return folder.of_content(content, split)


def _fault(picture: Picture, found: Probe, classes: int) -> str | None:
    if found.fault:
        return found.fault
    if picture.size and not found.annotated_size(picture.size):
        (height, width), (stated_height, stated_width) = found.size, picture.size
        return f'it is {width} x {height} pixels, but its label says {stated_width} x {stated_height}'
    if picture.label_map is None:
        return None
    what = f'its label map {picture.label_map}'
    try:
        values = np.asarray(Image.open(picture.label_map))
    except OSError as error:
        return f'{what} cannot be read: {error}'
    if values.shape not in (found.size, found.stored):
        return f'{what} has another size'
    wrong = [int(value) for value in np.unique(values) if classes <= value != 255]
    return f'{what} holds the values {some(wrong)}; expected 0 to {classes - 1} or 255' if wrong else None
