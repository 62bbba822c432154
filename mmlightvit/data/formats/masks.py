# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Mask pictures: the value or the colour of each pixel is its class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mmlightvit.data.source import Source, read_text
from mmlightvit.errors import UserError
from mmlightvit.pictures.objects import Picture

IGNORE = 255
_MASK_FOLDERS = frozenset(
    ['masks', 'mask', 'labels', 'label', 'annotations', 'annotation', 'ann_dir', 'segmentationclass', 'gt']
)
_PICTURE_FOLDERS = frozenset(['images', 'image', 'imgs', 'img', 'img_dir', 'jpegimages', 'pictures'])
_OTHER_FOLDERS = frozenset({'segmentationobject'})


def found(source: Source) -> bool:
    return source.path.is_dir() and ((source.path / 'labelmap.txt').is_file() or bool(_pairs(source)[0]))


def read(source: Source) -> None:
    pairs, alone, ambiguous = _pairs(source)
    if not pairs:
        raise UserError(
            f'{source.path} has no picture with a mask of its name: expected folders images/ and masks/ (or labels/)'
        )
    names = colours(source)[0]
    if names:
        source.ask_classes(names)
    sets = _image_sets(source)
    for path, mask in pairs:
        split = sets.get(path.stem) if sets else source.split_of(path)
        source.labels.pictures.append(Picture(path, None, split, label_map=mask, source=source.name(mask)))
    for path in alone:
        source.labels.lose(source.name(path), None, path.name, 'it has no mask' if path else '')
    for path in ambiguous:
        source.labels.lose(source.name(path), None, path.name, 'another file has the same name')


def _key(path: Path, source: Source) -> tuple[bool | None, tuple[str, ...]]:
    """Whether a file is a mask, and what a picture and its mask have in common."""
    parts = path.relative_to(source.folder).parts[:-1]
    lower = [part.lower() for part in parts]
    if _OTHER_FOLDERS & set(lower):
        return None, ()
    is_mask = bool(_MASK_FOLDERS & set(lower)) and path.suffix.lower() == '.png'
    drop = _MASK_FOLDERS if is_mask else _PICTURE_FOLDERS
    return is_mask, (*(part for part in parts if part.lower() not in drop), path.stem)


def _pairs(source: Source) -> tuple[list[tuple[Path, Path]], list[Path], list[Path]]:
    """Pictures with masks; files without a partner; files whose name stands twice."""
    files: dict[bool, dict[tuple[str, ...], Path]] = {False: {}, True: {}}
    ambiguous = []
    for path in source.pictures_in(source.folder):
        is_mask, key = _key(path, source)
        if is_mask is None:
            continue
        if key in files[is_mask]:
            ambiguous.append(path)
        else:
            files[is_mask][key] = path
    pairs = [(path, files[True][key]) for key, path in files[False].items() if key in files[True]]
    alone = [path for key, path in files[False].items() if key not in files[True]]
    alone += [path for key, path in files[True].items() if key not in files[False]]
    return pairs, alone, ambiguous


def _image_sets(source: Source) -> dict[str, str]:
    sets = {}
    for split in ('train', 'val', 'test'):
        for file in sorted(source.folder.glob(f'**/ImageSets/*/{split}.txt')):
            sets.update({line.split()[0]: split for line in read_text(file).splitlines() if line.strip()})
    return sets


def colours(source: Source) -> tuple[list[str], dict[int, int]]:
    """Names of the classes, and the class of each colour (red * 65536 + green * 256 + blue).

    From ``--labelmap`` or CVAT's ``labelmap.txt``: ``name:red,green,blue::`` a line; else the names are ``--classes``.
    """
    file = source.labelmap or source.folder / 'labelmap.txt'
    if not file.is_file() or not (source.labelmap or source.admits(file)):
        if source.labelmap:
            raise UserError(f'--labelmap {file}: there is no such file')
        return list(source.classes or ()), {}
    names: list[str] = []
    places: dict[int, int] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith('#'):
            continue
        name, _, rest = line.strip().partition(':')
        try:
            red, green, blue = (int(word) for word in rest.split(':')[0].split(','))
        except ValueError:
            raise UserError(f'{file}, line {number}: expected name:red,green,blue::, got {line.strip()!r}') from None
        places[red << 16 | green << 8 | blue] = len(names)
        names.append(name)
    return names, places


def read_mask(path: Path, classes: list[str], places: dict[int, int]) -> np.ndarray:
    """The class of each pixel, (H, W) uint8; 255 for pixels to ignore.

    Raises:
        UserError: A value or colour has no name.
        ValueError: The file cannot be read; the message says why.
    """
    try:
        with Image.open(path) as image:
            image.load()
            values = _values(image, path, bool(places))
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f'its mask cannot be read: {error}') from None
    if values.ndim == 3:
        coded = values[..., 0].astype(np.int64) << 16 | values[..., 1].astype(np.int64) << 8 | values[..., 2]
        values = np.full(coded.shape, -1, np.int64)
        for code, place in places.items():
            values[coded == code] = place
        wrong = np.unique(coded[values < 0])
        if len(wrong):
            code = int(wrong[0])
            raise UserError(
                f'{path}: the colour {code >> 16},{code >> 8 & 255},{code & 255} has no name in the labelmap'
            )
    wrong = np.setdiff1d(np.unique(values), [*range(len(classes)), IGNORE])
    if len(wrong):
        hint = 'name the classes by --classes' if not classes else f'there are names for 0 to {len(classes) - 1}'
        raise UserError(f'{path}: the value {int(wrong[0])} has no name; {hint}')
    return values.astype(np.uint8)


def _values(image: Image.Image, path: Path, coloured: bool) -> np.ndarray:
    """(H, W) of numbers, or (H, W, 3) of colours."""
    if image.mode == 'P':
        palette = np.array(image.getpalette('RGB') or [], np.int64).reshape(-1, 3)
        index = np.asarray(image)
        grey = bool((palette == palette[:, :1]).all())
        return palette[index, 0] if grey and len(palette) > int(index.max()) else index.astype(np.int64)
    if image.mode in ('1', 'L', 'I', 'I;16', 'I;16B'):
        levels = np.asarray(image).astype(np.int64)
        return np.repeat(levels[..., None], 3, -1) if coloured and image.mode == 'L' else levels
    if not coloured:
        raise UserError(
            f'{path}: its pixels are colours ({image.mode}); name them by --labelmap FILE (name:red,green,blue::)'
        )
    return np.asarray(image.convert('RGB'))
