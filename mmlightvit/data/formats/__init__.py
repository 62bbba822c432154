# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The formats that labels are read from: one module each, with ``found(source)`` and ``read(source)``.

A further format is a module here and a line in the table. ``found`` says whether a folder or file looks like it;
``read`` fills ``source.labels``. What all formats share, such as clipping, is the import's.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from mmlightvit.errors import UserError

if TYPE_CHECKING:
    from mmlightvit.data.source import Source

#: Name on the command line -> module, and what it looks like.
FORMATS = {
    'coco': ('coco', 'a .json with images, annotations and categories'),
    'yolo': ('yolo', 'a .yaml with names, or classes.txt beside labels/'),
    'voc': ('voc', '.xml files with <annotation>'),
    'labelme': ('labelme', '.json files with shapes and imagePath'),
    'cvat': ('cvat', 'an .xml with <annotations>'),
    'masks': ('masks', 'folders images/ and masks/ (or labels/) of equal names'),
    'folders': ('class_folders', 'a folder of pictures per class'),
    'csv': ('csv_file', 'a .csv with path,label or path,class,x1,y1,x2,y2'),
}


def module_of(name: str) -> ModuleType:
    return importlib.import_module(f'{__name__}.{FORMATS[name][0]}')


def detect(source: Source) -> str:
    """The format of a source.

    Raises:
        UserError: It has none or several.
    """
    if source.path.suffix.lower() == '.zip':
        raise UserError(f'{source.path} is packed; unpack it (unzip {source.path.name} -d FOLDER) and name the folder')
    matches = [name for name in FORMATS if module_of(name).found(source)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(f'{source.path} looks like {" and ".join(matches)}; choose one by --format')
    known = '; '.join(f'{name}: {look}' for name, (_, look) in FORMATS.items())
    raise UserError(f'{source.path} looks like no known format; --format takes it for one. {known}')
