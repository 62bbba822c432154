# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""One result for every task and every form of a model. Its conversions are in ``convert``, its picture in ``draw``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.errors import UserError
from mmlightvit.pictures import convert
from mmlightvit.pictures.masks import Masks


@dataclass(frozen=True, eq=False)
class Result:
    """What a model found in one picture. Coordinates are pixels of the picture as displayed, from its top left corner.

    Attributes:
        task: ``'classification'``, ``'detection'``, ``'instance'`` or ``'segmentation'``.
        classes: Names; a class is its place, from 0.
        height, width: Of the picture, in pixels.
        path: Its file or address, if it has one.
        frame: Its number in a video, counted from 0.
        exif: The EXIF orientation that was applied.
        boxes: (n, 4) float32 x1 y1 x2 y2, clipped to the picture, by falling score; None without objects' task.
        scores: (n,) float32 in [0, 1].
        labels: (n,) int64, classes.
        masks: Of the n objects, for instances.
        probs: (classes,) float32, for classification.
        label_map: (height, width) uint8 or uint16, the class of each pixel, for segmentation.
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

    def summary(self) -> str:
        """One line: ``2 cats, 1 dog``; ``cat 0.87``; ``sky 62 %, tree 21 %``."""
        return convert.summary(self)

    # -- conversions --------------------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in predictions.json."""
        return convert.to_dict(self)

    def to_coco(self, image_id: int, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """COCO results. ``category_ids`` has the id of each class; by default its place + 1."""
        return convert.to_coco(self, image_id, category_ids)

    def to_yolo(self, scores: bool = False) -> str:
        """A line per object: ``class cx cy w h [score]``, with masks ``class x1 y1 x2 y2 ... [score]``."""
        return convert.to_yolo(self, scores)

    def to_supervision(self) -> Any:
        """``supervision.Detections``."""
        return convert.to_supervision(self)

    def to_hf(self) -> list[dict[str, Any]]:
        """What Hugging Face's pipelines for detection and classification give."""
        return convert.to_hf(self)

    def crops(self, pad: float = 0.0) -> list[NDArray[np.uint8]]:
        """The picture inside of each box, widened by ``pad`` of its width and height on each side."""
        return convert.crops(self, pad)

    def draw(self, score_thr: float | None = None) -> NDArray[np.uint8]:
        """The picture with what was found, RGB."""
        from mmlightvit.pictures.drawing import draw

        return draw(self if score_thr is None else self.filter(score_thr))

    def save(self, path: str | Path) -> Path:
        """Write the drawn picture, or with the ending ``.json`` the plain data."""
        return convert.save(self, Path(path))


def class_places(names: Sequence[str] | None, classes: Sequence[str]) -> list[int] | None:
    """The places of class names; None for None.

    Raises:
        UserError: There is no such class.
    """
    if names is None:
        return None
    wrong = [name for name in names if name not in classes]
    if wrong:
        shown = ', '.join(classes[:100]) + (f' and {len(classes) - 100} more' if len(classes) > 100 else '')
        raise UserError(f'classes: there is no {", ".join(map(repr, wrong))}; there are {shown}')
    return [classes.index(name) for name in names]
