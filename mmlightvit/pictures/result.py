# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""One result for every task and every form of a model, labels of a picture included, and the forms that others read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.errors import UserError, listed
from mmlightvit.pictures import drawing
from mmlightvit.pictures.masks import Masks

#: Of predictions.json.
FORMAT = 'mmlightvit-predictions/1'


@dataclass(frozen=True, eq=False)
class Result:
    """The content of one picture, found by a model or labelled.

    Coordinates are pixels of the picture as displayed, from its top left corner.

    Attributes:
        task: ``'classification'``, ``'detection'``, ``'instance'`` or ``'segmentation'``.
        classes: Names; a class is its place, from 0.
        height, width: Of the picture, in pixels.
        path: Its file or address, if it has one.
        frame: Its number in a video, counted from 0.
        exif: The EXIF orientation that was applied.
        boxes: (n, 4) float32 x1 y1 x2 y2, clipped to the picture, by falling score; None without objects' task.
        scores: (n,) float32 in [0, 1]; None where the objects are labels.
        labels: (n,) int64, classes; of a picture labelled as a whole, its class.
        masks: Of the n objects, for instances.
        probs: (classes,) float32, for classification.
        label_map: (height, width), the class of each pixel, for segmentation; one that is no class is ignored.
        speed: Milliseconds of ``'read'``, ``'model'`` and ``'after'``.
        image: (height, width, 3) uint8, RGB.
        palette: RGB of each class, for drawing; None takes the renderer's.
    """

    task: str
    classes: tuple[str, ...]
    height: int
    width: int
    path: str | None = None
    frame: int | None = None
    exif: int | None = None
    boxes: NDArray[np.float32] | None = None
    scores: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    masks: Masks | None = None
    probs: NDArray[np.float32] | None = None
    label_map: NDArray | None = None
    speed: Mapping[str, float] = field(default_factory=dict)
    image: NDArray[np.uint8] | None = None
    palette: Sequence[Sequence[int]] | None = None

    def __len__(self) -> int:
        """Objects; 1 for a picture that is classified or segmented as a whole."""
        return 1 if self.boxes is None else len(self.boxes)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f'Result({self.path or "picture"}, {self.height}x{self.width}: {self.summary()})'

    def __getitem__(self, index: Any) -> Result:
        """Some of the objects: a number, a slice, numbers, or a bool for each."""
        if self.boxes is None:
            raise TypeError(f'a result of {self.task} has no objects to choose from')
        chosen = np.atleast_1d(np.arange(len(self))[index])
        return replace(
            self,
            boxes=self.boxes[chosen],
            scores=None if self.scores is None else self.scores[chosen],
            labels=None if self.labels is None else self.labels[chosen],
            masks=None if self.masks is None else self.masks[chosen],
        )

    @property
    def names(self) -> list[str]:
        """The class name of each object; of a classified picture, the name of its class."""
        if self.probs is not None:
            return [self.top(1)[0][1]]
        return [] if self.labels is None else [self.classes[label] for label in self.labels]

    def filter(self, score_thr: float | None = None, classes: Sequence[str] | None = None) -> Result:
        """The objects from a score on, and of these classes.

        Raises:
            UserError: There is no such class.
        """
        wanted = class_places(classes, self.classes)
        if self.boxes is None or self.scores is None or self.labels is None:
            return self
        keep = np.ones(len(self), bool)
        if score_thr is not None:
            keep &= self.scores >= score_thr
        if wanted is not None:
            keep &= np.isin(self.labels, wanted)
        return self[keep]

    def top(self, k: int = 5) -> list[tuple[int, str, float]]:
        """The ``k`` most probable classes of the picture: (class, name, probability)."""
        if self.probs is None:
            raise TypeError(f'a result of {self.task} has no probabilities of the picture')
        order = np.argsort(-self.probs, kind='stable')[:k]
        return [(int(i), self.classes[i], float(self.probs[i])) for i in order]

    def objects(self) -> list[tuple[int, float, NDArray[np.float32]]]:
        """(class, score, box) of each object.

        Raises:
            UserError: The task has none.
        """
        if self.boxes is None or self.labels is None or self.scores is None:
            raise UserError(f'a result of {self.task} has no objects')
        return list(zip(self.labels.tolist(), self.scores.tolist(), self.boxes))

    def shares(self) -> list[tuple[str, int, float]]:
        """(class, pixels, share) of a label map, largest first, those that occur; ignored pixels do not count."""
        assert self.label_map is not None
        counts = np.bincount(self.label_map.ravel(), minlength=len(self.classes))[: len(self.classes)]
        order = np.argsort(-counts, kind='stable')
        return [(self.classes[i], int(counts[i]), float(counts[i] / counts.sum())) for i in order if counts[i]]

    def summary(self) -> str:
        """One line: ``2 cats, 1 dog``; ``cat 0.87``; ``sky 62 %, tree 21 %``."""
        if self.probs is not None:
            return ', '.join(f'{name} {score:.2f}' for _, name, score in self.top(1))
        if self.label_map is not None:
            return ', '.join(f'{name} {share:.0%}' for name, _, share in self.shares()[:5])
        counts = Counter(self.names).most_common()
        return ', '.join(f'{count} {name if count == 1 else _plural(name)}' for name, count in counts) or 'nothing'

    # -- conversions --------------------------------------------------------------------------------------------------
    def to_dict(self, exact: bool = False) -> dict[str, Any]:
        """Plain data, as in predictions.json; boxes and scores are rounded for reading unless ``exact``."""

        def shown(value: float, digits: int) -> float:
            return float(value) if exact else round(float(value), digits)

        content: dict[str, Any] = {
            'path': self.path,
            'frame': self.frame,
            'width': self.width,
            'height': self.height,
            'task': self.task,
        }
        if self.probs is not None:
            content['probs'] = [
                {'class_id': place, 'class': name, 'score': shown(score, 5)} for place, name, score in self.top()
            ]
        elif self.label_map is not None:
            content['label_map'] = {'share': {name: shown(share, 5) for name, _, share in self.shares()}}
        else:
            content['objects'] = [
                {
                    'class_id': label,
                    'class': self.classes[label],
                    'score': shown(score, 5),
                    'box': [shown(value, 2) for value in box],
                    **mask,
                }
                for (label, score, box), mask in zip(self.objects(), self._codes('mask'))
            ]
        return content

    def to_coco(self, image_id: int, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """COCO results. ``category_ids`` has the id of each class; by default its place + 1."""
        return [
            {
                'image_id': image_id,
                'category_id': label + 1 if category_ids is None else category_ids[label],
                'bbox': _xywh(box),
                'score': round(score, 5),
                **mask,
            }
            for (label, score, box), mask in zip(self.objects(), self._codes('segmentation'))
        ]

    def to_coco_annotations(self, image_id: int, first_id: int) -> list[dict[str, Any]]:
        """Annotations as of a data set: with area, polygons, and codes where a mask has holes."""
        entries: list[dict[str, Any]] = []
        areas = None if self.masks is None else self.masks.areas().tolist()
        for index, result in enumerate(self.to_coco(image_id)):
            _, _, width, height = box = result['bbox']
            entry = {
                'id': first_id + index,
                'image_id': image_id,
                'category_id': result['category_id'],
                'bbox': box,
                'area': round(width * height, 2) if areas is None else areas[index],
                'iscrowd': 0,
                'score': result['score'],
            }
            if self.masks is not None:
                parts, holes = self.masks.outlines(index)
                # A code where polygons cannot say it: holes, or nothing at all.
                polygons = [part.ravel().tolist() for part in parts]
                entry['segmentation'] = result['segmentation'] if holes or not parts else polygons
            entries.append(entry)
        return entries

    def _codes(self, key: str) -> list[dict[str, Any]]:
        """Each object's mask as run lengths under ``key``, or nothing."""
        return [{}] * len(self) if self.masks is None else [{key: code} for code in self.masks.rle()]

    def to_yolo(self, scores: bool = False) -> str:
        """A line per object: ``class cx cy w h [score]``, with masks ``class x1 y1 x2 y2 ... [score]``."""
        polygons = self.masks.polygons() if self.masks is not None else None
        lines = []
        for index, (label, score, (x1, y1, x2, y2)) in enumerate(self.objects()):
            if polygons is None:
                points = np.array([[(x1 + x2) / 2, (y1 + y2) / 2], [x2 - x1, y2 - y1]])
            elif len(polygons[index]):
                points = polygons[index]
            else:  # an empty mask; a line of a segmentation file needs an outline
                points = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
            numbers = (points / [self.width, self.height]).ravel().tolist() + ([score] if scores else [])
            lines.append(' '.join([str(label), *(f'{number:.6f}' for number in numbers)]) + '\n')
        return ''.join(lines)

    def to_supervision(self) -> Any:
        """``supervision.Detections``."""
        try:
            import supervision
        except ImportError:
            raise UserError('to_supervision needs supervision: pip install supervision') from None
        self.objects()
        boxes: Any = self.boxes
        return supervision.Detections(
            xyxy=boxes,
            mask=self.masks.dense() if self.masks is not None else None,
            confidence=self.scores,
            class_id=self.labels,
            data={'class_name': np.array(self.names, dtype=str)},
        )

    def to_hf(self) -> list[dict[str, Any]]:
        """Answers in the form of Hugging Face's pipelines for detection and classification."""
        if self.probs is not None:
            return [{'score': score, 'label': name} for _, name, score in self.top()]
        return [
            {
                'score': score,
                'label': self.classes[label],
                'box': dict(zip(('xmin', 'ymin', 'xmax', 'ymax'), (int(value) for value in box))),
            }
            for label, score, box in self.objects()
        ]

    def crops(self, pad: float = 0.0) -> list[NDArray[np.uint8]]:
        """The picture inside of each box, widened by ``pad`` of its width and height on each side."""
        if self.image is None:
            raise UserError('there is no picture to cut from: predict with keep_image=True')
        out = []
        for _, _, (x1, y1, x2, y2) in self.objects():
            across, down = pad * (x2 - x1), pad * (y2 - y1)
            left, top = max(0, int(np.floor(x1 - across))), max(0, int(np.floor(y1 - down)))
            right, bottom = min(self.width, int(np.ceil(x2 + across))), min(self.height, int(np.ceil(y2 + down)))
            # A pixel at least, so that every crop is a picture.
            left, top = min(left, self.width - 1), min(top, self.height - 1)
            out.append(self.image[top : max(bottom, top + 1), left : max(right, left + 1)])
        return out

    def draw(self, score_thr: float | None = None, legible: bool = False) -> NDArray[np.uint8]:
        """The picture with what is in it, RGB.

        Args:
            score_thr: The score from which objects are drawn; None draws all.
            legible: Enlarge a small picture so that its labels can be read.

        Raises:
            UserError: The result was made without keeping the picture.
        """
        if self.image is None:
            raise UserError('there is no picture to draw on: predict with keep_image=True')
        chosen = self if score_thr is None else self.filter(score_thr)
        if self.probs is not None:
            tags = [(place, f'{name} {score:.2f}') for place, name, score in self.top(3)]
        else:  # a picture that is labelled as a whole has no boxes
            tags = (
                [(int(label), self.classes[label]) for label in (() if self.labels is None else self.labels)]
                if self.boxes is None
                else []
            )
        return drawing.draw(
            self.image,
            self.classes,
            boxes=chosen.boxes,
            labels=chosen.labels,
            scores=chosen.scores,
            masks=chosen.masks,
            label_map=self.label_map,
            tags=tags,
            palette=self.palette,
            scale=drawing.enlargement(self.height, self.width) if legible else 1,
        )

    def save(self, path: str | Path) -> Path:
        """Write the drawn picture, or with the ending ``.json`` the plain data."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == '.json':
            text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + '\n'
            atomic_write(path, lambda file: file.write(text.encode()))
        else:
            drawing.write_picture(path, self.draw())
        return path


def _xywh(box: NDArray[np.float32]) -> list[float]:
    x1, y1, x2, y2 = (round(float(value), 2) for value in box)
    return [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]


def _plural(name: str) -> str:
    return name + ('es' if name.endswith(('s', 'x', 'z', 'ch', 'sh')) else 's')


def class_places(names: Sequence[str] | None, classes: Sequence[str]) -> list[int] | None:
    """The places of class names; None for None.

    Raises:
        UserError: There is no such class.
    """
    if names is None:
        return None
    wrong = [name for name in names if name not in classes]
    if wrong:
        raise UserError(f'classes: there is no {", ".join(map(repr, wrong))}; there are {listed(classes, 100)}')
    return [classes.index(name) for name in names]
