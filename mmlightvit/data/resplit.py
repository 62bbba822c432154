# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""`mmlightvit data split`: other splits or folds of a prepared folder. Pictures are never moved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmlightvit.data import split
from mmlightvit.data.folder import DatasetFolder, annotation_name, write_annotations, write_info, write_splits
from mmlightvit.data.probe import probe_all
from mmlightvit.errors import UserError
from mmlightvit.pictures.objects import Picture


def write_split(
    path: Path, val: float, test: float | None, seed: int, group_by: str | None
) -> tuple[dict[str, int], list[str]]:
    """Divide train and val anew, and test too where its share is given; the pictures of each split, and notes.

    Raises:
        UserError: The shares are none, or the folder is not a prepared one.
    """
    if val < 0 or (test or 0) < 0 or val + (test or 0) >= 1:
        raise UserError(f'--val {val:g} --test {test or 0:g}: expected shares from 0 on, together under 1')
    folder = DatasetFolder.load(path)
    kept = folder.pictures('test') if 'test' in folder.splits and test is None else []
    pictures, present, group = _grouped(
        folder, [name for name in folder.splits if name != 'test' or not kept], group_by
    )
    for picture, name in zip(pictures, split.divide(present, group, val, test or 0, seed)):
        picture.split = name
    splits = write_splits(folder.path, folder.task, folder.classes, folder.images, pictures + kept)
    for name in set(folder.splits) - set(splits):
        folder.splits[name].unlink()
    groups = {'by': group_by, 'count': len(set(group))}
    write_info(folder.path, {**folder.info, 'splits': splits, 'seed': seed, 'groups': groups})
    notes = split.absences(pictures, present, folder.classes)
    return {name: item['pictures'] for name, item in splits.items()}, notes


def write_folds(path: Path, count: int, seed: int, group_by: str | None) -> list[str]:
    """Write ``fold{1..K}_{train,val}`` of all pictures but the test split's beside the splits; notes.

    Raises:
        UserError: There are fewer groups than folds, or the folder is not a prepared one.
    """
    if count < 2:
        raise UserError(f'--folds {count}: expected 2 or more')
    folder = DatasetFolder.load(path)
    pictures, present, group = _grouped(folder, [name for name in folder.splits if name != 'test'], group_by)
    notes = []
    for number, places in enumerate(split.folds(split.strata(present), group, count, seed), 1):
        chosen = set(places.tolist())
        for place, picture in enumerate(pictures):
            picture.split = 'val' if place in chosen else 'train'
        for name in ('train', 'val'):
            part = [picture for picture in pictures if picture.split == name]
            file = folder.path / annotation_name(folder.task, f'fold{number}_{name}')
            write_annotations(file, folder.task, folder.classes, folder.images, part)
        notes += [f'fold {number}: {note}' for note in split.absences(pictures, present, folder.classes)]
    write_info(folder.path, {**folder.info, 'folds': count})
    return notes


def _grouped(
    folder: DatasetFolder, names: Sequence[str], group_by: str | None
) -> tuple[list[Picture], list[set[str]], list[int]]:
    """Pictures of some splits, their classes and their groups."""
    pictures = [picture for name in names for picture in folder.pictures(name)]
    present = [split.classes_of(picture, folder.classes) for picture in pictures]
    probes = dict(probe_all({picture.path for picture in pictures}))
    return pictures, present, split.groups(pictures, probes, group_by)
