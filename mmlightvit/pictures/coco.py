# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""One set of rules for COCO files: what has one meaning is completed, what has none is named.

They work on the plain content of a file, without its pictures, and serve the import, the check and the run alike.

Reading order: read -> categories -> images -> annotations -> masks.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmlightvit.pictures.masks import runs
from mmlightvit.pictures.objects import polygon_area

#: COCO's own boxes leave their images by up to a pixel, by rounding.
OUTSIDE_PIXELS = 1.0
_NAMED = 8
_FLAT = 'its mask is one list of numbers; expected a list of polygons'
_NO_MASK_FORM = 'its mask is neither polygons nor run lengths'
_FORMLESS = (_FLAT, _NO_MASK_FORM)
#: (height, width) that an image entry's coordinates are for, or None where its file cannot be read.
SizeOf = Callable[[dict], tuple[int, int] | None]


class Fault(NamedTuple):
    """Something that no rule can complete.

    Attributes:
        kind: ``categories``, ``images`` or ``annotations``: the list that it stands in.
        place: Its place in that list.
        what: A name for a message, such as ``annotation 18 of a.jpg``.
        reason: What is wrong.
        geometry: Only its place in the picture is wrong, which clipping can mend.
        stops: A toolbox cannot read the file with it; others are left out.
    """

    kind: str
    place: int
    what: str
    reason: str
    geometry: bool = False
    stops: bool = False

    def __str__(self) -> str:
        return f'{self.what}: {self.reason}'


@dataclass
class Findings:
    """What the rules did and found.

    Attributes:
        completed: How many of what was completed, in words.
        faults: In the order of the file.
        without_mask: Objects that have a box and no mask.
        objects: Annotations without a fault, crowds not counted.
    """

    completed: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    without_mask: int = 0
    objects: int = 0

    def notes(self) -> list[str]:
        """One line for each kind of completion."""
        return [f'{what} ({count})' for what, count in self.completed.items()]


def parse(content: bytes, labelled: bool = True) -> dict:
    """The content of a COCO file, with or without a byte-order mark.

    Args:
        content: The file.
        labelled: It has to have annotations; a test set may have none.

    Raises:
        ValueError: It is no COCO file; the message says why.
    """
    try:
        data = json.loads(content.decode('utf-8-sig'))
    except UnicodeDecodeError as error:
        raise ValueError(f'it is not UTF-8 text: {error}') from None
    except ValueError as error:
        raise ValueError(f'it is not JSON: {error}') from None
    if not labelled and isinstance(data, dict):
        data.setdefault('annotations', [])
    missing = [
        key
        for key in ('images', 'annotations', 'categories')
        if not isinstance(data, dict)
        or not isinstance(data.get(key), list)
        or not all(isinstance(item, dict) for item in data[key])
    ]
    if missing:
        raise ValueError(f'it is not a COCO file: no list of objects {", ".join(missing)}')
    return data


def apply(content: dict, size_of: SizeOf | None = None, with_mask: bool = False) -> Findings:
    """Complete a COCO file in place and name what is left.

    Completed are ids (texts become numbers, annotations count from 1), ``iscrowd``, ``area``, sizes as whole numbers
    and, by ``size_of``, missing ones, and ``\\`` in file names.

    Args:
        content: As :func:`parse` gives it.
        size_of: Gives the size of an image entry without one; None leaves that a fault.
        with_mask: Masks are needed: they are checked, and an object without one is a fault.
    """
    findings = Findings()
    categories = _categories(content['categories'], findings)
    entries, known = _images(content['images'], size_of, findings)
    _annotations(content['annotations'], categories, entries, known, with_mask, findings)
    return findings


def nothing_to_learn(content: dict, file: object, classes: Iterable[str]) -> str | None:
    """One line where no object of ``classes`` is in the file."""
    wanted = list(classes)
    names = {item.get('id'): str(item.get('name')) for item in content['categories']}
    if any(names.get(item.get('category_id')) in wanted for item in content['annotations']):
        return None
    return (
        f'{file}: it has no object of the classes {", ".join(wanted)}; '
        f'its categories are {", ".join(names.values()) or "none"}, with {len(content["annotations"])} objects'
    )


def class_problems(content: dict, file: object, classes: Iterable[str]) -> list[str]:
    """One line where a class is no category, and where a category's name stands twice."""
    wanted = list(classes)
    found = [str(item.get('name')) for item in content['categories']]
    if not any('name' in item for item in content['categories']):
        return []  # that they have no names is said of each
    missing = [name for name in wanted if name not in found]
    others = [name for name in found if name not in wanted]
    twice = [name for name, count in Counter(found).items() if count > 1 and name in wanted]
    lines = [f'{file}: the category {name} stands twice' for name in twice]
    if missing:
        instead = f'; it has {some(others)} instead' if others else ''
        lines.append(f"{file}: the config's classes {some(missing)} are not among its categories{instead}")
    return lines


def order_categories(content: dict, classes: Iterable[str]) -> bool:
    """Put the categories into the order of ``classes``, which number the labels; whether that changed it."""
    place = {name: number for number, name in enumerate(classes)}
    numbers = [place.get(str(item.get('name')), len(place)) for item in content['categories']]
    content['categories'] = [item for _, item in sorted(zip(numbers, content['categories']), key=lambda pair: pair[0])]
    wanted = [number for number in numbers if number < len(place)]
    return wanted != sorted(wanted)


def some(items: Iterable[Any]) -> str:
    """The first names, and how many more there are."""
    items = list(items)
    rest = len(items) - _NAMED
    return ', '.join(map(str, items[:_NAMED])) + (f' and {rest} more' if rest > 0 else '')


def no_masks(content: dict, file: object) -> str | None:
    """One line where objects have boxes and none has a mask."""
    if not content['annotations'] or any(item.get('segmentation') for item in content['annotations']):
        return None
    return f'{file}: none of its {len(content["annotations"])} objects has a mask; train a detector of boxes with it'


# Categories -----------------------------------------------------------------------------------------------------------


def _categories(categories: list[dict], findings: Findings) -> dict[Hashable, Any]:
    for place, item in enumerate(categories):
        if not isinstance(item.get('name'), str) or not item['name']:
            findings.faults.append(
                Fault('categories', place, f'category {item.get("id")!r}', 'it has no name', stops=True)
            )
    return _number_ids(categories, 'categories', findings)


def _number_ids(items: list[dict], kind: str, findings: Findings) -> dict[Hashable, Any]:
    """Give ids that are no whole numbers new ones; (id as it was, and as text where that is one item's) -> id."""
    given: dict[Hashable, int] = {}
    for place, item in enumerate(items):
        key = item.get('id')
        if key is None or not isinstance(key, (int, float, str)):
            findings.faults.append(Fault(kind, place, f'entry {place} of {kind}', f'it has no id: {key!r}', stops=True))
        elif key in given:
            reason = f'the id {key!r} stands twice, for {_title(items[given[key]])} and {_title(item)}'
            findings.faults.append(Fault(kind, place, f'entry {place} of {kind}', reason, stops=True))
        else:
            given[key] = place
    whole = all(isinstance(key, int) or (isinstance(key, float) and key.is_integer()) for key in given)
    if not whole:
        findings.completed[f'ids of {kind} that are no numbers are numbered from 1'] += len(given)
    known: dict[Hashable, Any] = {}
    for number, (key, place) in enumerate(given.items(), 1):
        items[place]['id'] = int(key) if whole else number  # type: ignore[call-overload]
        known[key] = items[place]['id']
    texts = Counter(_text(key) for key in given)
    known.update({_text(key): known[key] for key in given if texts[_text(key)] == 1 and _text(key) not in known})
    return known


def _title(item: dict) -> Any:
    return item.get('file_name') or item.get('name')


def _text(key: Any) -> str:
    return str(int(key)) if isinstance(key, float) and key.is_integer() else str(key)


def _lookup(known: dict[Hashable, Any], key: Any) -> Any:
    """The id that ``key`` means, or None."""
    if not isinstance(key, (int, float, str)):
        return None
    return known[key] if key in known else known.get(_text(key))


# Images ---------------------------------------------------------------------------------------------------------------


def _images(
    images: list[dict], size_of: SizeOf | None, findings: Findings
) -> tuple[dict[Any, dict | None], dict[Hashable, Any]]:
    """Entry by id, None for one with a fault; and the ids as annotations may write them."""
    known = _number_ids(images, 'images', findings)
    bad = {fault.place for fault in findings.faults if fault.kind == 'images'}
    entries: dict[Any, dict | None] = {}
    by_file: dict[str, Any] = {}
    for place, item in enumerate(images):
        if place in bad:
            continue
        key, name = item['id'], item.get('file_name')
        entries[key] = None
        if not isinstance(name, str) or not name:
            findings.faults.append(Fault('images', place, f'image {key!r}', 'it has no file_name', stops=True))
            continue
        if '\\' in name:
            name = item['file_name'] = name.replace('\\', '/')
            findings.completed['\\ in file names is read as /'] += 1
        if name in by_file:
            reason = f'the images {by_file[name]!r} and {key!r} are the same file {name}'
            findings.faults.append(Fault('images', place, f'image {key!r}', reason))
            continue
        by_file[name] = key
        entries[key] = item
        _complete_size(item, size_of, findings)
        if not _sized(item):
            reason = 'it has no height and width in pixels'
            findings.faults.append(Fault('images', place, f'image {key!r} ({name})', reason, stops=True))
    return entries, known


def _complete_size(item: dict, size_of: SizeOf | None, findings: Findings) -> None:
    for side in ('height', 'width'):
        value = item.get(side)
        if isinstance(value, float) and value.is_integer():
            item[side] = int(value)
            findings.completed['sizes such as 120.0 are read as 120'] += side == 'height'
    if not _sized(item) and size_of is not None:
        size = size_of(item)
        if size:
            item['height'], item['width'] = size
            findings.completed['sizes of images are read from their files'] += 1


def _sized(item: dict) -> bool:
    return all(type(item.get(side)) is int and item[side] > 0 for side in ('height', 'width'))


# Annotations ----------------------------------------------------------------------------------------------------------


def _annotations(
    annotations: list[dict],
    categories: dict[Hashable, Any],
    entries: dict[Any, dict | None],
    known: dict[Hashable, Any],
    with_mask: bool,
    findings: Findings,
) -> None:
    names = [item.get('id') for item in annotations]  # as the file says them
    _number_annotations(annotations, findings)
    faults = findings.faults
    for place, item in enumerate(annotations):
        image, category = _lookup(known, item.get('image_id')), _lookup(categories, item.get('category_id'))
        entry = entries.get(image)
        what = f'annotation at place {place}' if names[place] is None else f'annotation {names[place]!r}'
        what += f' of {entry["file_name"]}' if entry else ''
        if image is None:
            faults.append(Fault('annotations', place, what, f'there is no image {item.get("image_id")!r}'))
            continue
        if entry is None:
            continue  # the entry's own fault is said
        if category is None:
            faults.append(Fault('annotations', place, what, f'there is no category {item.get("category_id")!r}'))
            continue
        if isinstance(item['image_id'], str) or isinstance(item['category_id'], str):
            findings.completed['image_id and category_id written as text are read as the ids that they name'] += 1
        item['image_id'], item['category_id'] = image, category
        if 'iscrowd' not in item or item['iscrowd'] is None:
            item['iscrowd'] = 0
            findings.completed['iscrowd is taken as 0 where it is missing'] += 1
        said, moved = _box_faults(item, entry)
        mask = _mask_fault(item.get('segmentation'), entry) if with_mask else None
        if mask:
            said.append(mask)
        if said or moved:
            stops = not isinstance(item.get('bbox'), list) or len(item['bbox']) != 4 or mask in _FORMLESS
            faults.append(Fault('annotations', place, what, ', '.join(said + moved), not said, stops))
            if said:
                continue
        findings.without_mask += not item.get('segmentation')
        findings.objects += not item['iscrowd']
        if not (_is_number(item.get('area')) and item['area'] > 0):
            item['area'] = area_of(item)
            findings.completed['areas that are missing or 0 are taken from mask or box'] += 1


def _number_annotations(annotations: list[dict], findings: Findings) -> None:
    """Ids from 1 where they are not positive whole numbers, each once: pycocotools takes 0 for "no match"."""
    ids = [item.get('id') for item in annotations]
    if not all(type(key) is int and key > 0 for key in ids) or len(set(ids)) < len(ids):
        findings.completed['ids of annotations are numbered from 1'] += len(ids)
        for number, item in enumerate(annotations, 1):
            item['id'] = number


def _box_faults(item: dict, entry: dict) -> tuple[list[str], list[str]]:
    """Faults of the values, and faults that clipping can mend."""
    box = item.get('bbox')
    if box is None:
        return ['it has no bbox'], []
    if not is_box(box):
        return [f'its box is not [x, y, width, height] in finite numbers: {box!r}'], []
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return [f'its box is empty: {w:g} x {h:g} pixels'], []
    if w < 1 or h < 1:
        return [], [f'its box is narrower than a pixel and would be left out: {w:g} x {h:g} pixels']
    if _sized(entry):
        height, width = entry['height'], entry['width']
        if max(-x, -y, x + w - width, y + h - height) > OUTSIDE_PIXELS:
            text = f'its box [{x:g}, {y:g}, {w:g}, {h:g}] is outside of its image of {width} x {height} pixels'
            return [], [text]
    return [], []


def is_box(value: Any) -> bool:
    """Whether a value is four finite numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _are_numbers(values: list) -> bool:
    """Whether all are finite numbers; far faster for the many of a polygon than one by one."""
    return {*map(type, values)} <= {int, float} and math.isfinite(sum(values))


def area_of(item: dict) -> float:
    """The area of an annotation's mask, or of its box where it has none."""
    mask = item.get('segmentation')
    area = 0.0
    if isinstance(mask, list):
        area = sum(polygon_area(part) for part in mask if _is_polygon(part))
    elif isinstance(mask, dict) and not run_fault(mask):
        area = float(sum(_run_lengths(mask)[1::2]))
    return area or item['bbox'][2] * item['bbox'][3]


# Masks ----------------------------------------------------------------------------------------------------------------


def _mask_fault(mask: Any, entry: dict) -> str | None:
    if not mask:
        return 'it has no mask'
    if isinstance(mask, list):
        return polygon_fault(mask)
    if isinstance(mask, dict):
        size = [entry.get('height'), entry.get('width')]
        if _sized(entry) and list(mask.get('size') or ()) != size:
            return f'its mask is run lengths of {mask.get("size")}, expected {size}'
        return run_fault(mask)
    return _NO_MASK_FORM


def polygon_fault(mask: list) -> str | None:
    """What is wrong with a list of polygons."""
    if all(map(_is_number, mask)):
        return _FLAT
    if not all(map(_is_polygon, mask)):
        if all(isinstance(part, list) and _are_numbers(part) for part in mask):
            return 'its mask has a part that is not a polygon of three or more points'
        return 'its mask has a coordinate that is not a finite number'
    return None if any(polygon_area(part) > 0 for part in mask) else 'its mask has no area'


def _is_polygon(part: Any) -> bool:
    return isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 and _are_numbers(part)


def run_fault(mask: dict) -> str | None:
    size, counts = mask.get('size'), mask.get('counts')
    if not (isinstance(counts, (str, list)) and counts and isinstance(size, (list, tuple)) and len(size) == 2):
        return _NO_MASK_FORM
    try:
        lengths = _run_lengths(mask)
        sound = min(lengths) >= 0 and sum(lengths) == size[0] * size[1]
    except (ValueError, TypeError, IndexError, OverflowError):
        sound = False
    if not sound:
        return 'the run lengths of its mask do not fill its image'
    return None if sum(lengths[1::2]) else 'its mask has no area'


def _run_lengths(mask: dict) -> list[int]:
    counts = mask['counts']
    return runs(counts).tolist() if isinstance(counts, str) else counts
