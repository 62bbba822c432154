# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Labelled pictures of one split, in the form that scores need, from a prepared folder, a config or plain files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmlightvit.errors import UserError, listed
from mmlightvit.pictures import coco
from mmlightvit.pictures.read import displayed_size, read_label_map
from mmlightvit.tasks import CLASSIFICATION, DETECTION, INSTANCE, SEGMENTATION, TASKS


class Ids(NamedTuple):
    """The ids of a COCO file, as results about it name them.

    Attributes:
        image: The id in :attr:`Truth.coco` of an image, or None.
        category: The name of a category, or None.
    """

    image: Callable[[Any], Any]
    category: Callable[[Any], str | None]


@dataclass(frozen=True)
class Truth:
    """The labels of a split.

    Attributes:
        name: For people.
        task: ``'classification'``, ``'detection'``, ``'instance'`` or ``'segmentation'``.
        classes: Names, by place.
        pictures: Names of the files, below ``root``.
        root: Folder of the pictures; None where nobody knows it, and then none is shown.
        coco: Detection, instance: COCO's dict; categories in the order of ``classes``, their ids from 1.
        ids: Of the file that it comes from.
        labels: Classification: the class of each picture.
        maps: Segmentation: the file with the class of each pixel.
        remap: Segmentation: the class of a value in these files, where that is not the value itself.
        ignore: Segmentation: the class that does not count.
        notes: Remarks for a reader of the numbers.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    pictures: tuple[str, ...]
    root: Path | None = None
    coco: dict[str, Any] | None = None
    ids: Ids | None = None
    labels: NDArray[np.int64] | None = None
    maps: tuple[Path, ...] = ()
    remap: Mapping[int, int] = field(default_factory=dict)
    ignore: int = 255
    notes: tuple[str, ...] = ()

    def place_of(self, path: str) -> int | None:
        """The picture that a path means: its name here, the file itself, or the only file of that name."""
        if not hasattr(self, '_places'):
            places: dict[str, int | None] = {}
            for place, name in enumerate(self.pictures):
                base = Path(name).name
                places[base] = None if base in places else place
            for place, name in enumerate(self.pictures):
                places[name] = place
                if self.root is not None:
                    places[str((self.root / name).absolute())] = place
            object.__setattr__(self, '_places', places)
        by_name: dict[str, int | None] = getattr(self, '_places')  # noqa: B009
        for key in (path, str(Path(path).absolute()), Path(path).name):
            if by_name.get(key) is not None:
                return by_name[key]
        return None

    def path_of(self, place: int) -> Path | None:
        """The file of a picture, where there is one."""
        path = None if self.root is None else self.root / self.pictures[place]
        return path if path is not None and path.is_file() else None

    def label_map(self, place: int) -> NDArray[np.int64]:
        """The class of each pixel of a picture.

        Raises:
            UserError: The file cannot be read.
        """
        pixels = read_label_map(self.maps[place]).astype(np.int64)
        if self.remap:
            table = np.arange(max(*self.remap, int(pixels.max(initial=0))) + 1)
            table[list(self.remap)] = list(self.remap.values())
            pixels = table[pixels]
        return pixels

    def check_task(self, task: str, classes: Sequence[str] = ()) -> None:
        """Labels of this kind say something about a model of ``task``; its ``classes``, if given, are the labels'.

        Raises:
            UserError: They do not.
        """
        if TASKS[task].kind != TASKS[self.task].kind:
            raise UserError(f'the model is for {task}, and {self.name} is labelled for {self.task}')
        if classes and tuple(classes) != self.classes:
            raise UserError(f'the model knows {listed(classes, 5)}, and {self.name} has {listed(self.classes, 5)}')

    def for_classes(self, classes: Sequence[str]) -> Truth:
        """Objects of a model's classes, which is what can be asked of it; what is left out becomes a note.

        Raises:
            UserError: They have no class in common.
        """
        assert self.coco is not None
        both = tuple(name for name in classes if name in self.classes)
        if not both:
            known, labelled = listed(classes, 5), listed(self.classes, 5)
            raise UserError(f'the model knows {known}, and {self.name} has {labelled}: no class in common')
        notes = list(self.notes)
        unknown = [name for name in self.classes if name not in classes]
        absent = [name for name in classes if name not in self.classes]
        if unknown:
            notes.append(f'The model does not know {listed(unknown, 5)}; objects of these classes are left out.')
        if absent:
            notes.append(f'{self.name} does not have {listed(absent, 5)}; detections of these classes are left out.')
        ids = {self.classes.index(name) + 1: number for number, name in enumerate(both, 1)}
        annotations = [
            {**item, 'category_id': ids[item['category_id']]}
            for item in self.coco['annotations']
            if item['category_id'] in ids
        ]
        categories = [dict(id=number, name=name) for number, name in enumerate(both, 1)]
        labels = {**self.coco, 'annotations': annotations, 'categories': categories}
        return replace(self, classes=both, coco=labels, notes=tuple(notes))


def of_data(data: str, split: str) -> Truth:
    """The labels of a split of DATA: a prepared folder, a config ``.py``, or a COCO file ``.json``.

    Raises:
        UserError: There is no such data, or not such a split.
    """
    path = Path(data).expanduser()
    if path.suffix == '.py':
        return of_config(path, split)
    if path.suffix == '.json':
        return of_coco(path, path.parent)
    from mmlightvit.data.folder import DatasetFolder

    folder = DatasetFolder.load(path)
    file, name = folder.file_of(split), f'{path.name} ({split})'
    if TASKS[folder.task].has_objects:
        return of_coco(file, folder.images, name)
    lines = file.read_text(encoding='utf-8').splitlines()
    if TASKS[folder.task].has_label_map:
        maps = tuple(folder.label_map(line) for line in lines)
        return Truth(name, folder.task, folder.classes, tuple(lines), folder.images, maps=maps)
    names, labels = zip(*(line.rsplit(' ', 1) for line in lines)) if lines else ((), ())
    return Truth(name, folder.task, folder.classes, names, folder.images, labels=np.array(labels, np.int64))


def of_coco(
    source: str | Path | Mapping[str, Any],
    root: Path | None = None,
    name: str | None = None,
    with_mask: bool | None = None,
) -> Truth:
    """The labels of a COCO file, or of its content, as a run reads them.

    Args:
        source: The file or the content.
        root: Folder that the pictures' names begin at.
        name: For people; by default the file's name.
        with_mask: Whether masks count, as of :func:`mmlightvit.pictures.coco.apply`.

    Raises:
        UserError: It cannot be read or is no COCO file.
    """
    if isinstance(source, Mapping):
        title = name or 'data'
        content = {key: [dict(item) for item in source[key]] for key in ('images', 'annotations', 'categories')}
    else:
        title = name or Path(source).stem
        content = coco.read(Path(source))
    if not content['images']:
        raise UserError(f'{title} has no pictures, so nothing can be measured on it')
    findings = coco.complete(
        content,
        title if isinstance(source, Mapping) else source,
        lambda item: displayed_size(root / item['file_name']) if root is not None else None,
        with_mask,
    )
    entry = {item['id']: item for item in content['images']}
    counted = [item for item in content['annotations'] if not item['iscrowd']]
    masked = counted and all(item.get('segmentation') for item in counted)
    if masked and with_mask is False:
        masked = not any(coco.mask_fault(item['segmentation'], entry[item['image_id']]) for item in counted)
    classes = tuple(item['name'] for item in content['categories'])
    place = {item['id']: number for number, item in enumerate(content['categories'], 1)}
    labels = dict(
        images=content['images'],
        annotations=[{**item, 'category_id': place[item['category_id']]} for item in content['annotations']],
        categories=[dict(id=number, name=label) for number, label in enumerate(classes, 1)],
    )
    notes = [f'Completed: {note}.' for note in findings.notes()]
    if faults := findings.unusable():
        notes.append(f'Left out, since it cannot be used: {listed(faults)}.')
    pictures = tuple(item['file_name'] for item in content['images'])
    category = {item['id']: item['name'] for item in content['categories']}
    ids = Ids(functools.partial(findings.id_of, 'images'), lambda key: category.get(findings.id_of('categories', key)))
    return Truth(
        title, INSTANCE if masked else DETECTION, classes, pictures, root, coco=labels, ids=ids, notes=tuple(notes)
    )


def of_config(path: Path, split: str) -> Truth:
    """The labels of the data set that a config tests on.

    Raises:
        UserError: It has no such split, or its data set is of a kind whose labels are not known here.
    """
    from mmengine.config import Config
    from mmengine.registry import DATASETS, DefaultScope

    from mmlightvit.data.data_root import evaluators
    from mmlightvit.toolboxes import TOOLBOXES, import_toolbox, require_toolbox

    try:
        cfg = Config.fromfile(str(path))
    except (OSError, SyntaxError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f'config {path} cannot be read: {error}') from None
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        raise UserError(f'{path} has no {split} data ({split}_dataloader)')
    require_toolbox(cfg.get('default_scope'), str(path))
    import_toolbox(cfg.default_scope)
    try:
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            dataset: Any = DATASETS.build({**loader.dataset, 'pipeline': [], 'test_mode': True, 'lazy_init': True})
            reads_coco = TASKS[TOOLBOXES[cfg.default_scope].task].has_objects and hasattr(dataset, 'COCOAPI')
            if not reads_coco:  # which is read here, as the run completes it
                dataset.full_init()
    except (OSError, KeyError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f'the {split} data of {path} cannot be read: {error}; see mmlightvit check') from None
    classes, name = tuple(dataset.metainfo['classes']), f'{path.stem} ({split})'
    if TASKS[TOOLBOXES[cfg.default_scope].task].has_objects:
        if not reads_coco:
            raise UserError(f'{path}: its data is a {type(dataset).__name__}; a report of detections takes COCO files')
        root = dataset.data_prefix.get('img')
        with_mask = any('segm' in (entry.cfg.get('metric') or ()) for entry in evaluators(cfg, split))
        return of_coco(Path(dataset.ann_file), Path(root) if root else None, name, with_mask).for_classes(classes)
    infos = [dataset.get_data_info(place) for place in range(len(dataset))]
    pictures = tuple(str(Path(info['img_path']).absolute()) for info in infos)
    if TOOLBOXES[cfg.default_scope].task == CLASSIFICATION:
        labels = np.array([info['gt_label'] for info in infos], np.int64)
        return Truth(name, CLASSIFICATION, classes, pictures, Path('/'), labels=labels)
    remap = dict(dataset.label_map or {})
    if dataset.reduce_zero_label:  # 0 is ignored, and every other value is one class lower
        remap = {0: 255, 255: 255, **{value: value - 1 for value in range(1, 255)}}
    maps = tuple(Path(info['seg_map_path']) for info in infos)
    return Truth(name, SEGMENTATION, classes, pictures, Path('/'), maps=maps, remap=remap, ignore=dataset.ignore_index)
