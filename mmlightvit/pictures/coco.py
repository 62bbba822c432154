# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""One reader of COCO files, with one set of rules: what has one meaning is completed, what has none is named.

Every command that opens such a file reads it here, so that a file means the same in all of them: :func:`read`, then
:func:`complete` where labels are used, or :func:`apply` where every fault is to be listed.

Reading order: read -> rules -> classes -> categories -> images -> annotations -> masks -> write.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmlightvit.errors import UserError
from mmlightvit.pictures.masks import runs

if TYPE_CHECKING:
    from mmlightvit.pictures.objects import Picture

#: COCO's own boxes leave their images by up to a pixel, by rounding.
OUTSIDE_PIXELS = 1.0
#: The reason of a fault that a mask can mend.
NO_BOX = 'it has no bbox'
_NAMED = 8
_FLAT = 'its mask is one list of numbers; expected a list of polygons'
_NESTED = 'its mask is lists of points; expected lists of numbers x, y, x, y, ...'
_NO_MASK_FORM = 'its mask is neither polygons nor run lengths'
_FORMLESS = (_FLAT, _NESTED, _NO_MASK_FORM)
_TRUTH_VALUES = {'0': 0, 'false': 0, '1': 1, 'true': 1}
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
    """What the rules did, and what is left.

    Attributes:
        completed: How many of what was completed, in words.
        faults: In the order of the file.
        without_mask: Objects that have a box and no mask.
        objects: Annotations without a fault, crowds not counted.
        ids: Of ``images`` and ``categories``: an id in any way of writing -> the completed one.
        written: Of both: a completed id -> the one in the file.
    """

    completed: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    without_mask: int = 0
    objects: int = 0
    ids: dict[str, dict[Hashable, Any]] = field(default_factory=dict)
    written: dict[str, dict[Any, Any]] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """One line for each kind of completion."""
        return [f'{what} ({count})' for what, count in self.completed.items()]

    def unusable(self) -> list[Fault]:
        """The faults that clipping cannot mend."""
        return [fault for fault in self.faults if not fault.geometry]

    def id_of(self, kind: str, key: Any) -> Any:
        """The completed id that a file of results means, in the words of the file or in completed ones; else None."""
        found = _lookup(self.ids[kind], key)
        return key if found is None and isinstance(key, int) and key in self.written[kind] else found


def parse(content: bytes, labelled: bool = True) -> dict:
    """The content of a COCO file, with or without a byte-order mark.

    Args:
        content: The file.
        labelled: It has to have annotations; a test set may have none.

    Raises:
        ValueError: It is no COCO file; the message says why.
    """
    data = _parse_json(content)
    given = {'annotations': [], **data} if isinstance(data, dict) and not labelled else data
    missing = [
        key
        for key in ('images', 'annotations', 'categories')
        if not isinstance(given, dict)
        or not isinstance(given.get(key), list)
        or not all(isinstance(item, dict) for item in given[key])
    ]
    if missing:
        raise ValueError(f'it is not a COCO file: no list of objects {", ".join(missing)}')
    if data['images'] and not data['categories']:
        raise ValueError('its list of categories is empty; it has to name those of the other splits')
    return data


def _parse_json(content: bytes) -> Any:
    try:
        return json.loads(content.decode('utf-8-sig'))
    except UnicodeDecodeError as error:
        raise ValueError(f'it is not UTF-8 text: {error}') from None
    except RecursionError:
        raise ValueError('its lists and objects are nested too deeply') from None
    except ValueError as error:
        raise ValueError(f'it is not JSON: {error}') from None


def read(file: Path, labelled: bool = True) -> dict:
    """The content of a file; see :func:`parse`.

    Raises:
        UserError: It cannot be read, or is no COCO file.
    """
    return _read(file, lambda content: parse(content, labelled))


def read_json(file: Path) -> Any:
    """The content of any JSON file, as a file of results is.

    Raises:
        UserError: It cannot be read, or is none.
    """
    return _read(file, _parse_json)


def _read(file: Path, reader: Callable[[bytes], Any]) -> Any:
    try:
        return reader(file.read_bytes())
    except OSError as error:
        raise UserError(f'{file} cannot be read: {error.strerror or error}') from None
    except ValueError as error:
        raise UserError(f'{file}: {error}') from None


def complete(content: dict, file: object, size_of: SizeOf | None = None, with_mask: bool | None = None) -> Findings:
    """The labels as every command counts them: completed in place, and without what cannot be used.

    Args:
        content: As :func:`parse` gives it.
        file: Its name, for the message.
        size_of, with_mask: See :func:`apply`.

    Raises:
        UserError: A toolbox cannot read the file.
    """
    findings = apply(content, size_of, with_mask)
    if line := refusal([fault for fault in findings.faults if fault.stops], file):
        raise UserError(line)
    leave_out(content, findings.unusable())
    return findings


def refusal(faults: list[Fault], file: object) -> str | None:
    """One line on faults that end a run or a measurement."""
    more = f' (and {len(faults) - 1} more like it)' if len(faults) > 1 else ''
    return f'{file}: {faults[0]}{more}' if faults else None


def leave_out(content: dict, faults: Iterable[Fault]) -> Counter[Any]:
    """Take the faulty entries out of the lists; the number of objects that went with each image that did."""
    places: dict[str, set[int]] = {'images': set(), 'annotations': set(), 'categories': set()}
    for fault in faults:
        places[fault.kind].add(fault.place)
    for kind, gone in places.items():
        if gone:
            content[kind] = [item for place, item in enumerate(content[kind]) if place not in gone]
    if not places['images']:
        return Counter()
    known = {item['id'] for item in content['images']}
    orphans = Counter(item['image_id'] for item in content['annotations'] if item['image_id'] not in known)
    content['annotations'] = [item for item in content['annotations'] if item['image_id'] in known]
    return orphans


def apply(content: dict, size_of: SizeOf | None = None, with_mask: bool | None = None) -> Findings:
    """Complete a COCO file in place and name what is left.

    Completed are ids (texts become numbers, annotations count from 1), ``iscrowd``, ``area``, sizes as whole numbers
    and, by ``size_of``, missing ones, and ``\\`` in file names. Objects with ``ignore`` become crowds, which is how
    every metric passes over a region; scraps of under three points leave a mask that has other parts.

    Args:
        content: As :func:`parse` gives it; a set without ``annotations`` gets an empty list.
        size_of: Gives the size of an image entry without one, which is a fault where it cannot; without ``size_of``,
            sizes are no matter.
        with_mask: Masks are needed: they are checked, and an object without one is a fault. None checks those that
            there are, False none.
    """
    findings = Findings()
    categories = _categories(content['categories'], findings)
    entries, known = _images(content['images'], size_of, findings)
    _annotations(content.setdefault('annotations', []), categories, entries, known, with_mask, findings)
    return findings


# Classes --------------------------------------------------------------------------------------------------------------


def nothing_to_learn(content: dict, file: object, classes: Iterable[str]) -> str | None:
    """One line where no object of ``classes`` is in the file, crowds not counted; the rules have been applied."""
    wanted = list(classes)
    names = {item.get('id'): str(item.get('name')) for item in content['categories']}
    objects = content['annotations']
    if any(names.get(item.get('category_id')) in wanted and not item.get('iscrowd') for item in objects):
        return None
    crowds = sum(bool(item.get('iscrowd')) for item in objects)
    return (
        f'{file}: it has no object of the classes {", ".join(wanted)}; '
        f'its categories are {", ".join(names.values()) or "none"}, with {len(objects)} objects'
        + (f', {crowds} of them crowds (iscrowd), of which nothing is learnt' if crowds else '')
    )


def class_problems(content: dict, file: object, classes: Iterable[str]) -> list[str]:
    """One line where a class is no category, and where a category's name stands twice."""
    wanted = list(classes)
    found = [str(item.get('name')) for item in content['categories']]
    if not all(map(_is_named, content['categories'])):
        return []  # that one has no name is said of it
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


def left_out(content: dict, settings: dict) -> tuple[list[str], int]:
    """How many images have no object, and how many a training passes over, by which setting.

    Args:
        content: After the rules.
        settings: mmdet's ``filter_cfg``; empty where nothing is passed over.

    Returns:
        The lines, and the number of images that are left.
    """
    least, total = settings.get('min_size', 0), len(content['images'])
    empty = {item['id'] for item in content['images']} - {item['image_id'] for item in content['annotations']}
    small = {item['id'] for item in content['images'] if min(size(item) or (least,)) < least}
    lines = [f'{len(empty)} of {total} images have no object'] if empty else []
    if empty and settings.get('filter_empty_gt'):
        lines[0] += '; they are left out, since filter_cfg.filter_empty_gt is True'
    if small:
        lines.append(f'{len(small)} of {total} images are left out, since a side is under filter_cfg.min_size={least}')
    return lines, total - len(small | (empty if settings.get('filter_empty_gt') else set()))


def some(items: Iterable[Any]) -> str:
    """The first names, and how many more there are."""
    items = list(items)
    rest = len(items) - _NAMED
    return ', '.join(map(str, items[:_NAMED])) + (f' and {rest} more' if rest > 0 else '')


def no_masks(content: dict, file: object) -> str | None:
    """One line where objects have boxes and none has a mask."""
    objects = content.get('annotations')
    if not objects or any(item.get('segmentation') for item in objects):
        return None
    return f'{file}: none of its {len(objects)} objects has a mask; train a detector of boxes with it'


# Categories -----------------------------------------------------------------------------------------------------------


def _categories(categories: list[dict], findings: Findings) -> dict[Hashable, Any]:
    for place, item in enumerate(categories):
        if not _is_named(item):
            findings.faults.append(
                Fault('categories', place, f'category {item.get("id")!r}', 'it has no name', stops=True)
            )
    return _number_ids(categories, 'categories', findings)


def _is_named(item: dict) -> bool:
    return isinstance(item.get('name'), str) and bool(item['name'])


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
    numbers = {key: _whole(key) for key in given}
    whole = None not in numbers.values() and len(set(numbers.values())) == len(given)
    if not whole:
        findings.completed[f'ids of {kind} that are no numbers are numbered from 1'] += len(given)
    elif texts := sum(isinstance(key, str) for key in given):
        findings.completed[f'ids of {kind} written as text are read as the numbers that they name'] += texts
    known: dict[Hashable, Any] = {}
    for number, (key, place) in enumerate(given.items(), 1):
        items[place]['id'] = known[key] = numbers[key] if whole else number
    spelled = Counter(_text(key) for key in given)
    known.update({_text(key): known[key] for key in given if spelled[_text(key)] == 1 and _text(key) not in known})
    findings.ids[kind] = known
    findings.written[kind] = {known[key]: key if isinstance(key, str) else _whole(key) or key for key in given}
    return known


def _whole(key: Any) -> int | None:
    """The whole number that an id is or spells, or None."""
    if isinstance(key, str):
        return int(key) if re.fullmatch(r'\s*-?[0-9]{1,18}\s*', key) else None
    return int(key) if isinstance(key, int) or key.is_integer() else None


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
        if size_of is not None and size(item) is None:
            reason = 'it has no height and width in pixels'
            findings.faults.append(Fault('images', place, f'image {key!r} ({name})', reason, stops=True))
    return entries, known


def _complete_size(item: dict, size_of: SizeOf | None, findings: Findings) -> None:
    sides = size(item)
    if sides is not None and not all(type(item[side]) is int for side in ('height', 'width')):
        findings.completed['sizes such as 120.0 or "120" are read as 120'] += 1
    elif sides is None and size_of is not None and (sides := size_of(item)):
        findings.completed['sizes of images are read from their files'] += 1
    if sides is not None:
        item['height'], item['width'] = sides


def size(item: dict) -> tuple[int, int] | None:
    """(height, width) of an image entry, however they are written; None where it has none in pixels."""
    height, width = (_pixels(item.get(side)) for side in ('height', 'width'))
    return (height, width) if height and width else None


def _pixels(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r'\s*[0-9]{1,9}([.]0*)?\s*', value):
        value = float(value)
    whole = type(value) is int or (isinstance(value, float) and value.is_integer())
    return int(value) if whole and value > 0 else None


# Annotations ----------------------------------------------------------------------------------------------------------


def _annotations(
    annotations: list[dict],
    categories: dict[Hashable, Any],
    entries: dict[Any, dict | None],
    known: dict[Hashable, Any],
    with_mask: bool | None,
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
        as_text = isinstance(item['image_id'], str) or isinstance(item.get('category_id'), str)
        item['image_id'] = image
        if entry is None:
            continue  # the entry's own fault is said
        if category is None:
            faults.append(Fault('annotations', place, what, f'there is no category {item.get("category_id")!r}'))
            continue
        item['category_id'] = category
        if as_text:
            findings.completed['image_id and category_id written as text are read as the ids that they name'] += 1
        values, moved = _box_faults(item, entry)
        values += [fault] if (fault := _complete_crowd(item, findings)) else []
        _drop_scraps(item, findings)
        wanted = with_mask or (with_mask is None and item.get('segmentation'))
        mask = mask_fault(item.get('segmentation'), entry) if wanted else None
        values += [mask] if mask else []
        if values or moved:
            stops = not isinstance(item.get('bbox'), list) or len(item['bbox']) != 4 or mask in _FORMLESS
            faults.append(Fault('annotations', place, what, ', '.join(values + moved), not values, stops))
            if values:
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


def _complete_crowd(item: dict, findings: Findings) -> str | None:
    """``iscrowd`` as 0 or 1, where ``ignore`` has its say too; the fault where it is neither."""
    value = item.get('iscrowd')
    if value is None:
        item['iscrowd'] = 0
        findings.completed['iscrowd is taken as 0 where it is missing'] += 1
    elif isinstance(value, str) and value.strip().lower() in _TRUTH_VALUES:
        item['iscrowd'] = _TRUTH_VALUES[value.strip().lower()]
        findings.completed['iscrowd written as text is read as the number'] += 1
    elif value not in (0, 1):
        return f'its iscrowd is {value!r}, expected 0 or 1'
    ignore = item.get('ignore')
    if ignore and _TRUTH_VALUES.get(str(ignore).strip().lower(), 1):
        item['iscrowd'] = 1
        findings.completed['objects with ignore are taken as crowds, which count neither as found nor as missed'] += 1
    elif ignore:
        findings.completed['ignore written as text is read as the number'] += 1
    if ignore:  # a toolbox leaves such objects out, and takes any text for yes
        item['ignore'] = 0
    return None


def _drop_scraps(item: dict, findings: Findings) -> None:
    """Leave out parts of under three points where the mask has a polygon beside them."""
    parts = item.get('segmentation')
    if not isinstance(parts, list) or not any(map(_is_scrap, parts)):
        return
    kept = [part for part in parts if not _is_scrap(part)]
    if any(map(_is_polygon, kept)):
        item['segmentation'] = kept
        findings.completed['parts of under three points are left out of masks that have others'] += 1


def _is_scrap(part: Any) -> bool:
    return isinstance(part, list) and len(part) in (0, 2, 4) and not any(isinstance(value, list) for value in part)


def _box_faults(item: dict, entry: dict) -> tuple[list[str], list[str]]:
    """Faults of the values, and faults that clipping can mend."""
    box = item.get('bbox')
    if box is None:
        return [NO_BOX], []
    if not is_box(box):
        return [f'its box is not [x, y, width, height] in finite numbers: {box!r}'], []
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return [f'its box is empty: {w:g} x {h:g} pixels'], []
    if w < 1 or h < 1:
        return [], [f'its box is narrower than a pixel and would be left out: {w:g} x {h:g} pixels']
    if (sides := size(entry)) is not None:
        height, width = sides
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


def polygon_area(polygon: Sequence[float]) -> float:
    """Its area by the shoelace formula."""
    x, y = polygon[0::2], polygon[1::2]
    left, top = x[0], y[0]  # as the origin: large coordinates lose no digits, and the closing side adds nothing
    sides = zip(x, y, x[1:], y[1:])
    return abs(sum((xa - left) * (yb - top) - (xb - left) * (ya - top) for xa, ya, xb, yb in sides)) / 2


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


def mask_fault(mask: Any, entry: dict) -> str | None:
    """What is wrong with the mask of an object in an image entry."""
    if not mask:
        return 'it has no mask'
    if isinstance(mask, list):
        return polygon_fault(mask)
    if isinstance(mask, dict):
        sides = size(entry)
        if sides is not None and list(mask.get('size') or ()) != list(sides):
            return f'its mask is run lengths of {mask.get("size")}, expected {list(sides)}'
        return run_fault(mask)
    return _NO_MASK_FORM


def polygon_fault(mask: list) -> str | None:
    """What is wrong with a list of polygons."""
    if all(map(_is_number, mask)):
        return _FLAT
    if any(isinstance(value, (list, dict)) for part in mask if isinstance(part, list) for value in part[:1]):
        return _NESTED
    if not all(map(_is_polygon, mask)):
        if all(isinstance(part, list) and _are_numbers(part) for part in mask):
            return 'its mask has a part that is not a polygon of three or more points'
        return 'its mask has a coordinate that is not a finite number'
    return None if any(polygon_area(part) > 0 for part in mask) else 'its mask has no area'


def _is_polygon(part: Any) -> bool:
    return isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 and _are_numbers(part)


def run_fault(mask: dict) -> str | None:
    """What is wrong with run lengths."""
    sides, counts = mask.get('size'), mask.get('counts')
    if not (isinstance(counts, (str, list)) and counts and isinstance(sides, (list, tuple)) and len(sides) == 2):
        return _NO_MASK_FORM
    try:
        lengths = _run_lengths(mask)
        sound = min(lengths) >= 0 and sum(lengths) == sides[0] * sides[1]
    except (ValueError, TypeError, IndexError, OverflowError):
        sound = False
    if not sound:
        return 'the run lengths of its mask do not fill its image'
    return None if sum(lengths[1::2]) else 'its mask has no area'


def _run_lengths(mask: dict) -> list[int]:
    counts = mask['counts']
    return runs(counts).tolist() if isinstance(counts, str) else counts


# Write ----------------------------------------------------------------------------------------------------------------


def content_of(classes: Sequence[str], root: Path, pictures: Sequence[Picture]) -> dict[str, Any]:
    """A COCO file: ids from 1, categories in the order of the classes."""
    place = {name: number for number, name in enumerate(classes, 1)}
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, picture in enumerate(pictures, 1):
        height, width = picture.size or (0, 0)
        name = picture.path.relative_to(root).as_posix()
        images.append({'id': image_id, 'file_name': name, 'height': height, 'width': width})
        for item in picture.objects:
            x1, y1, x2, y2 = item.box or (0, 0, 0, 0)
            entry = {
                'id': len(annotations) + 1,
                'image_id': image_id,
                'category_id': place[item.label],
                'bbox': [x1, y1, round(x2 - x1, 4), round(y2 - y1, 4)],
                'area': item.area,
                'iscrowd': int(item.crowd),
            }
            if item.score is not None:
                entry['score'] = item.score
            if item.has_mask:
                entry['segmentation'] = item.mask or item.polygons
            annotations.append(entry)
    categories = [{'id': number, 'name': name} for name, number in place.items()]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def text(content: dict[str, Any]) -> str:
    """The text of a COCO file, the same for the same content; in ASCII, since readers open it in any encoding."""
    return json.dumps(content)
