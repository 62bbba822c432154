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

#: Why a file is left out that the source names or links to.
OUTSIDE = 'it lies outside of the source; --images FOLDER takes pictures from another folder'
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
        is_copied: Whether pictures are collected: then only the source and the user's word say where from.
    """

    path: Path
    images: Path | None = None
    classes: list[str] | None = None
    labelmap: Path | None = None
    is_copied: bool = False
    labels: LabelSet = field(default_factory=LabelSet)

    def __post_init__(self) -> None:
        self._named: set[Path] = set()
        self._below_here: set[Path] = set()

    def holds(self, path: Path) -> bool:
        """Whether a file or folder lies in the source or below ``images``, behind all links."""
        if path in self._below_here:
            return True
        real = Path(os.path.realpath(path))
        roots = (self.folder, self.picture_root, *([self.images] if self.images else []))
        return any(real.is_relative_to(_real_folder(root)) for root in roots)

    def admits(self, path: Path) -> bool:
        """The same; what lies outside goes to the ledger."""
        if self.holds(path):
            return True
        if path not in self._named:
            self._named.add(path)
            self.labels.lose(self.name(path), None, path.name, OUTSIDE)
        return False

    def pictures_in(self, folder: Path) -> Iterator[Path]:
        """The pictures of one of its folders; links to other folders are followed inside of the source alone."""
        return pictures_in(folder, follow=self.admits)

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
        for path in self.pictures_in(self.picture_root):
            if drawn in path.parents:
                continue
            found[path.name].append(path)
            found[path.stem + '.'].append(path)
        return found

    def picture(self, name: str, beside: Path, split: str | None = None) -> Path | None:
        """The picture that a label file calls ``name``, or None. One outside of the source is the last choice.

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
        here = Path.cwd()  # predictions say paths as they were given
        bases += [beside, self.folder, *_split_folders(self.picture_root, split), here]
        outside = None
        for base in bases:
            path = Path(os.path.normpath(Path(base, name)))
            if name and path.is_file():
                if base == here and not self.is_copied and _is_below(path, name, here):
                    self._below_here.add(path)
                if self.holds(path):
                    return path
                outside = path
        last = name.rsplit('/', 1)[-1]
        short = without_prefix(last)
        for key in (last, short, last.rpartition('.')[0] + '.', short.rpartition('.')[0] + '.'):
            paths = self._by_name.get(key, []) if key != '.' else []
            if len(paths) == 1:
                return paths[0]
        return outside

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
            if path.is_file()
            and not any(part.startswith('.') for part in path.relative_to(self.path).parts)
            and self.admits(path)
        )

    def name(self, path: Path) -> str:
        """A path as the ledger says it."""
        return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)

    def split_of(self, path: Path) -> str | None:
        """The split that a folder on the way to ``path`` is named after."""
        parts = path.relative_to(self.folder).parts[:-1] if path.is_relative_to(self.folder) else ()
        return next((SPLIT_NAMES[part.lower()] for part in parts if part.lower() in SPLIT_NAMES), None)


@functools.lru_cache
def _real_folder(path: Path) -> str:
    return os.path.realpath(path)


def _is_below(path: Path, name: str, folder: Path) -> bool:
    """Whether a relative name leads down alone, links too."""
    is_plain = not name.startswith('/') and '..' not in name.split('/')
    return is_plain and Path(os.path.realpath(path)).is_relative_to(_real_folder(folder))


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
    return sorted(path for path in found if path.is_file() and not path.name.startswith('.') and source.admits(path))


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
