# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The one form that every format of labels is read into, its way to a result, and the ledger of what was not taken.

Coordinates are pixels of the picture as displayed, x right, y down, from the corner of the first pixel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmlightvit.pictures.masks import Masks, decode, encode
from mmlightvit.pictures.read import read_label_map
from mmlightvit.pictures.result import Result
from mmlightvit.tasks import CLASSIFICATION, DETECTION, INSTANCE, SEGMENTATION, TASKS

#: What other tools call the splits.
SPLIT_NAMES = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test'}


class Patch(NamedTuple):
    """A mask drawn on a part of the picture, whose first pixel is at column ``left``, row ``top``."""

    left: int
    top: int
    pixels: np.ndarray


@dataclass(slots=True)
class Annotation:
    """One object.

    Attributes:
        label: Name of its class.
        box: x1, y1, x2, y2; None where it follows from the mask.
        polygons: Its parts, each x, y, x, y, ...
        mask: Run lengths of the whole picture as COCO writes them, ``{'size': [h, w], 'counts': ...}``.
        patches: Parts of its mask as pixels; the import makes run lengths of them.
        crowd: A region of many objects, or one that a metric shall pass over.
        area: As the format states it.
        score: Of a prediction.
        group: Annotations of a picture with one group and one label are parts of one object.
        file: Where it stands, for the ledger.
        line: Its line or place in the file.
    """

    label: str
    box: Sequence[float] | None = None
    polygons: list[list[float]] = field(default_factory=list)
    mask: dict | None = None
    patches: list[Patch] = field(default_factory=list)
    crowd: bool = False
    area: float | None = None
    score: float | None = None
    group: Any = None
    file: str = ''
    line: int | None = None

    @classmethod
    def from_coco(cls, item: Mapping[str, Any], label: str) -> Annotation:
        """An annotation of a COCO file whose values are sound, or a COCO result; ``label`` is its category's name."""
        x, y, width, height = item['bbox']
        mask = item.get('segmentation')
        return cls(
            label,
            [x, y, x + width, y + height],
            mask if isinstance(mask, list) else [],
            mask if isinstance(mask, dict) else None,
            crowd=bool(item.get('iscrowd')),
            area=item.get('area'),
            score=item.get('score'),
        )

    @property
    def has_mask(self) -> bool:
        return bool(self.polygons or self.mask or self.patches)

    def pixels(self, height: int, width: int) -> np.ndarray:
        """Its mask (H, W)."""
        return mask_pixels(self.mask) if self.mask else draw_polygons(self.polygons, height, width)


@dataclass(slots=True)
class Picture:
    """One picture and its labels.

    Attributes:
        path: Absolute.
        size: (height, width) that its annotation states; after the import those that its coordinates are for.
        split: ``train``, ``val`` or ``test``; None where the format does not say.
        objects: In the order of the file.
        label: The class of the whole picture.
        label_map: The file that holds the class of each pixel.
        relative: Coordinates are shares of width and height.
        source: The file that labels it, for the ledger.
    """

    path: Path
    size: tuple[int, int] | None = None
    split: str | None = None
    objects: list[Annotation] = field(default_factory=list)
    label: str | None = None
    label_map: Path | None = None
    relative: bool = False
    source: str = ''


def as_result(picture: Picture, classes: tuple[str, ...], task: str, pixels: np.ndarray) -> Result:
    """The labels of a picture in the form of a prediction; scores are there where the annotations have them.

    Args:
        picture: Its coordinates are those of ``pixels``.
        classes: Names, among them those of the labels.
        task: The task that the labels are for.
        pixels: (H, W, 3) uint8, RGB.
    """
    height, width = pixels.shape[:2]
    content: dict[str, Any] = {}
    if TASKS[task].has_objects:
        objects = picture.objects
        content['boxes'] = np.array([item.box for item in objects], np.float32).reshape(-1, 4)
        content['labels'] = np.array([classes.index(item.label) for item in objects], np.int64)
        if objects and all(item.score is not None for item in objects):
            content['scores'] = np.array([item.score for item in objects], np.float32)
        if TASKS[task].has_masks:
            content['masks'] = Masks([encode(item.pixels(height, width)) for item in objects], height, width)
    elif TASKS[task].has_label_map:
        content['label_map'] = None if picture.label_map is None else read_label_map(picture.label_map)
    elif picture.label is not None:
        content['labels'] = np.array([classes.index(picture.label)])
    return Result(task, classes, height, width, path=str(picture.path), image=pixels, **content)


class Loss(NamedTuple):
    """A line of the ledger: something that was not taken."""

    file: str
    line: int | None
    what: str
    reason: str


@dataclass
class LabelSet:
    """All that was read from one source.

    Attributes:
        classes: Names in the order of the format; those it does not order are added as they are met.
        ordered: Whether the order of ``classes`` is the format's own; else it becomes alphabetical.
        pictures: One entry per picture.
        lost: The ledger.
        notes: What a person should know about how it was read.
        files: The label files that were read.
    """

    classes: list[str] = field(default_factory=list)
    ordered: bool = False
    pictures: list[Picture] = field(default_factory=list)
    lost: list[Loss] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lose(self, file: object, line: int | None, what: str, reason: str) -> None:
        self.lost.append(Loss(str(file), line, what, reason))

    def task(self) -> str:
        """The most that the labels allow."""
        objects = [item for picture in self.pictures for item in picture.objects]
        if any(picture.label_map for picture in self.pictures):
            return SEGMENTATION
        if any(item.has_mask for item in objects):
            return INSTANCE
        if not objects and any(picture.label is not None for picture in self.pictures):
            return CLASSIFICATION
        return DETECTION

    def name_classes(self) -> None:
        """Add the names that the labels use to ``classes``."""
        used = Counter(item.label for picture in self.pictures for item in picture.objects)
        used.update(picture.label for picture in self.pictures if picture.label is not None)
        new = sorted(set(used) - set(self.classes))
        self.classes = self.classes + new if self.ordered else sorted({*self.classes, *new})


def bounds(polygons: Sequence[Sequence[float]]) -> list[float]:
    """The box around polygons, x1, y1, x2, y2."""
    x = [value for polygon in polygons for value in polygon[0::2]]
    y = [value for polygon in polygons for value in polygon[1::2]]
    return [min(x), min(y), max(x), max(y)]


def turned_box(x1: float, y1: float, x2: float, y2: float, degrees: float) -> list[float]:
    """The corners of a box turned clockwise about its centre."""
    cx, cy, angle = (x1 + x2) / 2, (y1 + y2) / 2, np.deg2rad(degrees)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    return [
        value
        for x, y in corners
        for value in (cx + (x - cx) * cos - (y - cy) * sin, cy + (x - cx) * sin + (y - cy) * cos)
    ]


def ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0, points: int = 64) -> list[float]:
    """An ellipse as a polygon."""
    angle = np.arange(points) * 2 * np.pi / points
    turn = np.deg2rad(degrees)
    x, y = rx * np.cos(angle), ry * np.sin(angle)
    turned = np.stack([cx + x * np.cos(turn) - y * np.sin(turn), cy + x * np.sin(turn) + y * np.cos(turn)], -1)
    return [float(value) for value in turned.ravel()]


def draw_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """The pixels (H, W) whose centres lie in one of the polygons, by the even-odd rule."""
    out = np.zeros((height, width), bool)
    for part in polygons:
        x, y = np.asarray(part[0::2], float), np.asarray(part[1::2], float)
        crossed = np.zeros((height, width + 1), bool)  # whether a side is crossed on the way to a pixel's centre
        for x1, y1, x2, y2 in zip(x, y, np.roll(x, -1), np.roll(y, -1)):
            first, last = np.ceil(np.clip([min(y1, y2) - 0.5, max(y1, y2) - 0.5], 0, height)).astype(int)
            if first < last:
                rows = np.arange(first, last)
                at = x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1)
                crossed[rows, np.ceil(np.clip(at - 0.5, 0, width)).astype(int)] ^= True
        out |= np.logical_xor.accumulate(crossed, axis=1)[:, :width]
    return out


def mask_pixels(mask: dict) -> np.ndarray:
    """The pixels (H, W) of run lengths, compressed or not."""
    (height, width), counts = mask['size'], mask['counts']
    if isinstance(counts, str):
        return decode(counts, height, width)
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
