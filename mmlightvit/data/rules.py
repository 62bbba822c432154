# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The rules over the data of a config, in one table of kind of data x stage, and the report that they fill.

========== =================================== ========================================= ==============================
of         ``paths``, before an import         ``labels``, before a run                  ``pixels``, on request
========== =================================== ========================================= ==============================
any        files and folders are there         heads, losses and batches fit             pictures decode, none is in two
                                                                                         splits
COCO files                                     :mod:`mmlightvit.pictures.coco`, classes  their sizes are those stated
label maps                                     each has a picture, 0 and 255 alone       size, mode and values
classes                                        folders or lists are those of the classes
========== =================================== ========================================= ==============================

Each stage holds those before it. ``paths`` is :mod:`mmlightvit.data.paths`; here are the labels; the pixels are
:mod:`mmlightvit.data.check`'s. One fault gives one line: what cannot be told because of an earlier one is not
guessed at.

Reading order: report -> reading and holding -> label maps -> folders and lists of classes -> any other data set ->
the config.
"""

from __future__ import annotations

import os.path as osp
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from mmengine import dist, fileio
from mmengine.config import Config
from PIL import Image

from mmlightvit.data.datasets import CLASSES, LABEL_MAPS, OTHER, DataSet
from mmlightvit.durable.images import BadSample, decode, escapes, fetch
from mmlightvit.pictures import coco
from mmlightvit.pictures.coco import some

_PICTURES = frozenset(Image.registered_extensions())
#: Label maps of a set that are read before a run.
_LOOKED_AT = 64


@dataclass
class Report:
    """What a check found, in the order of reading.

    Args:
        refused: Lines that end a run at once: a toolbox would stop there, or learn something else.
        faults: Other problems, one line each.
        warnings: What makes a measurement meaningless, and may be meant.
        notes: Facts that may be meant.
        images: Picture files read, label maps not counted.
        leaks: Pairs of pictures in two splits, and whether they are the same or nearly.
    """

    refused: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    images: int = 0
    leaks: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """One line per fault."""
        return list(dict.fromkeys([*self.refused, *self.faults]))

    def add(self, split: str, part: Report) -> None:
        """Add what was found in a split."""
        for name in ('refused', 'faults', 'warnings', 'notes'):
            getattr(self, name).extend(f'{split}: {line}' for line in getattr(part, name))
        self.images += part.images

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        content = asdict(self)
        del content['faults']
        return {'problems': self.problems, **content}


class Named(NamedTuple):
    """A picture that the labels name: its path, its label map, and what names it, for a message."""

    image: str
    label: str | None
    where: str


class Look(Protocol):
    """A picture that was read: why it cannot be used, its size as displayed and as stored."""

    @property
    def fault(self) -> str | None: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def stored(self) -> tuple[int, int]: ...


@dataclass
class Part:
    """A data set while it is checked.

    Attributes:
        data: The data set.
        report: What was found in it.
        stored: The bytes of its COCO file.
        content: Of its COCO file; after the rules completed, and without what cannot be used.
        findings: What the rules of COCO files did.
        named: The pictures that its labels name.
        with_mask: Masks are needed.
        measured: A metric reads its labels.
    """

    data: DataSet
    report: Report = field(default_factory=Report)
    stored: bytes = b''
    content: dict | None = None
    findings: coco.Findings | None = None
    named: list[Named] = field(default_factory=list)
    with_mask: bool = False
    measured: bool = True


def read_labels(part: Part) -> None:
    """Read the labels of a data set as they stand: which pictures they name, and what is wrong with that."""
    data, report = part.data, part.report
    if data.kind == LABEL_MAPS:
        part.named = _name_label_maps(data, report)
    elif data.kind == CLASSES:
        part.named = _name_classes(data, report)
    elif data.kind == OTHER:
        part.named = _name_others(data, report)
    else:
        try:
            part.stored = fetch(data.file, data.backend_args)
            part.content = coco.parse(part.stored, labelled=data.learns)
        except ValueError as error:  # BadSample is one
            report.refused.append(f'{data.file}: {error}')
        for item in part.content['images'] if part.content else ():
            name = item.get('file_name')
            if isinstance(name, str):
                where = f'{data.file}: the file_name of image {item.get("id")}, {name},'
                part.named.append(Named(osp.join(data.images, name.replace('\\', '/')), None, where))
    outside = [item for item in part.named if escapes(item.image, data.images)]
    report.refused += [f'{item.where} is outside of the image folder {data.images}' for item in outside]
    part.named = [item for item in part.named if item not in set(outside)]


def check_labels(part: Part, looks: Mapping[str, Look] | None = None) -> int:
    """Hold the rules over labels that were read; the number of samples.

    Args:
        part: The data set.
        looks: By the path of a picture, where all were read.
    """
    data, report, content = part.data, part.report, part.content
    for entry in data.evaluators if data.split != 'train' and data.file else ():
        file = entry.cfg.get('ann_file')
        if file and osp.normpath(file) != osp.normpath(data.file):
            report.faults.append(f'{entry.key}.ann_file is {file}, but the data set reads {data.file}')
    if data.kind == LABEL_MAPS and looks is None:
        check_values(data, _values_of_some(data, part.named), report)
    if looks is not None:
        report.images = len(part.named)
        report.faults += [f'{item.image}: {fault}' for item in part.named if (fault := looks[item.image].fault)]
    if content is None:
        return len(part.named)
    if not content['images']:
        report.faults.append(f'{data.file}: it holds no image')
    for item in content['images']:
        path = osp.join(data.images, str(item.get('file_name')).replace('\\', '/'))
        look, stated = (looks or {}).get(path), coco.size(item)
        if look is None or look.fault or stated in (look.size, look.stored):
            continue
        if stated is not None:
            report.faults.append(
                f'{path}: it is {look.size[1]} x {look.size[0]} pixels, but {data.file} says {stated[1]} x {stated[0]}'
            )
        item['height'], item['width'] = look.size  # the rules after this one go on with these
    wrong, notes = coco.class_problems(content, data.file, data.classes), []
    found = [str(item.get('name')) for item in content['categories']]
    if not wrong and [name for name in found if name in data.classes] != data.classes:
        notes.append(
            f'{data.file}: its categories are {coco.some(found)} in this order; a run takes them in the order of the '
            f'config, {coco.some(data.classes)}'
        )
    others = [name for name in found if name not in data.classes]
    if others and not wrong:
        notes.append(f'{data.file}: objects of {coco.some(others)} are left out, since the config has no such class')
    without = coco.no_masks(content, data.file) if part.with_mask else None
    part.findings = findings = coco.apply(content, data.size_of, part.with_mask and not without)
    objects = [fault for fault in findings.faults if fault.kind == 'annotations']
    stops = [fault for fault in findings.faults if fault.stops]
    if data.learns and objects and len(objects) == len(content['annotations']):
        stops = stops or objects  # nothing would be learnt
    refusal, before = coco.refusal(stops, data.file), len(content['annotations'])
    coco.leave_out(content, findings.unusable())
    nothing = coco.nothing_to_learn(content, data.file, data.classes) if content['images'] else None
    lines, samples = coco.left_out(content, data.filter)
    used = {item['category_id'] for item in content['annotations']}
    unused = [item['name'] for item in content['categories'] if item['name'] in data.classes and item['id'] not in used]
    if unused and not nothing:
        lines.append(f'{data.file}: {len(unused)} of {len(data.classes)} classes have no object: {coco.some(unused)}')
    report.refused += [*wrong, *filter(None, [without, refusal, nothing if data.learns else None])]
    report.faults += [f'{data.file}: {fault}' for fault in findings.faults if fault not in stops[:1]]
    report.notes += [*notes, *(f'{data.file}: {note}' for note in findings.notes()), *lines]
    if not data.learns and (gone := before - len(content['annotations'])):
        report.warnings.append(f'{data.file}: {gone} objects are left out of what is measured')
    if nothing and not data.learns and part.measured:
        report.warnings.append(f'{nothing}: average precision has no meaning then')
    return samples


# Label maps -----------------------------------------------------------------------------------------------------------


def _name_label_maps(data: DataSet, report: Report) -> list[Named]:
    gone = [folder for folder in (data.images, data.labels) if folder and not fileio.isdir(folder)]
    if gone:
        report.refused += [f'{folder}: the folder does not exist' for folder in gone]
        return []
    listed = bool(data.file) and not osp.isdir(data.file)
    if listed and not fileio.isfile(data.file):
        report.refused.append(f'{data.file}: the file is missing')
        return []
    pairs = [(info['img_path'], info.get('seg_map_path')) for info in data.built.load_data_list()]
    if not pairs:
        other = Counter(osp.splitext(name)[1] for name in fileio.list_dir_or_file(data.images, list_dir=False))
        report.refused.append(
            f'{data.images}: no image ends in {data.built.img_suffix} (img_suffix)'
            + (f'; there are files ending in {some(other)}' if other else '')
        )
        return []
    if data.labels and not listed:
        known = {osp.normpath(label) for _, label in pairs if label}
        suffix = data.built.seg_map_suffix
        for name in sorted(fileio.list_dir_or_file(data.labels, False, True, suffix, recursive=True)):
            if osp.normpath(osp.join(data.labels, name)) not in known:
                report.faults.append(f'{osp.join(data.labels, name)}: a label image without an image')
    if not data.file:
        names = set(fileio.list_dir_or_file(data.images, list_dir=False, recursive=True))
        left = sorted(filter(_looks_like_image, names - {osp.relpath(image, data.images) for image, _ in pairs}))
        if left:
            report.notes.append(
                f'{data.images}: {len(left)} images are left out, since they do not end in {data.built.img_suffix} '
                f'(img_suffix): {some(left)}'
            )
    return [Named(image, label, f'{data.file}: the entry {image}') for image, label in pairs]


def _values_of_some(data: DataSet, named: list[Named]) -> np.ndarray:
    """Whether each of 256 values occurs, in some of the label maps."""
    seen = np.zeros(256, bool)
    labels = [item.label for item in named if item.label]
    for label in labels[:: max(1, len(labels) // _LOOKED_AT)]:
        try:
            values = decode(fetch(label, data.backend_args), 'unchanged', 'pillow')
        except BadSample:
            continue  # named where all are read, and by the guard
        if values.dtype == np.uint8:
            seen[np.unique(values)] = True
    return seen


def check_values(data: DataSet, seen: np.ndarray, report: Report) -> None:
    """Label maps of the first class and the value to ignore alone."""
    names = data.own_classes or data.classes
    if len(names) > 1 and seen[255] and not seen[1:255].any() and data.built.ignore_index == 255:
        report.refused.append(
            f'{data.labels}: its labels hold 0 and 255 alone, and 255 is ignored, so only {names[0]} is learnt; '
            'the object has to be 1'
        )


# Folders and lists of classes -----------------------------------------------------------------------------------------


def _name_classes(data: DataSet, report: Report) -> list[Named]:
    """The pictures of class folders, or of a list; the folders' names become the classes where there are no others."""
    if not fileio.isdir(data.images):
        report.refused.append(f'{data.images}: the folder does not exist')
        return []
    if data.file:
        return _name_listed(data, report)
    if not data.built.with_label:
        names = sorted(fileio.list_dir_or_file(data.images, list_dir=False, recursive=True))
        paths = [osp.join(data.images, name) for name in names if data.built.is_valid_file(name)]
        return [Named(path, None, path) for path in paths]
    folders = sorted(fileio.list_dir_or_file(data.images, list_file=False))
    report.refused += filter(None, [_folder_problem(data, folders)])
    data.classes = data.classes or folders
    for name in sorted(fileio.list_dir_or_file(data.images, list_dir=False)):
        if _looks_like_image(name):
            report.faults.append(f'{osp.join(data.images, name)}: an image in no class folder')
    return [Named(path, None, path) for name in folders for path in _images_of_class(data, name, report)]


def _folder_problem(data: DataSet, folders: list[str]) -> str | None:
    """One line where the class folders are not the classes, or one is hidden."""
    hidden = [name for name in folders if name.startswith('.')]
    if hidden:
        return f'{data.images}: the hidden folder {some(hidden)} would be a class; remove it, or move it elsewhere'
    wanted, named = data.classes, data.classes != data.own_classes
    # A data set's own classes, such as ImageNet's, are words, and its folders are codes: only the number can be held.
    if not wanted or (sorted(folders) == wanted if named else len(folders) == len(wanted)):
        return None
    missing = [name for name in wanted if named and name not in folders]
    more = [name for name in folders if named and name not in wanted]
    return (
        f"{data.images}: its {len(folders)} folders are not the config's {len(wanted)} classes"
        + (f'; there is no folder {some(missing)}' if missing else '')
        + (f'; there is no class {some(more)}' if more else '')
        + ('' if missing or more or not named else f'; the classes have to be in the order {some(folders)}')
    )


def _images_of_class(data: DataSet, name: str, report: Report) -> list[str]:
    folder = osp.join(data.images, name)
    files = sorted(fileio.list_dir_or_file(folder, list_dir=False, recursive=True))
    found = [osp.join(folder, file) for file in files if data.built.is_valid_file(file)]
    unread = [file for file in files if _looks_like_image(file) and not data.built.is_valid_file(file)]
    if unread:
        endings = ', '.join(sorted({osp.splitext(file)[1] for file in unread}))
        report.faults.append(
            f'{folder}: {len(unread)} images would not be read, for their endings {endings}: {some(unread)}'
        )
    elif not found:
        report.faults.append(f'{folder}: the class has no image')
    return found


def _name_listed(data: DataSet, report: Report) -> list[Named]:
    try:
        lines = fetch(data.file).decode().splitlines()
    except BadSample as error:
        report.refused.append(f'{data.file}: {error}')
        return []
    except UnicodeDecodeError as error:
        report.refused.append(f'{data.file}: it is not a text of one image and label per line: {error}')
        return []
    places: dict[str, int] = {}
    named, last = [], len(data.classes) - 1
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ') if data.built.with_label else (line.strip(), '', '0')
        path, place = osp.join(data.images, name), f'{data.file}, line {number}'
        if not name or not label.isdigit():
            report.faults.append(f'{place}: expected an image and its label, got {line.strip()!r}')
        elif path in places:
            report.faults.append(f'{place}: {name} stands in line {places[path]} already')
        else:
            places[path] = number
            named.append(Named(path, None, f'{place}: {name}'))
            if data.built.with_label and data.classes and int(label) > last:
                report.faults.append(f'{place}: the label of {name} is {label}, expected 0 to {last}')
    return named


def _looks_like_image(name: str) -> bool:
    return not osp.basename(name).startswith('.') and osp.splitext(name)[1].lower() in _PICTURES


# Any other data set ---------------------------------------------------------------------------------------------------


def _name_others(data: DataSet, report: Report) -> list[Named]:
    """The pictures of a data set that is known by what it lists alone."""
    built = data.built
    if isinstance(getattr(built, 'download', None), bool):
        built.download = False  # to check data is not to fetch them
    try:
        infos = built.load_data_list()
    except (OSError, ValueError, KeyError, TypeError, AssertionError, RuntimeError) as error:
        report.faults.append(f'{type(built).__name__} cannot be read: {" ".join(str(error).split())}')
        return []
    named, classes = [], len(data.classes)
    for place, info in enumerate(infos):
        path, label = info.get('img_path'), info.get('gt_label')
        if isinstance(path, str):
            named.append(Named(path, None, f'{path}: it'))
        if classes and isinstance(label, (int, np.integer)) and not 0 <= label < classes:
            report.faults.append(f'{path or f"sample {place}"}: its label is {label}, expected 0 to {classes - 1}')
    return named


# The config -----------------------------------------------------------------------------------------------------------


def check_model(cfg: Config, report: Report) -> None:
    """Heads and batches with which nothing can be learnt, whatever the data."""
    model = cfg.get('model') or {}
    batch = (cfg.get('train_dataloader') or {}).get('batch_size')
    heads = [(part, head) for part in ('decode_head', 'auxiliary_head') for head in _several(model.get(part))]
    for part, head in heads:
        losses = _several(head.get('loss_decode'))
        if head.get('num_classes') == 1 and losses and not any(loss.get('use_sigmoid') for loss in losses):
            report.refused.append(
                f'model.{part} has one class and a softmax loss, which is 0 whatever it predicts: name the '
                'background a class too, or set loss_decode.use_sigmoid=True'
            )
        norm = (head.get('norm_cfg') or {}).get('type')
        alone = norm == 'BN' or (norm == 'SyncBN' and dist.get_world_size() == 1)
        pooled = (1, 2, 3, 6) if head.get('type') in ('UPerHead', 'PSPHead') else ()
        if batch == 1 and alone and 1 in (head.get('pool_scales') or pooled):
            report.refused.append(
                f'train_dataloader.batch_size is 1, and model.{part} ({head.get("type")}) normalises over the '
                'batch what it pools to one value each; use a batch size of 2 or more'
            )


def _several(value: Any) -> list[dict]:
    return [item for item in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(item, dict)]


def check_fit(cfg: Config, data: DataSet, report: Report) -> None:
    """Heads of another number of classes than the data."""
    classes = len(data.classes)
    for part in ('model', 'data_preprocessor') if classes else ():
        for key, number in _class_numbers(cfg.get(part) or {}, part):
            if number != classes:
                report.refused.append(f'{key} is {number}, but the data set has {classes} classes')


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


def check_batches(cfg: Config, samples: int, report: Report) -> None:
    """A training set smaller than its batch."""
    loader, ranks = cfg.train_dataloader, dist.get_world_size()
    batch = loader.get('batch_size')
    if loader.get('drop_last') and isinstance(batch, int) and -(-samples // ranks) < batch:
        processes = f' for each of {ranks} processes' if ranks > 1 else ''
        report.refused.append(
            f'{samples} samples make no batch of {batch}{processes}, and train_dataloader.drop_last=True drops smaller '
            'ones; use a smaller train_dataloader.batch_size'
        )
