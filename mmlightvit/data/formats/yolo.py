# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""YOLO: a text file per picture with boxes or polygons as shares of its width and height."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmlightvit.data.probe import is_picture
from mmlightvit.data.source import OUTSIDE, Source, near_files, numbers, read_text, without_prefix
from mmlightvit.errors import UserError
from mmlightvit.pictures.objects import SPLIT_NAMES, Annotation, Picture

#: Rounding leaves [0, 1] by a little.
_OUTSIDE = 0.01


def found(source: Source) -> bool:
    return bool(_yaml_files(source)) or bool(_names_file(source))


def read(source: Source) -> None:
    files = _yaml_files(source)
    if len(files) > 1:
        raise UserError(f'{source.path} holds several files with names: {", ".join(map(source.name, files))}; name one')
    if files:
        settings = _load_yaml(files[0])
        names, splits = _names(settings.get('names'), files[0]), _splits(settings, files[0], source)
    else:
        file = _names_file(source)
        if file is None:
            raise UserError(f'{source.path} has neither a .yaml with names nor classes.txt')
        names, splits = [line.strip() for line in read_text(file).splitlines() if line.strip()], [(None, source.folder)]
    source.ask_classes(names)
    seen: dict[Path, Path] = {}
    used: set[Path] = set()
    label_folders: set[Path] = set()
    prefixed: dict[Path, dict[str, Path]] = {}
    for split, place in splits:
        for path in _pictures(place, source):
            label = _label_file(path, prefixed)
            label_folders.add(label.parent)
            split_here = split or source.split_of(path)
            if path in used:
                continue
            used.add(path)
            if path.with_suffix('') in seen:
                twin = seen[path.with_suffix('')].name
                source.labels.lose(source.name(path), None, path.name, f'{twin} has the same name and takes its label')
                continue
            seen[path.with_suffix('')] = path
            picture = Picture(path, None, split_here, relative=True, source=source.name(label))
            source.labels.pictures.append(picture)
            seen[label] = path
            if label.is_file() and source.admits(label):
                picture.objects = list(_objects(label, names, source))
            else:
                picture.source = ''
    for folder in sorted(label_folders):
        for label in sorted(folder.glob('*.txt')):
            if label not in seen and label.name not in ('classes.txt', 'notes.txt'):
                source.labels.lose(source.name(label), None, label.name, 'there is no picture of this name')


def _yaml_files(source: Source) -> list[Path]:
    files = near_files(source, '.yaml') + near_files(source, '.yml')
    return [path for path in files if b'names' in path.read_bytes() and _load_yaml(path).get('names')]


def _names_file(source: Source) -> Path | None:
    folder = source.folder
    for name in ('classes.txt', 'obj.names'):
        for file in (folder / name, folder / 'labels' / name):
            if (
                file.is_file()
                and source.admits(file)
                and ((folder / 'labels').is_dir() or name == 'obj.names' or any(folder.glob('*.txt')))
            ):
                return file
    return None


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise UserError('reading YOLO needs PyYAML: pip install "mmlightvit[data]"') from None
    try:
        # The base loader leaves every value a text: a class called `no` stays one, and nothing is run.
        content = yaml.load(read_text(path), Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise UserError(f'{path}: it is not YAML: {" ".join(str(error).split())}') from None
    return content if isinstance(content, dict) else {}


def _names(value: Any, path: Path) -> list[str]:
    if isinstance(value, list):
        return [str(name) for name in value]
    if not isinstance(value, dict) or not all(key.isdigit() for key in value):
        raise UserError(f'{path}: expected names as a list, or with the numbers 0, 1, 2, ... before them')
    keys = sorted(map(int, value))
    gaps = sorted(set(range(max(keys) + 1)) - set(keys))
    if gaps:
        raise UserError(f'{path}: its names have gaps: there is no name for class {", ".join(map(str, gaps))}')
    return [str(value[key]) for key in sorted(value, key=int)]


def _splits(settings: dict, path: Path, source: Source) -> list[tuple[str | None, Path]]:
    root = Path(os.path.normpath(Path(path.parent, str(settings.get('path') or '').replace('\\', '/'))))
    if root.exists() and not source.holds(root):
        source.labels.lose(source.name(path), None, f'path: {root}', OUTSIDE)
    bases = [*([source.images] if source.images else []), root, path.parent]
    out: list[tuple[str | None, Path]] = []
    is_stated = False
    for key, split in SPLIT_NAMES.items():
        places = settings.get(key) or []
        for place in [places] if isinstance(places, str) else places:
            found = _existing(str(place), bases, source)
            if found is None:
                looked = ', '.join(map(str, dict.fromkeys(bases)))
                raise UserError(f'{path}: {key} names {place}, which is not there: looked in {looked}')
            is_stated = True
            if source.holds(found):
                out.append((split, found))
            else:
                source.labels.lose(source.name(path), None, f'{key}: {place}', OUTSIDE)
    return out if is_stated else [(None, next(base for base in bases if base.is_dir() and source.holds(base)))]


def _existing(name: str, bases: list[Path], source: Source) -> Path | None:
    """``name`` below one of the bases; without leading ``../`` and folders of another machine where it is not there.

    One outside of the source is the last choice.
    """
    outside = None
    parts = name.replace('\\', '/').split('/')
    for first in range(len(parts)):
        rest = '/'.join(parts[first:])
        if first and parts[first - 1] not in ('..', '.') and not (name[1:2] == ':' or name[:1] in '/\\'):
            break
        for base in bases:
            path = Path(os.path.normpath(Path(base, rest)))
            if rest and path.exists():
                if source.holds(path):
                    return path
                outside = outside or path
    return outside


def _pictures(place: Path, source: Source) -> Iterator[Path]:
    if place.is_dir():
        yield from source.pictures_in(place)
        return
    for number, line in enumerate(read_text(place).splitlines(), 1):
        if line.strip():
            path = _existing(line.strip(), [place.parent, source.folder], source)
            if path is None:
                source.labels.lose(source.name(place), number, line.strip(), 'the picture is missing')
            elif is_picture(path):
                yield path
            else:
                source.labels.lose(source.name(place), number, line.strip(), 'it is not a picture')


def _label_file(picture: Path, prefixed: dict[Path, dict[str, Path]]) -> Path:
    """Where the label is or would be; Label Studio puts eight digits and a hyphen in front of its name."""
    beside = picture.with_suffix('.txt')
    head, middle, tail = str(picture).rpartition(f'{os.sep}images{os.sep}')
    mirrored = Path(f'{head}{os.sep}labels{os.sep}{tail}').with_suffix('.txt') if middle else beside
    label = mirrored if mirrored.is_file() or not beside.is_file() else beside
    if label.is_file():
        return label
    if label.parent not in prefixed:
        files = sorted(label.parent.glob('*.txt'))
        prefixed[label.parent] = {short: path for path in files if (short := without_prefix(path.name)) != path.name}
    return prefixed[label.parent].get(label.name, label)


def _objects(path: Path, names: list[str], source: Source) -> Iterator[Annotation]:
    name = source.name(path)
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            values = numbers(words)
            if values[0] != int(values[0]) or values[0] < 0:
                raise ValueError(f'its class is {words[0]}')
            if len(words) not in (5, 6) and (len(words) < 7 or len(words) % 2 == 0):
                raise ValueError(f'it has {len(words)} numbers; expected 5, or 7, 9, 11, ... of a polygon')
            shares = values[1:5] if len(words) <= 6 else values[1:]
            if not all(-_OUTSIDE <= share <= 1 + _OUTSIDE for share in shares):
                raise ValueError('it leaves the picture: numbers outside of 0 to 1')
        except ValueError as error:
            source.labels.lose(name, number, line.strip()[:80], str(error))
            continue
        if values[0] >= len(names):
            raise UserError(
                f'{path}, line {number}: class {int(values[0])}, but there are names for 0 to {len(names) - 1}'
            )
        shares = [min(max(share, 0.0), 1.0) for share in shares]
        label = names[int(values[0])]
        if len(words) <= 6:
            cx, cy, w, h = shares
            yield Annotation(label, [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], file=name, line=number)
        else:
            yield Annotation(label, polygons=[shares], file=name, line=number)
