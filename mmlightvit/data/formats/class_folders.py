# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A folder of pictures for each class, below folders of the splits or not."""

from __future__ import annotations

from pathlib import Path

from mmlightvit.data.probe import pictures_in
from mmlightvit.data.source import Source
from mmlightvit.errors import UserError
from mmlightvit.pictures.objects import SPLIT_NAMES, Picture

_LABELS = frozenset({'.json', '.xml', '.csv', '.yaml', '.yml', '.txt'})


def found(source: Source) -> bool:
    if not source.path.is_dir():
        return False
    top = [path for path in source.path.iterdir() if not path.is_symlink() or source.admits(path)]
    near = [path for folder in (top, *(path.iterdir() for path in top if path.is_dir())) for path in folder]
    near = [path for path in near if not path.name.startswith('.')]
    if any(path.suffix.lower() in _LABELS and not path.stem.lower().startswith(('readme', 'licen')) for path in near):
        return False
    from mmlightvit.data.formats import masks

    if masks.found(source):
        return False
    return any(path.is_dir() and next(source.pictures_in(path), None) for path in near)


def read(source: Source) -> None:
    top = _folders(source.path)
    splits = {path: SPLIT_NAMES[path.name.lower()] for path in top if path.name.lower() in SPLIT_NAMES}
    parents: dict[Path, str | None] = dict(splits) if splits else {source.path: None}
    if splits:
        for path in top:
            if path not in splits:
                source.labels.lose(path.name, None, path.name, 'it stands beside folders of splits and is none')
    for parent, split in parents.items():
        for path in pictures_in(parent, recursive=False):
            source.labels.lose(source.name(path), None, path.name, 'it is in no class folder')
        for folder in _folders(parent):
            paths = list(source.pictures_in(folder)) if source.admits(folder) else []
            if not paths:
                source.labels.lose(source.name(folder), None, folder.name, 'the class has no picture')
            for path in paths:
                source.labels.pictures.append(Picture(path, None, split, label=folder.name, source=source.name(path)))
    if not source.labels.pictures:
        raise UserError(f'{source.path} has no class folder with pictures')


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith('.'))
