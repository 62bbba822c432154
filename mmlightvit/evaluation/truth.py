# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Labelled pictures of one split, in the form that scores need, from a prepared folder, a config or plain files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.errors import UserError


@dataclass(frozen=True)
class Truth:
    """The labels of a split.

    Attributes:
        name: What people call it.
        task: ``'classification'``, ``'detection'``, ``'instance'`` or ``'segmentation'``.
        classes: Names, by place.
        pictures: Names of the files, below ``root``.
        root: Folder of the pictures; None where nobody knows it, and then none is shown.
        coco: Detection, instance: COCO's dict; categories in the order of ``classes``, their ids from 1, those of the
            file in ``category_ids``.
        labels: Classification: the class of each picture.
        maps: Segmentation: the file with the class of each pixel.
        remap: Segmentation: the class of a value in these files, where that is not the value itself.
        ignore: Segmentation: the class that does not count.
        notes: What a reader of the numbers should know.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    pictures: tuple[str, ...]
    root: Path | None = None
    coco: dict[str, Any] | None = None
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
        found: dict[str, int | None] = getattr(self, '_places')  # noqa: B009
        for key in (path, str(Path(path).absolute()), Path(path).name):
            if found.get(key) is not None:
                return found[key]
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
        from PIL import Image

        try:
            with Image.open(self.maps[place]) as image:
                pixels = np.asarray(image).astype(np.int64)
        except OSError as error:
            raise UserError(f'{self.maps[place]} cannot be read: {error}') from None
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
        kinds = {'instance': 'detection'}
        if kinds.get(task, task) != kinds.get(self.task, self.task):
            raise UserError(f'the model is for {task}, and {self.name} is labelled for {self.task}')
        if classes and tuple(classes) != self.classes:
            raise UserError(f'the model knows {some(classes)}, and {self.name} has {some(self.classes)}')

    def for_classes(self, classes: Sequence[str]) -> Truth:
        """Objects of a model's classes, which is what can be asked of it; what is left out becomes a note.

        Raises:
            UserError: They have no class in common.
        """
        assert self.coco is not None
        both = tuple(name for name in classes if name in self.classes)
        if not both:
            raise UserError(
                f'the model knows {some(classes)}, and {self.name} has {some(self.classes)}: no class in common'
            )
        notes = list(self.notes)
        unknown = [name for name in self.classes if name not in classes]
        absent = [name for name in classes if name not in self.classes]
        if unknown:
            notes.append(f'The model does not know {some(unknown)}; objects of these classes are left out.')
        if absent:
            notes.append(f'{self.name} does not have {some(absent)}; detections of these classes are left out.')
        ids = {self.classes.index(name) + 1: number for number, name in enumerate(both, 1)}
        annotations = [
            {**item, 'category_id': ids[item['category_id']]}
            for item in self.coco['annotations']
            if item['category_id'] in ids
        ]
        categories = [dict(id=number, name=name) for number, name in enumerate(both, 1)]
        coco = {**self.coco, 'annotations': annotations, 'categories': categories}
        return Truth(self.name, self.task, both, self.pictures, self.root, coco=coco, notes=tuple(notes))


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
    if folder.task in ('detection', 'instance'):
        return of_coco(file, folder.images, name)
    lines = file.read_text(encoding='utf-8').splitlines()
    if folder.task == 'segmentation':
        maps = tuple(folder.label_map(line) for line in lines)
        return Truth(name, folder.task, folder.classes, tuple(lines), folder.images, maps=maps)
    names, labels = zip(*(line.rsplit(' ', 1) for line in lines)) if lines else ((), ())
    return Truth(name, folder.task, folder.classes, names, folder.images, labels=np.array(labels, np.int64))


def of_coco(source: str | Path | Mapping[str, Any], root: Path | None = None, name: str | None = None) -> Truth:
    """The labels of a COCO file, or of its content.

    Args:
        source: The file or the content.
        root: Folder that the pictures' names begin at.
        name: What to call it; by default the file's name.

    Raises:
        UserError: It cannot be read or is no COCO file.
    """
    title = name or (source.stem if isinstance(source, Path) else Path(source).stem if isinstance(source, str) else '')
    content = source if isinstance(source, Mapping) else read_json(Path(source))
    try:
        classes = tuple(str(category['name']) for category in content['categories'])
        ids = {category['id']: number for number, category in enumerate(content['categories'], 1)}
        images = [dict(image) for image in content['images']]
        annotations = [
            {
                **item,
                'id': number,
                'category_id': ids[item['category_id']],
                'iscrowd': int(item.get('iscrowd', 0)),
                'area': item.get('area', item['bbox'][2] * item['bbox'][3]),
            }
            for number, item in enumerate(content['annotations'], 1)
        ]
        pictures = tuple(image['file_name'] for image in images)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f'{title or "the truth"} is no COCO file: {error!r}') from None
    if not images:
        raise UserError(f'{title or "the truth"} has no pictures, so nothing can be measured on it')
    counted = [item for item in annotations if not item['iscrowd']]
    task = 'instance' if counted and all(item.get('segmentation') for item in counted) else 'detection'
    categories = [dict(id=number, name=label) for number, label in enumerate(classes, 1)]
    coco = dict(images=images, annotations=annotations, categories=categories, category_ids=list(ids))
    return Truth(title or 'data', task, classes, pictures, root, coco=coco)


def of_config(path: Path, split: str) -> Truth:
    """The labels of the data set that a config tests on.

    Raises:
        UserError: It has no such split, or its data set is of a kind whose labels are not known here.
    """
    from mmengine.config import Config
    from mmengine.registry import DATASETS, DefaultScope

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
            dataset: Any = DATASETS.build({**loader.dataset, 'pipeline': [], 'test_mode': True})
            dataset.full_init()
    except (OSError, KeyError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f'the {split} data of {path} cannot be read: {error}; see mmlightvit check') from None
    classes, name = tuple(dataset.metainfo['classes']), f'{path.stem} ({split})'
    if TOOLBOXES[cfg.default_scope].task == 'detection':
        if not hasattr(dataset, 'COCOAPI'):  # every data set of mmdet that reads COCO files
            raise UserError(f'{path}: its data is a {type(dataset).__name__}; a report of detections takes COCO files')
        root = dataset.data_prefix.get('img')
        return of_coco(Path(dataset.ann_file), Path(root) if root else None, name).for_classes(classes)
    infos = [dataset.get_data_info(place) for place in range(len(dataset))]
    pictures = tuple(str(Path(info['img_path']).absolute()) for info in infos)
    if TOOLBOXES[cfg.default_scope].task == 'classification':
        labels = np.array([info['gt_label'] for info in infos], np.int64)
        return Truth(name, 'classification', classes, pictures, Path('/'), labels=labels)
    remap = dict(dataset.label_map or {})
    if dataset.reduce_zero_label:  # 0 is ignored, and every other value is one class lower
        remap = {0: 255, 255: 255, **{value: value - 1 for value in range(1, 255)}}
    maps = tuple(Path(info['seg_map_path']) for info in infos)
    return Truth(
        name, 'segmentation', classes, pictures, Path('/'), maps=maps, remap=remap, ignore=dataset.ignore_index
    )


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read: {getattr(error, "strerror", None) or error}') from None
    except ValueError as error:
        raise UserError(f'{path} is no JSON: {error}') from None


def some(names: Sequence[str]) -> str:
    """The first five, and how many more."""
    more = f' and {len(names) - 5} more' if len(names) > 5 else ''
    return ', '.join(names[:5]) + more
