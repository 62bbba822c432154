# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Reading the data that a config names, before training does, and saying every problem in plain words.

One fault gives one line: what cannot be told because of an earlier fault is not guessed at. What may be meant, such as
a class without objects in one split, is a note and not a problem.

Reading order: report -> one image -> COCO files -> label images -> folders and lists of classes -> any other data set
-> the config as a whole.
"""

from __future__ import annotations

import os
import os.path as osp
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import fileio
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmlightvit.data.audit import Report, audit
from mmlightvit.data.data_root import SPLITS, evaluators, leaf_datasets
from mmlightvit.data.probe import probe_all
from mmlightvit.durable.dataset_traits import is_a, is_local, roots
from mmlightvit.durable.images import MAX_PIXELS, BadSample, decode, escapes, fetch, read_header
from mmlightvit.errors import UserError
from mmlightvit.pictures import coco
from mmlightvit.pictures.coco import some
from mmlightvit.pictures.objects import Annotation, Picture

#: Wraps an iterable of known length: (items, what they are, how many) -> the same items.
Progress = Callable[[Iterable, str, int], Iterable]

_BATCH = 512
_IMAGE_SUFFIXES = frozenset(Image.registered_extensions())


def no_progress(items: Iterable, what: str, total: int) -> Iterable:
    """A :data:`Progress` that shows nothing."""
    return items


@dataclass(frozen=True)
class _Image:
    """What reading one image told: a fault, or the sizes (H, W) that an annotation may give for it."""

    fault: str | None = None
    sizes: tuple[tuple[int, int], ...] = ()


def _read_image(path: str, backend_args: dict | None, max_pixels: int) -> _Image:
    try:
        content = fetch(path, backend_args)
        stored = read_header(content, max_pixels).size
        height, width = decode(content).shape[:2]
    except BadSample as error:
        return _Image(str(error))
    # The first is the size in training; as stored, before EXIF turns it, is understood too.
    return _Image(None, ((height, width), stored))


def _in_threads(function: Callable, items: Sequence, progress: Progress, what: str) -> Iterator[tuple[Any, Any]]:
    """(item, result) in order. Decoding releases the interpreter lock; batches bound the memory."""
    done = iter(progress(range(len(items)), what, len(items)))
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(items), _BATCH):
            batch = items[start : start + _BATCH]
            for item, result in zip(batch, pool.map(function, batch)):
                next(done)
                yield item, result
    next(done, None)  # lets the bar finish


# COCO files -----------------------------------------------------------------------------------------------------------


def check_annotations(dataset: Any) -> Report:
    """What a COCO annotation file tells without its images; nothing for data sets of another kind.

    Args:
        dataset: As built; mmdet's ``CocoDataset`` or a child of it.
    """
    report = Report()
    if is_a(dataset, 'mmdet.datasets', 'CocoDataset'):
        content = _load_coco(dataset, report)
        if content is not None:
            _check_content(dataset, content, False, report)
    return report


def _check_coco(dataset: Any, with_mask: bool, progress: Progress, report: Report) -> list[Picture]:
    content = _load_coco(dataset, report)
    if content is None:
        return []
    _check_categories(dataset, content, report)
    folder = roots(dataset)[0]
    named = {
        osp.join(folder, item['file_name'].replace('\\', '/')): item
        for item in content['images']
        if isinstance(item.get('file_name'), str)
    }
    readable = {path: item for path, item in named.items() if not escapes(path, folder)}
    report.images += len(readable)

    def read(path: str) -> _Image:
        return _read_image(path, dataset.backend_args, dataset.max_pixels)

    for path, image in _in_threads(read, list(readable), progress, 'images'):
        item = readable[path]
        stated = coco.size(item)
        if image.fault:
            report.problems.append(f'{path}: {image.fault}')
        elif stated not in image.sizes:
            if stated is not None:
                height, width = image.sizes[0]
                report.problems.append(
                    f'{path}: it is {width} x {height} pixels, but {dataset.ann_file} says {stated[1]} x {stated[0]}'
                )
            item['height'], item['width'] = image.sizes[0]
    _check_content(dataset, content, with_mask, report)
    return _pictures(content, folder)


def _load_coco(dataset: Any, report: Report) -> dict | None:
    path = dataset.ann_file
    try:
        return coco.parse(fetch(path, getattr(dataset, 'backend_args', None)))
    except ValueError as error:  # BadSample is one
        report.problems.append(f'{path}: {error}')
    return None


def _check_content(dataset: Any, content: dict, with_mask: bool, report: Report) -> None:
    """The rules of validity, and paths that climb out of the image folder."""
    path = dataset.ann_file
    if not content['images']:
        report.problems.append(f'{path}: it holds no image')
    find_escapes(dataset, content, report)
    report.problems += report.refused
    without_masks = coco.no_masks(content, path) if with_mask else None
    findings = coco.apply(content, with_mask=with_mask and not without_masks)
    report.problems += [str(fault) if fault.kind == 'annotations' else f'{path}: {fault}' for fault in findings.faults]
    report.notes += [f'{path}: {note}' for note in findings.notes()]
    report.problems += [without_masks] if without_masks else []
    nothing = coco.nothing_to_learn(content, path, dataset.metainfo.get('classes') or ())
    if content['images'] and nothing and dataset.test_mode:
        report.notes.append(f'{nothing}: average precision has no meaning then')
    elif content['images'] and nothing:
        report.problems.append(nothing)
    report.notes += left_out(dataset, content)


def find_escapes(dataset: Any, content: dict, report: Report) -> None:
    """Refuse file names that climb out of the image folder."""
    folder = roots(dataset)[0]
    for item in content['images']:
        name = item.get('file_name')
        if isinstance(name, str) and escapes(osp.join(folder, name), folder):
            report.refused.append(
                f'{dataset.ann_file}: the file_name of image {item.get("id")}, {name}, is outside of the image folder '
                f'{folder}'
            )


def left_out(dataset: Any, content: dict) -> list[str]:
    """How many images have no object, and how many a training passes over, by which setting."""
    empty, small = _empty(content), _small(dataset, content)
    lines = [f'{len(empty)} of {len(content["images"])} images have no object'] if empty else []
    settings = (not dataset.test_mode and dataset.filter_cfg) or {}
    if empty and settings.get('filter_empty_gt'):
        lines[0] += '; they are left out, since filter_cfg.filter_empty_gt is True'
    if small:
        lines.append(
            f'{len(small)} of {len(content["images"])} images are left out, since a side is under '
            f'filter_cfg.min_size={settings["min_size"]}'
        )
    return lines


def number_left_out(dataset: Any, content: dict) -> int:
    """How many images a training passes over."""
    settings = (not dataset.test_mode and dataset.filter_cfg) or {}
    empty = _empty(content) if settings.get('filter_empty_gt') else set()
    return len(empty | _small(dataset, content))


def _empty(content: dict) -> set:
    return {item.get('id') for item in content['images']} - {item.get('image_id') for item in content['annotations']}


def _small(dataset: Any, content: dict) -> set:
    least = ((not dataset.test_mode and dataset.filter_cfg) or {}).get('min_size', 0)
    return {item.get('id') for item in content['images'] if min(coco.size(item) or (least,)) < least}


def _pictures(content: dict, folder: str) -> list[Picture]:
    """What the audit looks at."""
    by_id = {
        item['id']: Picture(Path(folder, item['file_name']))
        for item in content['images']
        if isinstance(item.get('file_name'), str) and item.get('id') is not None
    }
    names = {item.get('id'): str(item.get('name')) for item in content['categories']}
    for item in content['annotations']:
        if item.get('image_id') in by_id and coco.is_box(item.get('bbox')):
            x, y, w, h = item['bbox']
            label = names.get(item.get('category_id'), '')
            by_id[item['image_id']].objects.append(
                Annotation(label, [x, y, x + w, y + h], crowd=bool(item.get('iscrowd')))
            )
    return list(by_id.values())


def _check_categories(dataset: Any, content: dict, report: Report) -> None:
    path = dataset.ann_file
    found = [str(category.get('name')) for category in content['categories']]
    wanted = list(dataset.metainfo['classes'])
    problems = coco.class_problems(content, path, wanted)
    others = [name for name in found if name not in wanted]
    report.problems += problems
    if not problems and [name for name in found if name in wanted] != wanted:
        report.notes.append(
            f'{path}: its categories are {some(found)} in this order; a run takes them in the order of the config, '
            f'{some(wanted)}'
        )
    if others and not problems:
        report.notes.append(f'{path}: objects of {some(others)} are left out, since the config has no such class')
    used = {annotation.get('category_id') for annotation in content['annotations']}
    unused = [
        category.get('name')
        for category in content['categories']
        if category.get('name') in wanted and category.get('id') not in used
    ]
    if unused:
        report.notes.append(f'{path}: {len(unused)} of {len(wanted)} classes have no object: {some(unused)}')


# Label images ---------------------------------------------------------------------------------------------------------


def _check_segmentation(dataset: Any, progress: Progress, report: Report) -> list[Picture]:
    image_folder, label_folder = roots(dataset)
    folders = [folder for folder in (image_folder, label_folder) if folder]
    gone = [folder for folder in folders if not fileio.isdir(folder)]
    if gone:
        report.problems.extend(f'{folder}: the folder does not exist' for folder in gone)
        return []
    listed = bool(dataset.ann_file) and not osp.isdir(dataset.ann_file)
    if listed and not fileio.isfile(dataset.ann_file):
        report.problems.append(f'{dataset.ann_file}: the file is missing')
        return []
    pairs = []
    for info in dataset.load_data_list():
        image, label = info['img_path'], info.get('seg_map_path')
        if escapes(image, image_folder):
            report.problems.append(
                f'{dataset.ann_file}: the entry {image} is outside of the image folder {image_folder}'
            )
        else:
            pairs.append((image, label))
    if not pairs:
        other = Counter(osp.splitext(name)[1] for name in fileio.list_dir_or_file(image_folder, list_dir=False))
        report.problems.append(
            f'{image_folder}: no image ends in {dataset.img_suffix} (img_suffix)'
            + (f'; there are files ending in {some(other)}' if other else '')
        )
        return []
    if label_folder and not listed:
        known = {osp.normpath(label) for _, label in pairs}
        for name in sorted(fileio.list_dir_or_file(label_folder, False, True, dataset.seg_map_suffix, recursive=True)):
            label = osp.join(label_folder, name)
            if osp.normpath(label) not in known:
                report.problems.append(f'{label}: a label image without an image')
    report.images += len(pairs)
    note_other_endings(dataset, image_folder, pairs, report)
    # Label images hold the values of the data set's own classes, of which a config may take some.
    names = list(dataset.METAINFO.get('classes') or dataset.metainfo.get('classes') or ())
    classes = len(names)
    seen = np.zeros(256, bool)

    def check(pair: tuple[str, str | None]) -> tuple[str | None, np.ndarray]:
        return _check_pair(*pair, dataset=dataset, classes=classes)

    for _, (problem, values) in _in_threads(check, pairs, progress, 'images and labels'):
        seen[values] = True
        if problem:
            report.problems.append(problem)
    report.problems += [line] if (line := binary_problem(dataset, label_folder, names, seen)) else []
    values_of_classes = enumerate(names, int(dataset.reduce_zero_label))
    absent = [name for value, name in values_of_classes if value < len(seen) and not seen[value]]
    if absent:
        report.notes.append(f'{label_folder}: {len(absent)} of {classes} classes have no pixel: {some(absent)}')
    return [Picture(Path(image)) for image, _ in pairs]


def binary_problem(dataset: Any, folder: str, names: Sequence[str], seen: np.ndarray) -> str | None:
    """One line where labels hold the first class and the value to ignore alone.

    Args:
        dataset: As built.
        folder: Of the labels.
        names: Of the classes.
        seen: Whether each of 256 values occurs.
    """
    if len(names) > 1 and seen[255] and not seen[1:255].any() and dataset.ignore_index == 255:
        return (
            f'{folder}: its labels hold 0 and 255 alone, and 255 is ignored, so only {names[0]} is learnt; '
            'the object has to be 1'
        )
    return None


def note_other_endings(dataset: Any, folder: str, pairs: list, report: Report) -> None:
    """Pictures that the data set passes over, for their ending."""
    if dataset.ann_file:
        return
    names = set(fileio.list_dir_or_file(folder, list_dir=False, recursive=True))
    left = sorted(
        name for name in names - {osp.relpath(image, folder) for image, _ in pairs} if _looks_like_image(name)
    )
    if left:
        report.notes.append(
            f'{folder}: {len(left)} images are left out, since they do not end in {dataset.img_suffix} (img_suffix): '
            f'{some(left)}'
        )


def _check_pair(image: str, label: str | None, dataset: Any, classes: int) -> tuple[str | None, np.ndarray]:
    """The first problem of an image and its label image, and the values that occur."""
    nothing = np.empty(0, int)
    read = _read_image(image, dataset.backend_args, dataset.max_pixels)
    if read.fault:
        return f'{image}: {read.fault}', nothing
    if label is None:
        return None, nothing
    try:
        content = fetch(label, dataset.backend_args)
        header = read_header(content)
        if header.mode not in ('L', 'P', '1'):
            raise BadSample(f'its mode is {header.mode}, expected 8-bit class indices (L or P)')
        labels = decode(content, 'unchanged', 'pillow')
    except BadSample as error:
        return f'{label}: {error}', nothing
    if labels.shape not in read.sizes:
        height, width = read.sizes[0]
        return f'{label}: it is {labels.shape[1]} x {labels.shape[0]} pixels, its image {width} x {height}', nothing
    values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    allowed = set(range(classes + dataset.reduce_zero_label)) | {dataset.ignore_index}
    wrong = [int(value) for value in values if int(value) not in allowed]
    if classes and wrong:
        meaning = '0 for no class, then 1' if dataset.reduce_zero_label else '0'
        top = classes - 1 + dataset.reduce_zero_label
        return (
            f'{label}: it holds the values {some(wrong)}; expected {meaning} to {top}, or {dataset.ignore_index} for '
            'pixels to ignore',
            values,
        )
    return None, values


# Folders and lists of classes -----------------------------------------------------------------------------------------


def _check_classification(dataset: Any, progress: Progress, report: Report) -> tuple[list[Picture], list[str] | None]:
    """Check the images; give them, and the names of the folders where these are the classes."""
    folder = roots(dataset)[0]
    if not fileio.isdir(folder):
        report.problems.append(f'{folder}: the folder does not exist')
        return [], None
    folders = None
    if dataset.ann_file:
        paths = _listed_images(dataset, folder, report)
    else:
        folders = sorted(fileio.list_dir_or_file(folder, list_file=False))
        paths = _foldered_images(dataset, folder, folders, report)
    report.images += len(paths)
    for path, image in _in_threads(lambda path: _read_image(path, None, dataset.max_pixels), paths, progress, 'images'):
        if image.fault:
            report.problems.append(f'{path}: {image.fault}')
    return [Picture(Path(path)) for path in paths], folders


def _listed_images(dataset: Any, folder: str, report: Report) -> list[str]:
    file = dataset.ann_file
    try:
        lines = fetch(file).decode().splitlines()
    except BadSample as error:
        report.problems.append(f'{file}: {error}')
        return []
    except UnicodeDecodeError as error:
        report.problems.append(f'{file}: it is not a text of one image and label per line: {error}')
        return []
    classes = len(dataset.metainfo.get('classes') or ())
    paths: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ') if dataset.with_label else (line.strip(), '', '0')
        path = osp.join(folder, name)
        if not name or not label.isdigit():
            report.problems.append(f'{file}, line {number}: expected an image and its label, got {line.strip()!r}')
        elif escapes(path, folder):
            report.problems.append(f'{file}, line {number}: {name} is outside of the image folder {folder}')
        elif path in paths:
            report.problems.append(f'{file}, line {number}: {name} stands in line {paths[path]} already')
        else:
            paths[path] = number
            if dataset.with_label and classes and int(label) >= classes:
                report.problems.append(
                    f'{file}, line {number}: the label of {name} is {label}, expected 0 to {classes - 1}'
                )
    return list(paths)


def folder_problem(dataset: Any, folder: str, folders: list[str]) -> str | None:
    """One line where the class folders are not the classes, or one is hidden."""
    hidden = [name for name in folders if name.startswith('.')]
    if hidden:
        return f'{folder}: the hidden folder {some(hidden)} would be a class; remove it, or move it elsewhere'
    wanted = list(dataset.metainfo.get('classes') or ())
    named = wanted != list(getattr(type(dataset), 'METAINFO', {}).get('classes') or ())
    # A data set's own classes, such as ImageNet's, are words, and its folders are codes: only the number can be held.
    if not wanted or (sorted(folders) == wanted if named else len(folders) == len(wanted)):
        return None
    missing = [name for name in wanted if named and name not in folders]
    more = [name for name in folders if named and name not in wanted]
    return (
        f"{folder}: its {len(folders)} folders are not the config's {len(wanted)} classes"
        + (f'; there is no folder {some(missing)}' if missing else '')
        + (f'; there is no class {some(more)}' if more else '')
        + ('' if missing or more or not named else f'; the classes have to be in the order {some(folders)}')
    )


def _foldered_images(dataset: Any, folder: str, folders: list[str], report: Report) -> list[str]:
    if not dataset.with_label:
        names = sorted(fileio.list_dir_or_file(folder, list_dir=False, recursive=True))
        return [osp.join(folder, name) for name in names if dataset.is_valid_file(name)]
    report.problems += [line] if (line := folder_problem(dataset, folder, folders)) else []
    for name in sorted(fileio.list_dir_or_file(folder, list_dir=False)):
        if _looks_like_image(name):
            report.problems.append(f'{osp.join(folder, name)}: an image in no class folder')
    paths = []
    for name in folders:
        files = sorted(fileio.list_dir_or_file(osp.join(folder, name), list_dir=False, recursive=True))
        found = [osp.join(folder, name, file) for file in files if dataset.is_valid_file(file)]
        unread = [file for file in files if _looks_like_image(file) and not dataset.is_valid_file(file)]
        if unread:
            endings = ', '.join(sorted({osp.splitext(file)[1] for file in unread}))
            report.problems.append(
                f'{osp.join(folder, name)}: {len(unread)} images would not be read, for their endings {endings}: '
                f'{some(unread)}'
            )
        elif not found:
            report.problems.append(f'{osp.join(folder, name)}: the class has no image')
        paths.extend(found)
    return paths


def _looks_like_image(name: str) -> bool:
    return not osp.basename(name).startswith('.') and osp.splitext(name)[1].lower() in _IMAGE_SUFFIXES


# Any other data set ---------------------------------------------------------------------------------------------------


def _check_other(dataset: Any, progress: Progress, report: Report) -> None:
    if isinstance(getattr(dataset, 'download', None), bool):
        dataset.download = False  # to check data is not to fetch them
    try:
        infos = dataset.load_data_list()
    except (OSError, ValueError, KeyError, TypeError, AssertionError, RuntimeError) as error:
        report.problems.append(f'{type(dataset).__name__} cannot be read: {" ".join(str(error).split())}')
        return
    classes = len(dataset.metainfo.get('classes') or ())
    folder = roots(dataset)[0]
    paths = []
    for place, info in enumerate(infos):
        path, label = info.get('img_path'), info.get('gt_label')
        if isinstance(path, str):
            if escapes(path, folder):
                report.problems.append(f'{path}: it is outside of the image folder {folder}')
            else:
                paths.append(path)
        if classes and isinstance(label, (int, np.integer)) and not 0 <= label < classes:
            report.problems.append(f'{path or f"sample {place}"}: its label is {label}, expected 0 to {classes - 1}')
    report.images += len(paths)
    backend_args = getattr(dataset, 'backend_args', None)
    for path, image in _in_threads(
        lambda path: _read_image(path, backend_args, dataset.max_pixels), paths, progress, 'images'
    ):
        if image.fault:
            report.problems.append(f'{path}: {image.fault}')


# The config as a whole ------------------------------------------------------------------------------------------------


def check_config(cfg: Config, splits: Sequence[str] = SPLITS, progress: Progress = no_progress) -> Report:
    """Read all the data that a config names.

    Args:
        cfg: A config of detection, classification or segmentation.
        splits: Which of ``train``, ``val`` and ``test``. Data that two splits share are read once.
        progress: Shows how far the reading is.

    Returns:
        The problems, empty where the data are good, and notes.

    Raises:
        UserError: The config names no data for these splits.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    report = Report()
    limit = ((cfg.get('default_hooks') or {}).get('data_guard') or {}).get('max_pixels', MAX_PIXELS)
    checked: dict[str, str] = {}
    folders: dict[str, list[str]] = {}
    samples: dict[str, list[Picture]] = {}
    for split in splits:
        for entry in leaf_datasets(cfg, split):
            dataset = open_dataset(entry.cfg, split, report, limit)
            if dataset is None:
                continue
            data = repr((type(dataset), dataset.ann_file, dataset.data_prefix, dataset.metainfo.get('classes')))
            if data in checked:
                report.notes.append(f'{split}: the same data as {checked[data]}')
                continue
            checked[data] = split
            part = Report()
            pictures, found = _check_one(dataset, entry.cfg, progress, part)
            if is_local(dataset):
                samples.setdefault(split, []).extend(pictures)
            if found and not dataset.metainfo.get('classes'):
                folders[split] = found
            report.images += part.images
            report.problems.extend(f'{split}: {line}' for line in part.problems)
            report.notes.extend(f'{split}: {line}' for line in part.notes)
            report.problems.extend(
                f'{split}: {line}' for line in class_number_problems(cfg, dataset) if len(checked) == 1
            )
            report.problems.extend(_evaluator_problems(cfg, split, dataset))
    if not checked and not report.problems:
        raise UserError(f'the config names no data for {", ".join(splits)}: it has no dataloader with a dataset')
    for split in list(folders)[1:]:
        first = next(iter(folders))
        if folders[split] != folders[first]:
            report.problems.append(
                f'{split}: its class folders are {some(folders[split])}, those of {first} {some(folders[first])}'
            )
    paths = {picture.path for pictures in samples.values() for picture in pictures}
    audit(samples, dict(probe_all(sorted(paths))), (), report)
    return report


def open_dataset(cfg: dict, split: str, report: Report, max_pixels: int = MAX_PIXELS) -> Any:
    """The data set of a config with nothing read, or None and a problem; an image may have ``max_pixels``."""
    settings = {**cfg, 'pipeline': [], 'lazy_init': True}
    try:
        dataset = DATASETS.build(settings)
    except (AssertionError, ValueError, TypeError, KeyError, OSError) as error:
        report.problems.append(f'{split}: {cfg.get("type")} cannot be set up: {" ".join(str(error).split())}')
        return None
    dataset.max_pixels = max_pixels
    return dataset


def _check_one(dataset: Any, cfg: dict, progress: Progress, report: Report) -> tuple[list[Picture], list[str] | None]:
    """The pictures, and the names of their folders where these are the classes."""
    if is_a(dataset, 'mmdet.datasets', 'CocoDataset'):
        return _check_coco(dataset, loads_masks(cfg.get('pipeline') or ()), progress, report), None
    if is_a(dataset, 'mmseg.datasets', 'BaseSegDataset'):
        return _check_segmentation(dataset, progress, report), None
    if is_a(dataset, 'mmpretrain.datasets', 'CustomDataset'):
        return _check_classification(dataset, progress, report)
    _check_other(dataset, progress, report)
    return [], None


def loads_masks(value: Any) -> bool:
    """Whether a pipeline loads masks."""
    if isinstance(value, dict):
        return bool(value.get('with_mask')) or any(loads_masks(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(loads_masks(item) for item in value)


def class_number_problems(cfg: Config, dataset: Any) -> Iterator[str]:
    """Heads of another number of classes than the data."""
    classes = len(dataset.metainfo.get('classes') or ())
    if classes:
        for part in ('model', 'data_preprocessor'):
            for key, number in _class_numbers(cfg.get(part) or {}, part):
                if number != classes:
                    yield f'{key} is {number}, but the data set has {classes} classes'


def _class_numbers(value: Any, key: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name == 'num_classes' and isinstance(item, int):
                yield f'{key}.{name}', item
            elif name not in ('backbone', 'neck', 'rpn_head'):
                yield from _class_numbers(item, f'{key}.{name}')
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _class_numbers(item, f'{key}.{index}')


def _evaluator_problems(cfg: Config, split: str, dataset: Any) -> Iterator[str]:
    if split == 'train' or not dataset.ann_file:
        return
    for entry in evaluators(cfg, split):
        file = entry.cfg.get('ann_file')
        if file and osp.normpath(file) != osp.normpath(dataset.ann_file):
            yield f'{split}: {entry.key}.ann_file is {file}, but the data set reads {dataset.ann_file}'
