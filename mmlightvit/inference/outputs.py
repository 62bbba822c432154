# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The files of a run of predictions: one small writer for each kind.

A writer takes one result after the other and keeps none, so that a video of any length takes the same memory. A file
has its name when it is complete.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmlightvit.durable.safe_loading.atomic import TEMPORARY_SUFFIX, atomic_write
from mmlightvit.errors import UserError
from mmlightvit.model_folder.info import ModelInfo
from mmlightvit.pictures import coco
from mmlightvit.pictures.colours import colour_of
from mmlightvit.pictures.drawing import write_picture
from mmlightvit.pictures.result import FORMAT, Result
from mmlightvit.tasks import CLASSIFICATION, INSTANCE, SEGMENTATION, TASKS

_OBJECTS = tuple(name for name, task in TASKS.items() if task.has_objects)


def free_folder(folder: Path) -> Path:
    """``folder`` if nothing is there, else the first of ``folder-2``, ``folder-3``, ... that is free; it is made."""
    number = 1
    while True:
        path = folder if number == 1 else folder.with_name(f'{folder.name}-{number}')
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UserError(f'folder {path} cannot be made: {error.strerror}') from None


def named_folder(folder: Path, overwrite: bool) -> Path:
    """The folder that a user named; made where it is missing.

    Raises:
        UserError: It is not empty and may not be written into, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not overwrite:
            raise UserError(f'--out {folder} exists and is not empty; name another folder, or add --overwrite')
    except OSError as error:
        raise UserError(f'folder {folder} cannot be made: {error.strerror}') from None
    return folder


class Writer:
    """Takes the results of a run. ``place`` is where a result belongs below the folder, without ending."""

    #: The tasks that it can write.
    tasks: Sequence[str] = tuple(TASKS)

    def __init__(self, folder: Path, info: ModelInfo) -> None:
        self.folder, self.info = folder, info

    def add(self, result: Result, place: PurePath, rate: float | None) -> None:
        """A result; ``rate`` is the frames per second of its video."""

    def skip(self, path: str, reason: str) -> None:
        """A picture that could not be used."""

    def close(self) -> None:
        """No more results come."""

    def _path(self, kind: str, place: PurePath, result: Result, ending: str) -> Path:
        """A file of a result; frames of a video are told apart by their number."""
        name = place.name if result.frame is None else f'{place.name}_{result.frame:06d}'
        path = self.folder / kind / place.with_name(name + ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class _Text:
    """A text file that grows under a temporary name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f'.{path.name}{TEMPORARY_SUFFIX}')
        self.file: TextIO = self._temporary.open('w', encoding='utf-8', newline='')

    def finish(self) -> None:
        self.file.close()
        os.replace(self._temporary, self.path)


class _List:
    """A JSON list written item by item."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._between = file, ''

    def add(self, item: Any) -> None:
        self._file.write(self._between + json.dumps(item, ensure_ascii=False))
        self._between = ',\n'


class JsonWriter(Writer):
    """``predictions.json``, or the same on another stream."""

    def __init__(
        self, folder: Path, info: ModelInfo, score_thr: float | Mapping[str, float] | None, file: TextIO | None = None
    ) -> None:
        super().__init__(folder, info)
        self._text = None if file is not None else _Text(folder / 'predictions.json')
        self._file = file or self._text.file  # type: ignore[union-attr]
        model = dict(name=info.name, task=info.task, classes=info.classes, weights_sha256=info.weights_sha256)
        head = dict(format=FORMAT, model=model, score_thr=score_thr)
        self._file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "results": [\n')
        self._results = _List(self._file)
        self._skipped: list[dict[str, str]] = []

    def add(self, result: Result, place: PurePath, rate: float | None) -> None:
        self._results.add(result.to_dict())

    def skip(self, path: str, reason: str) -> None:
        self._skipped.append({'path': path, 'reason': reason})

    def close(self) -> None:
        self._file.write('\n], "skipped": ' + json.dumps(self._skipped, ensure_ascii=False) + '}\n')
        if self._text is not None:
            self._text.finish()


class CocoWriter(Writer):
    """``coco.json``, results as COCO's evaluation reads them, and ``coco_images.json``, the pictures of their ids.

    Args:
        truth: A COCO file whose ids of images (by file name) and categories (by name) are used.
    """

    tasks = _OBJECTS

    def __init__(self, folder: Path, info: ModelInfo, truth: Path | None = None) -> None:
        super().__init__(folder, info)
        self._ids: dict[str, int | None] | None = None
        self._categories: list[int] | None = None
        if truth is not None:
            self._ids, self._categories = _read_truth(truth, info.classes)
        self._results, self._images = _Text(folder / 'coco.json'), _Text(folder / 'coco_images.json')
        self._result_list, self._image_list = _List(self._results.file), _List(self._images.file)
        self._results.file.write('[')
        self._images.file.write('[')
        self._count = 0

    def add(self, result: Result, place: PurePath, rate: float | None) -> None:
        self._count += 1
        image_id = self._count if self._ids is None else self._id_of(result, place)
        self._image_list.add(_coco_image(image_id, result))
        for entry in result.to_coco(image_id, self._categories):
            self._result_list.add(entry)

    def _id_of(self, result: Result, place: PurePath) -> int:
        assert self._ids is not None
        path = PurePath(result.path or '')
        for name in ((place.parent / path.name).as_posix(), path.name):
            found = self._ids.get(name)
            if found is not None:
                return found
        raise UserError(f'--coco-gt has no single image called {path.name}')

    def close(self) -> None:
        for text in (self._results, self._images):
            text.file.write(']\n')
            text.finish()


def _read_truth(path: Path, classes: Sequence[str]) -> tuple[dict[str, int | None], list[int]]:
    """Image ids by file name and by its last part, None where it is not the only one; and the id of each class."""
    content = coco.read(path, labelled=False)
    written = coco.complete(content, path).written
    categories = {item['name']: written['categories'][item['id']] for item in content['categories']}
    ids: dict[str, Any] = {}
    for image in content['images']:
        name = PurePath(image['file_name'])
        ids[name.name] = None if name.name in ids else written['images'][image['id']]
        ids[name.as_posix()] = written['images'][image['id']]
    missing = [name for name in classes if name not in categories]
    if missing:
        raise UserError(f'--coco-gt {path} has no category {", ".join(missing)}; it has {", ".join(categories)}')
    return ids, [categories[name] for name in classes]


def _coco_image(image_id: int, result: Result) -> dict[str, Any]:
    frame = {} if result.frame is None else {'frame': result.frame}
    return {'id': image_id, 'file_name': result.path, 'width': result.width, 'height': result.height, **frame}


class CocoDatasetWriter(Writer):
    """``annotations.json``, a COCO file as of a data set, for labelling tools and training."""

    tasks = _OBJECTS

    def __init__(self, folder: Path, info: ModelInfo) -> None:
        super().__init__(folder, info)
        self._text, self._images = _Text(folder / 'annotations.json'), _Text(folder / 'images.json')
        categories = [{'id': place + 1, 'name': name} for place, name in enumerate(info.classes)]
        categories_text = json.dumps(categories, ensure_ascii=False)
        self._text.file.write(f'{{"categories": {categories_text}, "annotations": [\n')
        self._annotations, self._image_list = _List(self._text.file), _List(self._images.file)
        self._image_count = self._object_count = 0

    def add(self, result: Result, place: PurePath, rate: float | None) -> None:
        self._image_count += 1
        self._image_list.add(_coco_image(self._image_count, result))
        for entry in result.to_coco_annotations(self._image_count, self._object_count + 1):
            self._annotations.add(entry)
        self._object_count += len(result)

    def close(self) -> None:
        self._images.finish()
        self._text.file.write('\n], "images": [\n')
        with self._images.path.open(encoding='utf-8', newline='') as images:
            for line in images:
                self._text.file.write(line)
        self._text.file.write('\n]}\n')
        self._text.finish()
        self._images.path.unlink()


class YoloWriter(Writer):
    """``labels/STEM.txt`` and ``classes.txt``."""

    tasks = _OBJECTS

    def __init__(self, folder: Path, info: ModelInfo) -> None:
        super().__init__(folder, info)
        _write_text(folder / 'classes.txt', ''.join(f'{name}\n' for name in info.classes))

    def add(self, result: Result, place: PurePath, rate: float | None) -> None:
        _write_text(self._path('labels', place, result, '.txt'), result.to_yolo())


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: file.write(text.encode()))


class CsvWriter(Writer):
    """``predictions.csv``."""

    _COLUMNS = {
        CLASSIFICATION: 'path,frame,rank,class_id,class,score',
        SEGMENTATION: 'path,frame,class_id,class,pixels,share',
        'objects': 'path,frame,class_id,class,score,x1,y1,x2,y2,area',
    }

    def __init__(self, folder: Path, info: ModelInfo) -> None:
        super().__init__(folder, info)
        self._text = _Text(folder / 'predictions.csv')
        self._rows = csv.writer(self._text.file, lineterminator='\n')
        self._rows.writerow(self._COLUMNS.get(info.task, self._COLUMNS['objects']).split(','))

    def add(self, result: Result, place: PurePath, rate: float | None) -> None:
        head = [result.path, result.frame]
        if result.probs is not None:
            for rank, (label, name, score) in enumerate(result.top(5), 1):
                self._rows.writerow([*head, rank, label, name, f'{score:.5f}'])
        elif result.label_map is not None:
            for name, pixels, share in result.shares():
                self._rows.writerow([*head, result.classes.index(name), name, pixels, f'{share:.5f}'])
        else:
            areas = result.masks.areas().tolist() if result.masks is not None else None
            for index, (label, score, box) in enumerate(result.objects()):
                x1, y1, x2, y2 = (float(value) for value in box)
                area = f'{(x2 - x1) * (y2 - y1):.2f}' if areas is None else areas[index]
                corners = [f'{value:.2f}' for value in (x1, y1, x2, y2)]
                self._rows.writerow([*head, label, result.classes[label], f'{score:.5f}', *corners, area])

    def close(self) -> None:
        self._text.finish()


class CropWriter(Writer):
    """``crops/CLASS/STEM-N.jpg``."""

    tasks = _OBJECTS

    def add(self, result: Result, place: PurePath, rate: float | None) -> None:
        for number, (name, pixels) in enumerate(zip(result.names, result.crops()), 1):
            folder = ''.join('_' if c in '/\\:' else c for c in name).lstrip('.') or '_'
            write_picture(self._path(f'crops/{folder}', place, result, f'-{number}.jpg'), pixels)


class MaskWriter(Writer):
    """``masks/STEM.png``: the class of each pixel with the classes' colours, or the number of its object."""

    tasks = (INSTANCE, SEGMENTATION)

    def add(self, result: Result, place: PurePath, rate: float | None) -> None:
        write_picture(self._path('masks', place, result, '.png'), mask_picture(result))


def mask_picture(result: Result) -> Image.Image:
    """A label map as a palette picture (16 bits of grey over 255 classes); numbers of objects as 16 bits of grey."""
    if result.label_map is not None:
        if len(result.classes) > 255:
            return Image.fromarray(result.label_map.astype(np.uint16))
        image = Image.fromarray(result.label_map.astype(np.uint8))
        image.putpalette([c for i in range(len(result.classes)) for c in colour_of(i, result.palette)])
        return image
    assert result.masks is not None
    numbers = np.zeros((result.height, result.width), np.uint16)
    for index in reversed(range(len(result.masks))):  # the surest object has the pixel
        mask, top, left = result.masks.window(index)
        numbers[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = index + 1
    return Image.fromarray(numbers)


class PictureWriter(Writer):
    """``pictures/STEM.jpg``, and ``pictures/STEM.mp4`` for a video."""

    def __init__(self, folder: Path, info: ModelInfo) -> None:
        super().__init__(folder, info)
        self._film: _Film | None = None
        self._of: PurePath | None = None

    def add(self, result: Result, place: PurePath, rate: float | None) -> None:
        drawn = result.draw(legible=True)
        if rate is None:
            write_picture(self._path('pictures', place, result, '.jpg'), drawn)
            return
        if self._film is None or self._of != place:
            self.close()
            path = self.folder / 'pictures' / place.with_name(place.name + '.mp4')
            path.parent.mkdir(parents=True, exist_ok=True)
            self._film, self._of = _Film(path, drawn.shape[0], drawn.shape[1], rate), place
        self._film.add(drawn)

    def close(self) -> None:
        if self._film is not None:
            self._film.finish()
            self._film = None


class _Film:
    """A video written by OpenCV, mp4v."""

    def __init__(self, path: Path, height: int, width: int, rate: float) -> None:
        import cv2

        self._path = path
        self._temporary = path.with_name(f'.incomplete-{path.name}')  # OpenCV tells the format by the ending
        self._size = height - height % 2, width - width % 2  # the codec takes even sides alone
        code = cv2.VideoWriter.fourcc(*'mp4v')
        self._writer = cv2.VideoWriter(str(self._temporary), code, rate, self._size[::-1])
        if not self._writer.isOpened():
            raise UserError(f'{path} cannot be written: OpenCV has no mp4v encoder here')

    def add(self, pixels: NDArray[np.uint8]) -> None:
        height, width = self._size
        self._writer.write(np.ascontiguousarray(pixels[:height, :width, ::-1]))

    def finish(self) -> None:
        self._writer.release()
        os.replace(self._temporary, self._path)


KINDS: dict[str, type[Writer]] = {
    'pictures': PictureWriter,
    'json': JsonWriter,
    'coco': CocoWriter,
    'coco-dataset': CocoDatasetWriter,
    'txt': YoloWriter,
    'csv': CsvWriter,
    'crops': CropWriter,
    'masks': MaskWriter,
}


def check_kinds(kinds: Sequence[str], task: str) -> None:
    """Whether a model of this task can give these kinds.

    Raises:
        UserError: It cannot.
    """
    for kind in kinds:
        if task not in KINDS[kind].tasks:
            fitting = [name for name, writer in KINDS.items() if task in writer.tasks]
            raise UserError(f'--save {kind} is not for {task}; there are {", ".join(fitting)}')


class Outputs:
    """All writers of a run, as one. Leaving its context completes the files, whatever ended the run."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self.writers = writers

    def add(self, result: Result, place: PurePath, rate: float | None = None) -> None:
        for writer in self.writers:
            writer.add(result, place, rate)

    def skip(self, path: str, reason: str) -> None:
        for writer in self.writers:
            writer.skip(path, reason)

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self.writers:
            writer.close()
