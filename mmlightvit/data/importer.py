# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""`mmlightvit data import`: labels of any format to a prepared folder. The source is never changed."""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmlightvit.data import formats, split
from mmlightvit.data.config_text import config_text
from mmlightvit.data.folder import FORMAT, DatasetFolder, write_info, write_splits
from mmlightvit.data.formats import masks
from mmlightvit.data.normalise import label_map, normalise_labels, select, with_objects
from mmlightvit.data.probe import Probe, probe_all
from mmlightvit.data.source import OUTSIDE, Source, read_text
from mmlightvit.errors import UserError
from mmlightvit.pictures.objects import LabelSet, Picture
from mmlightvit.tasks import CLASSIFICATION, DETECTION, INSTANCE, SEGMENTATION, TASKS

#: In these formats each picture has a label file, so one without is not labelled.
_FILE_PER_PICTURE = ('yolo', 'voc', 'labelme')


@dataclass(frozen=True)
class Options:
    """What the command line says; see ``mmlightvit data import --help``."""

    format: str = 'auto'
    task: str | None = None
    images: Path | None = None
    labelmap: Path | None = None
    classes: str | None = None
    split: str | None = None
    seed: int = 0
    group_by: str | None = None
    unlabelled: str | None = None
    copy: bool = False
    overwrite: bool = False
    min_size: float = 1.0


@dataclass(frozen=True)
class Imported:
    """What was written, and the probes of its pictures, for the check after it."""

    folder: DatasetFolder
    labels: LabelSet
    probes: dict[Path, Probe]


def import_labels(source_path: Path, out: Path, options: Options) -> Imported:
    """Read ``source_path`` and write the prepared folder ``out``.

    Raises:
        UserError: The source cannot be read, nothing is left of it, or ``out`` is in the way.
    """
    source_path, out = source_path.expanduser().absolute(), out.expanduser().absolute()
    if not source_path.exists():
        raise UserError(f'{source_path} does not exist')
    _refuse_out(source_path, out, options.overwrite)
    images = options.images.expanduser().absolute() if options.images else None
    if images and not images.is_dir():
        raise UserError(f'--images {images} is no folder')
    source = Source(source_path, images, class_list(options.classes), options.labelmap, options.copy)
    name = formats.detect(source) if options.format == 'auto' else options.format
    formats.module_of(name).read(source)
    labels = source.labels
    _unlabelled(source, name, options.unlabelled)
    if options.copy:
        source.images = images  # a prepared folder names that of its pictures, which is followed, but not to collect
    _leave_out_strangers(source)
    if name != 'masks':
        select(labels, source.classes)
    elif not labels.classes:
        labels.classes = list(source.classes or ())
    task = _task(labels, options.task)
    probes = dict(probe_all({picture.path for picture in labels.pictures}))
    normalise_labels(labels, probes, task, options.min_size)
    if task == CLASSIFICATION:
        _leave_out_unclassed(labels)
    if not labels.pictures:
        reasons = Counter(loss.reason for loss in labels.lost).most_common(1)
        why = f'; most often: {reasons[0][0]} (e.g. {_example(labels, reasons[0][0])})' if reasons else ''
        raise UserError(f'{source_path}: nothing is left to train on{why}')
    root = _root(source, [picture.path for picture in labels.pictures])
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{out.name}.', suffix='.incomplete', dir=out.parent) as temporary:
        folder = Path(temporary, 'folder')
        folder.mkdir()
        if TASKS[task].has_label_map:
            _write_label_maps(folder, labels, root, source, probes)
        present = [split.classes_of(picture, labels.classes) for picture in labels.pictures]
        grouped = _divide(labels, present, probes, options)
        splits = write_splits(folder, task, labels.classes, root, labels.pictures)
        if options.copy:
            for picture in labels.pictures:
                target = folder / 'images' / picture.path.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(picture.path, target)
        (folder / 'lost.csv').write_text(_lost_text(labels), encoding='utf-8', newline='')
        (folder / 'config.py').write_text(config_text(task, out), encoding='utf-8')
        info = {
            'format': FORMAT,
            'task': task,
            'classes': labels.classes,
            'images': 'images' if options.copy else str(root),
            'splits': splits,
            'source': {'path': str(source_path), 'format': name},
            'seed': options.seed,
            'groups': grouped,
            'lost': {'count': len(labels.lost), 'reasons': dict(Counter(loss.reason for loss in labels.lost))},
            'notes': labels.notes,
        }
        write_info(folder, info)
        if out.exists():
            shutil.rmtree(out) if out.is_dir() else out.unlink()
        os.rename(folder, out)
    written = DatasetFolder.load(out)
    return Imported(
        written,
        labels,
        {written.images / path.relative_to(root): probes[path] for path in probes if path.is_relative_to(root)},
    )


def class_list(text: str | None) -> list[str] | None:
    """``--classes``: a file with a name a line, or names with commas between."""
    if text is None:
        return None
    file = Path(text).expanduser()
    words = read_text(file).splitlines() if file.is_file() else text.split(',')
    names = [word.strip() for word in words if word.strip()]
    if not names or len(set(names)) < len(names):
        raise UserError(f'--classes {text}: expected different names, a,b,c or a file with one a line')
    return names


def _refuse_out(source: Path, out: Path, overwrite: bool) -> None:
    if out == source or out in source.parents:
        raise UserError(f'--out {out} would replace the source {source}; name another folder')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not overwrite:
            raise UserError(f'--out {out} exists and is not empty; name another folder, or add --overwrite')
        if not (out / 'dataset.json').is_file():
            raise UserError(
                f'--out {out} is no prepared folder, so --overwrite does not remove it; name another folder'
            )


def _unlabelled(source: Source, name: str, choice: str | None) -> None:
    """Pictures without a label file: left out, or pictures without objects."""
    if name not in _FILE_PER_PICTURE:
        return
    labels = source.labels
    choice = choice or ('negative' if name == 'yolo' else 'leave-out')
    if name != 'yolo':
        known = {picture.path for picture in labels.pictures}
        sources = {Path(loss.what).name for loss in labels.lost}
        for path in source.pictures_in(source.picture_root):
            if path not in known and path.name not in sources and not _is_mask_folder(path, source):
                labels.pictures.append(Picture(path, split=source.split_of(path), relative=True))
    kept = []
    for picture in labels.pictures:
        if picture.source or choice == 'negative':
            kept.append(picture)
        else:
            labels.lose(source.name(picture.path), None, picture.path.name, 'it has no label file')
    labels.pictures = kept


def _leave_out_strangers(source: Source) -> None:
    """Whatever a label file, a list or a link says: pictures and masks come from the source or ``--images`` alone."""
    kept = []
    for picture in source.labels.pictures:
        if source.holds(picture.path) and (picture.label_map is None or source.holds(picture.label_map)):
            kept.append(picture)
        else:
            what = str(picture.path)
            source.labels.lose(picture.source or what, None, what, with_objects(OUTSIDE, picture))
    source.labels.pictures = kept


def _is_mask_folder(path: Path, source: Source) -> bool:
    """Whether a picture stands among VOC's masks, which are labels."""
    return any(part.startswith('Segmentation') for part in path.relative_to(source.picture_root).parts)


def _task(labels: LabelSet, asked: str | None) -> str:
    found = labels.task()
    allowed = {
        SEGMENTATION: (SEGMENTATION,),
        INSTANCE: (INSTANCE, DETECTION, SEGMENTATION),
        DETECTION: (DETECTION,),
        CLASSIFICATION: (CLASSIFICATION,),
    }[found]
    if any(picture.label is not None for picture in labels.pictures):
        allowed += (CLASSIFICATION,)
    if asked and asked not in allowed:
        raise UserError(f'--task {asked}: these labels allow {" and ".join(name for name in TASKS if name in allowed)}')
    return asked or found


def _leave_out_unclassed(labels: LabelSet) -> None:
    for picture in labels.pictures:
        if picture.label is None:
            labels.lose(picture.source, None, picture.path.name, 'it has no class')
    labels.pictures = [picture for picture in labels.pictures if picture.label is not None]
    used = {picture.label for picture in labels.pictures}
    if labels.classes and not used & set(labels.classes):
        labels.classes = sorted(name for name in used if name)


def _example(labels: LabelSet, reason: str) -> str:
    loss = next(loss for loss in labels.lost if loss.reason == reason)
    return f'{loss.file}: {loss.what}'


def _root(source: Source, paths: Sequence[Path]) -> Path:
    """The folder that the written paths begin at."""
    for folder in (source.images, source.folder):
        if folder and all(path.is_relative_to(folder) for path in paths):
            return folder
    return Path(os.path.commonpath([path.parent for path in paths]))


def _write_label_maps(folder: Path, labels: LabelSet, root: Path, source: Source, probes: dict[Path, Probe]) -> None:
    """8-bit label maps under ``labels/``."""
    drawn = not any(picture.label_map for picture in labels.pictures)
    if drawn and 'background' not in labels.classes:
        labels.classes = ['background', *labels.classes]
    names, places = (labels.classes, {}) if drawn else masks.colours(source)
    kept, seen = [], np.zeros(256, np.int64)
    for picture in labels.pictures:
        try:
            if drawn:
                values = label_map(picture, labels.classes, labels.classes.index('background'))
            elif picture.label_map:
                values = masks.read_mask(picture.label_map, names, places)
            else:
                raise ValueError('it has no mask')
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            labels.lose(picture.source, None, picture.path.name, str(error))
            continue
        if values.shape not in (probes[picture.path].size, probes[picture.path].stored):
            height, width = probes[picture.path].size
            raise UserError(
                f'{picture.label_map}: it is {values.shape[1]} x {values.shape[0]} pixels, '
                f'its picture {width} x {height}'
            )
        seen += np.bincount(values.ravel(), minlength=256)
        target = folder / 'labels' / f'{picture.path.relative_to(root).as_posix()}.png'
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(target)
        picture.label_map = target
        kept.append(picture)
    labels.pictures = kept
    if not drawn and seen[masks.IGNORE] and not seen[1 : masks.IGNORE].any():
        raise UserError(
            'the masks hold 0 and 255 alone, and 255 means "ignore", so nothing would be learnt; say what 255 is by '
            '--labelmap FILE with the lines background:0,0,0:: and NAME:255,255,255::'
        )


def _divide(labels: LabelSet, present: list[set[str]], probes: dict[Path, Probe], options: Options) -> dict:
    """Give every picture a split; what ``dataset.json`` says of the groups."""
    pictures = labels.pictures
    stated = {picture.split for picture in pictures}
    known = stated - {None}
    if options.split is None and 'val' in known:
        for picture in pictures:
            picture.split = picture.split or 'train'
        return {'by': None, 'count': None}
    open_places = [place for place, picture in enumerate(pictures) if options.split or picture.split in (None, 'train')]
    chosen = [pictures[place] for place in open_places]
    group = split.groups(chosen, probes, options.group_by)
    val, test = split.shares(options.split or '0.8,0.2')
    names = split.divide([present[place] for place in open_places], group, val, test, options.seed)
    for picture, name in zip(chosen, names):
        picture.split = name
    labels.notes += split.absences(pictures, present, labels.classes)
    if val and 'val' not in names:
        labels.notes.append('all pictures are one group, so there is no val split')
    return {'by': options.group_by, 'count': len(set(group))}


def _lost_text(labels: LabelSet) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(('file', 'line', 'what', 'reason'))
    writer.writerows(labels.lost)
    return text.getvalue()
