# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The folder or file that labels are imported from, and how files are found in it that the labels name."""

from __future__ import annotations

import functools
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmlightvit.data.probe import pictures_in
from mmlightvit.errors import UserError
from mmlightvit.pictures.objects import SPLIT_NAMES, LabelSet

#: Label Studio's exports name a picture with this in front.
_LABEL_STUDIO = re.compile(r'^[0-9a-f]{8}-')


@dataclass
class Source:
    """What is imported, and the set that a reader fills.

    Args:
        path: Folder or file, absolute.
        images: Folder of the pictures, where it is given.
        classes: Order and selection of classes, where they are given.
        labelmap: Names and colours of masks, where the file is given.
    """

    path: Path
    images: Path | None = None
    classes: list[str] | None = None
    labelmap: Path | None = None
    labels: LabelSet = field(default_factory=LabelSet)

    @property
    def folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def picture_root(self) -> Path:
        """Below it, pictures are looked for by their names."""
        if self.images:
            return self.images
        return self.folder.parent if self.path.is_file() and self.folder.name.lower() == 'annotations' else self.folder

    @functools.cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        # Beside predictions lie their drawings, which are no pictures to train on.
        drawn = self.folder / 'pictures' if (self.folder / 'predictions.json').is_file() else None
        for path in pictures_in(self.picture_root):
            if drawn in path.parents:
                continue
            found[path.name].append(path)
            found[path.stem + '.'].append(path)
        return found

    def picture(self, name: str, beside: Path, split: str | None = None) -> Path | None:
        """The picture that a label file calls ``name``, or None.

        Looked for below ``--images``, beside the label file, in a folder of the split, and then by its last part alone
        where only one picture is called so; with any ending, since tools state another one, and without Label Studio's
        prefix.

        Args:
            name: As written, with ``/`` or ``\\``, relative or not.
            beside: The folder of the label file.
            split: ``train``, ``val`` or ``test``.
        """
        name = name.replace('\\', '/').strip()
        bases = [self.images] if self.images else []
        bases += [beside, self.folder, *_split_folders(self.picture_root, split), Path.cwd()]
        for base in bases:
            path = Path(base, name)
            if name and path.is_file():
                return Path(os.path.normpath(path))
        last = name.rsplit('/', 1)[-1]
        short = without_prefix(last)
        for key in (last, short, last.rpartition('.')[0] + '.', short.rpartition('.')[0] + '.'):
            paths = self._by_name.get(key, []) if key != '.' else []
            if len(paths) == 1:
                return paths[0]
        return None

    def picture_of_stem(self, folder: Path, stem: str) -> Path | None:
        """The first picture in ``folder`` of this name with any ending."""
        paths = sorted(path for path in self._by_name.get(stem + '.', []) if path.parent == folder)
        return paths[0] if paths else None

    def ask_classes(self, names: Sequence[str]) -> None:
        """Take the order of the classes from the format."""
        self.labels.classes = list(names)
        self.labels.ordered = True

    def files(self, pattern: str) -> list[Path]:
        """Files of the source, sorted; hidden ones are passed over."""
        if self.path.is_file():
            return [self.path]
        return sorted(
            path
            for path in self.path.rglob(pattern)
            if path.is_file() and not any(part.startswith('.') for part in path.relative_to(self.path).parts)
        )

    def name(self, path: Path) -> str:
        """A path as the ledger says it."""
        return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)

    def split_of(self, path: Path) -> str | None:
        """The split that a folder on the way to ``path`` is named after."""
        parts = path.relative_to(self.folder).parts[:-1] if path.is_relative_to(self.folder) else ()
        return next((SPLIT_NAMES[part.lower()] for part in parts if part.lower() in SPLIT_NAMES), None)


def _split_folders(root: Path, split: str | None) -> Iterator[Path]:
    if split:
        for folder in (root, root / 'images'):
            if folder.is_dir():
                yield from sorted(
                    path for path in folder.iterdir() if path.is_dir() and path.name.lower().startswith(split)
                )


def near_files(source: Source, suffix: str) -> list[Path]:
    """Files of an ending in the source and one folder below, where a format shows itself."""
    if source.path.is_file():
        return [source.path] if source.path.suffix.lower() == suffix else []
    found = [path for pattern in ('*', '*/*') for path in source.path.glob(pattern) if path.suffix.lower() == suffix]
    return sorted(path for path in found if path.is_file() and not path.name.startswith('.'))


def starts_with(path: Path, tag: str) -> bool:
    """Whether an XML file's first element is ``tag``."""
    with path.open('rb') as file:
        start = file.read(4096)
    element = re.search(rb'<([A-Za-z_][\w.-]*)', start)
    return element is not None and element[1].decode() == tag


def without_prefix(name: str) -> str:
    """The name of a file before Label Studio put digits in front."""
    return _LABEL_STUDIO.sub('', name)


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte-order mark.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path}: it is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8'
        ) from None
    except OSError as error:
        raise UserError(f'{path}: it cannot be read: {error.strerror}') from None


def read_xml(path: Path) -> Any:
    """The root element of an XML file, read without entities.

    Raises:
        UserError: defusedxml is not installed.
        ValueError: The file is no XML, or defines entities; the message says so.
    """
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError:
        raise UserError('reading XML needs defusedxml: pip install "mmlightvit[data]"') from None
    try:
        return fromstring(path.read_bytes())
    except ParseError as error:
        raise ValueError(f'it is not XML: {error}') from None
    except DefusedXmlException as error:
        raise ValueError(f'it is refused, since it defines entities: {type(error).__name__}') from None
    except OSError as error:
        raise ValueError(f'it cannot be read: {error.strerror}') from None


def numbers(texts: Sequence[str | None]) -> list[float]:
    """Texts as finite numbers.

    Raises:
        ValueError: One is none.
    """
    out = []
    for text in texts:
        value = float(text if text is not None else 'nan')
        if value - value != 0:
            raise ValueError(f'{text!r} is not a finite number')
        out.append(value)
    return out
