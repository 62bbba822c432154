# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A prepared folder: what `mmlightvit data import` writes, and training, validation and reports read.

::

    dataset.json                         task, classes, splits, where the pictures are, where it came from
    annotations/{train,val,test}.json    detection, instance: COCO files
    {train,val,test}.txt                 classification: `path label`; segmentation: `path`, with labels/PATH.png
    lost.csv                             what was not taken: file, line, what, reason
    config.py                            runs with tools/train.py as it is
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmlightvit.data.source import read_text
from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.errors import UserError
from mmlightvit.pictures import coco
from mmlightvit.pictures.objects import Annotation, Picture
from mmlightvit.pictures.read import displayed_size
from mmlightvit.tasks import CLASSIFICATION, SPLITS, TASKS

FORMAT = 'mmlightvit-dataset/1'


@dataclass(frozen=True)
class DatasetFolder:
    """A prepared folder.

    Attributes:
        path: Absolute.
        task: ``classification``, ``detection``, ``instance`` or ``segmentation``.
        classes: Names; a class is its place among them, in COCO files its place + 1.
        images: Folder that the paths of pictures begin at, absolute.
        splits: Annotation file of each split, absolute.
        info: The content of ``dataset.json``.
    """

    path: Path
    task: str
    classes: tuple[str, ...]
    images: Path
    splits: dict[str, Path]
    info: dict[str, Any]

    @classmethod
    def load(cls, folder: str | os.PathLike) -> DatasetFolder:
        """Read ``dataset.json``.

        Raises:
            UserError: It is missing or not ours, or a file that it names is missing.
        """
        folder = Path(folder).expanduser().absolute()
        file = folder / 'dataset.json'
        if not file.is_file():
            raise UserError(
                f'{folder} is no prepared folder: it has no dataset.json; make one with mmlightvit data import'
            )
        try:
            info = json.loads(read_text(file))
            if info['format'] != FORMAT:
                raise UserError(f'{file}: its format is {info["format"]!r}, expected {FORMAT!r}')
            found = cls(
                folder,
                info['task'],
                tuple(info['classes']),
                folder / info['images'],
                {split: folder / item['file'] for split, item in info['splits'].items()},
                info,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f'{file}: it is no dataset.json of mmlightvit data import: {error!r}') from None
        for split, path in found.splits.items():
            if not path.is_file():
                raise UserError(f'{path}, the {split} labels of {folder}, is missing')
        return found

    @property
    def config(self) -> Path:
        """The config that trains on this folder."""
        return self.path / 'config.py'

    def file_of(self, split: str) -> Path:
        """The annotation file of a split.

        Raises:
            UserError: There is no such split.
        """
        if split not in self.splits:
            raise UserError(f'{self.path} has no split {split!r}; it has {", ".join(self.splits)}')
        return self.splits[split]

    def fold(self, number: int) -> DatasetFolder:
        """This folder with train and val of a fold, counted from 1.

        Raises:
            UserError: There is no such fold.
        """
        count = self.info.get('folds', 0)
        if not 1 <= number <= count:
            raise UserError(f'{self.path} has no fold {number}; it has {count}: mmlightvit data split DIR --folds K')
        files = {split: self.path / annotation_name(self.task, f'fold{number}_{split}') for split in ('train', 'val')}
        return DatasetFolder(self.path, self.task, self.classes, self.images, {**self.splits, **files}, self.info)

    def label_map(self, name: str) -> Path:
        """The label map of a picture that is called ``name`` in the list of a split."""
        return self.path / 'labels' / f'{name}.png'

    def pictures(self, split: str) -> list[Picture]:
        """The pictures of a split with their labels."""
        file = self.file_of(split)
        if TASKS[self.task].has_objects:
            content = coco.read(file)
            coco.complete(content, file, self.size_of)
            for line in coco.class_problems(content, file, self.classes):
                raise UserError(line)
            return self.of_content(content, split)
        out = []
        for line in read_text(file).splitlines():
            name, label = line.rsplit(' ', 1) if self.task == CLASSIFICATION else (line, None)
            picture = Picture(self.images / name, split=split, source=str(file))
            picture.label = self.classes[int(label)] if label is not None else None
            picture.label_map = self.label_map(name) if TASKS[self.task].has_label_map else None
            out.append(picture)
        return out

    def of_content(self, content: dict, split: str) -> list[Picture]:
        """The pictures of a COCO file's completed content."""
        by_id = {
            item['id']: Picture(self.images / item['file_name'], coco.size(item), split, source=str(self.splits[split]))
            for item in content['images']
        }
        names = {item['id']: item['name'] for item in content['categories']}
        for item in content['annotations']:
            label = names.get(item['category_id'])
            if label in self.classes:  # training leaves others out too
                by_id[item['image_id']].objects.append(Annotation.from_coco(item, label))
        return list(by_id.values())

    def size_of(self, item: dict) -> tuple[int, int] | None:
        """(height, width) of the picture of an image entry, as displayed; None where it cannot be read."""
        return displayed_size(self.images / item['file_name'])


def annotation_name(task: str, split: str) -> str:
    """The annotation file of a split, below the prepared folder."""
    return f'annotations/{split}.json' if TASKS[task].has_objects else f'{split}.txt'


def write_splits(folder: Path, task: str, classes: Sequence[str], root: Path, pictures: Sequence[Picture]) -> dict:
    """Write the annotation file of each split; what ``dataset.json`` says of them.

    Args:
        folder: The prepared folder.
        task, classes: Of the set.
        root: Folder that the pictures lie in, at any depth.
        pictures: Each with its split.
    """
    out = {}
    for split in SPLITS:
        chosen = [picture for picture in pictures if picture.split == split]
        if chosen:
            name = annotation_name(task, split)
            write_annotations(folder / name, task, classes, root, chosen)
            counts = {'pictures': len(chosen)}
            if TASKS[task].has_objects:
                counts['objects'] = sum(len(picture.objects) for picture in chosen)
            out[split] = {'file': name, **counts}
    return out


def write_annotations(path: Path, task: str, classes: Sequence[str], root: Path, pictures: Sequence[Picture]) -> None:
    """Write the annotation file of some pictures."""
    path.parent.mkdir(exist_ok=True)
    if TASKS[task].has_objects:
        text = coco.text(coco.content_of(classes, root, pictures))
    else:
        lines = [picture.path.relative_to(root).as_posix() for picture in pictures]
        if task == CLASSIFICATION:
            lines = [f'{name} {classes.index(picture.label)}' for name, picture in zip(lines, pictures)]
        text = ''.join(f'{line}\n' for line in lines)
    atomic_write(path, lambda file: file.write(text.encode()))


def write_info(folder: Path, info: dict[str, Any]) -> None:
    """Write ``dataset.json`` with the SHA-256 of every other file of the folder that is ours."""
    files = sorted(path for path in folder.rglob('*') if path.is_file() and path != folder / 'dataset.json')
    own = [path for path in files if path.relative_to(folder).parts[0] != 'images']
    digests = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in own}
    text = json.dumps({**info, 'files': digests}, indent=1, ensure_ascii=False) + '\n'
    atomic_write(folder / 'dataset.json', lambda file: file.write(text.encode()))
