# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What the tests of imports share: pictures to label, and an import with what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import planted

from mmlightvit.data.folder import DatasetFolder
from mmlightvit.data.importer import Options, import_labels
from mmlightvit.pictures.objects import Loss

HEIGHT, WIDTH = 48, 64


def write_pictures(folder: Path, names: Iterable[str], start: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """Pictures that no hash takes for near-duplicates."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        planted.scene(start + place, *size).save(folder / name)


@dataclass
class Done:
    """An import, read back from the files that it wrote."""

    folder: DatasetFolder
    lost: list[Loss]
    notes: list[str]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.folder.classes

    def content(self, split: str) -> dict[str, Any]:
        return json.loads(self.folder.file_of(split).read_text('utf-8'))

    def objects(self, name: str) -> list[dict[str, Any]]:
        """The annotations of the picture that is called ``name``, in any split."""
        contents = [self.content(split) for split in self.folder.splits]
        return [
            item
            for content in contents
            for image in content['images']
            if image['file_name'].rsplit('/', 1)[-1] == name
            for item in content['annotations']
            if item['image_id'] == image['id']
        ]

    def split_of(self, name: str) -> str:
        found = [split for split in self.folder.splits if name in self.names(split)]
        assert len(found) == 1, (name, found)
        return found[0]

    def names(self, split: str) -> list[str]:
        return [picture.path.name for picture in self.folder.pictures(split)]

    def all_names(self) -> list[str]:
        return sorted(name for split in self.folder.splits for name in self.names(split))

    def label(self, item: dict[str, Any]) -> str:
        return self.classes[item['category_id'] - 1]

    def reasons(self, what: str) -> list[str]:
        """Why things that are called so were left out."""
        return [loss.reason for loss in self.lost if what in loss.what or what in loss.file]


def imported(source: Path, out: Path, **options: Any) -> Done:
    done = import_labels(source, out, Options(**options))
    return Done(done.folder, done.labels.lost, done.labels.notes)


def corners(item: dict[str, Any]) -> list[float]:
    x, y, w, h = item['bbox']
    return [x, y, x + w, y + h]
