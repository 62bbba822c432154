# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A model that predicts: the part that all forms have in common.

A form of a model (torch, ONNX Runtime, OpenVINO) implements :meth:`Model.run`; reading, preparing, thresholds and
results are the same for all of them, so the numbers are too.
"""

from __future__ import annotations

import glob
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.errors import UserError
from mmlightvit.inference import sources
from mmlightvit.inference.preprocess import Prepared, prepare
from mmlightvit.model_folder.info import InputSpec, ModelInfo
from mmlightvit.pictures.masks import Masks
from mmlightvit.pictures.read import Picture, PictureError, as_picture
from mmlightvit.pictures.result import Result, class_places

#: The options that choose among the objects of a picture; a command refuses them for a model that finds none.
OF_OBJECTS = ('score_thr', 'classes', 'max_det')


@dataclass(frozen=True)
class Raw:
    """The answer of a form of a model for one picture, in pixels of the picture; nothing is left out yet.

    Attributes:
        boxes, scores, labels: (n, 4), (n,), (n,).
        masks: Of the n objects.
        probs: (classes,).
        label_map: (H, W), whole numbers.
    """

    boxes: NDArray | None = None
    scores: NDArray | None = None
    labels: NDArray | None = None
    masks: Masks | None = None
    probs: NDArray | None = None
    label_map: NDArray | None = None


@dataclass(frozen=True)
class Options:
    """Options of a prediction.

    Attributes:
        score_thr: Score from which an object counts; None takes the model's, class by class.
        classes: Names of the classes wanted; None for all.
        max_det: Most objects of a picture, best first; None for all that the model gives.
        size: Short side in pixels; None takes the model's.
        keep_image: Whether a result holds its picture.
        batch_size: Pictures of one size that go through the model together.
    """

    score_thr: float | None = None
    classes: Sequence[str] | None = None
    max_det: int | None = None
    size: int | None = None
    keep_image: bool = True
    batch_size: int = 1

    def __post_init__(self) -> None:
        if self.score_thr is not None and not 0 <= self.score_thr <= 1:
            raise UserError(f'score_thr: expected a number from 0 to 1, got {self.score_thr}')
        for name in ('max_det', 'batch_size'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f'{name}: expected at least 1, got {value}')


class Model(ABC):
    """A model of any task and form; safe to call from several threads.

    Args:
        info: Its description.
    """

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self._lock = threading.Lock()

    @abstractmethod
    def run(self, pictures: Sequence[Prepared]) -> list[Raw]:
        """Predict for pictures of one size. Called by one thread at a time."""

    @property
    def task(self) -> str:
        return self.info.task

    @property
    def classes(self) -> tuple[str, ...]:
        return self.info.classes

    @property
    def thresholds(self) -> dict[str, float]:
        """The score from which an object of each class counts."""
        return dict(zip(self.classes, self.info.threshold_of_classes().tolist()))

    @property
    def input(self) -> InputSpec:
        return self.info.input

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.info.name!r}, {self.task}, {len(self.classes)} classes)'

    def predict(
        self,
        picture: Any,
        *,
        score_thr: float | None = None,
        classes: Sequence[str] | None = None,
        max_det: int | None = None,
        size: int | None = None,
        channels: str = 'rgb',
        keep_image: bool = True,
        batch_size: int = 1,
        on_error: str = 'raise',
    ) -> Any:
        """Predict for one picture, or for several.

        Args:
            picture: A path, bytes, a Pillow image, an array or a tensor gives a result; a list of these, a folder or a
                glob gives a list of results.
            score_thr, classes, max_det, size, keep_image, batch_size: See :class:`Options`.
            channels: Order of the channels of arrays and tensors, ``'rgb'`` or ``'bgr'``.
            on_error: ``'raise'``, or ``'skip'``: a picture that cannot be used gives None in its place.

        Raises:
            PictureError: A picture cannot be used.
            TypeError: It is a video; its results may not fit into memory, which :meth:`predict_iter` does not need.
        """
        if on_error not in ('raise', 'skip'):
            raise ValueError(f"on_error: expected 'raise' or 'skip', got {on_error!r}")
        options = Options(score_thr, classes, max_det, size, keep_image, batch_size)
        several = isinstance(picture, list | tuple)
        if isinstance(picture, str | Path) and not several:
            if sources.is_video(str(picture)):
                raise TypeError(f'{picture} is a video: go through it with predict_iter, in constant memory')
            if os.path.isdir(picture) or (glob.has_magic(str(picture)) and not os.path.exists(picture)):
                several, picture = True, [entry.name for entry in sources.find([str(picture)])]
        items = picture if several else [picture]
        stream = self.stream((self._read(item, channels, on_error) for item in items), options)
        results = [None if isinstance(result, PictureError) else result for result in stream]
        return results if several else results[0]

    def predict_iter(
        self,
        source: Any,
        *,
        every: int = 1,
        score_thr: float | None = None,
        classes: Sequence[str] | None = None,
        max_det: int | None = None,
        size: int | None = None,
        keep_image: bool = True,
        batch_size: int = 1,
        on_error: str = 'raise',
    ) -> Iterator[Result]:
        """Predict for anything, one result after the other, in constant memory.

        Args:
            source: A picture, folder, glob, list, video, camera (its number) or address; or several in a list.
            every: Of a video, each so many-th frame.
            score_thr, classes, max_det, size, keep_image, batch_size: See :class:`Options`.
            on_error: ``'raise'``, or ``'skip'``: what cannot be used is left out.
        """
        options = Options(score_thr, classes, max_det, size, keep_image, batch_size)
        entries = sources.find([str(item) for item in (source if isinstance(source, list | tuple) else [source])])

        def read() -> Iterator[Picture | PictureError]:
            for entry in entries:
                for picture in entry.read(every):
                    if not isinstance(picture, PictureError):
                        yield picture
                    elif on_error == 'raise':
                        raise picture

        for result in self.stream(read(), options):
            assert isinstance(result, Result)
            yield result

    def stream(self, pictures: Iterable[Picture | PictureError], options: Options) -> Iterator[Result | PictureError]:
        """Results in the order of the pictures; an error among them comes out as it went in."""
        class_places(options.classes, self.classes)
        spec = self.input if options.size is None else self.input.with_size(options.size)
        waiting: list[tuple[Picture, Prepared, float]] = []
        for picture in pictures:
            if isinstance(picture, PictureError):
                yield from self._flush(waiting, options)
                yield picture
                continue
            start = time.perf_counter()
            prepared = prepare(picture.pixels, spec)
            read_ms = picture.read_ms + (time.perf_counter() - start) * 1000
            if waiting and waiting[0][1].size != prepared.size:
                yield from self._flush(waiting, options)
            waiting.append((picture, prepared, read_ms))
            if len(waiting) == options.batch_size:
                yield from self._flush(waiting, options)
        yield from self._flush(waiting, options)

    @staticmethod
    def _read(item: Any, channels: str, on_error: str) -> Picture | PictureError:
        try:
            return as_picture(item, channels)
        except PictureError as error:
            if on_error == 'raise':
                raise
            return error

    def _flush(self, waiting: list[tuple[Picture, Prepared, float]], options: Options) -> Iterator[Result]:
        if not waiting:
            return
        batch = waiting.copy()
        waiting.clear()
        start = time.perf_counter()
        with self._lock:
            raws = self.run([prepared for _, prepared, _ in batch])
        model_ms = (time.perf_counter() - start) * 1000 / len(batch)
        for (picture, _, read_ms), raw in zip(batch, raws):
            yield self._finish(picture, raw, options, read_ms, model_ms)

    def _finish(self, picture: Picture, raw: Raw, options: Options, read_ms: float, model_ms: float) -> Result:
        start = time.perf_counter()
        height, width = picture.pixels.shape[:2]
        content: dict[str, Any] = {}
        if raw.probs is not None:
            content['probs'] = np.asarray(raw.probs, np.float32)
        elif raw.label_map is not None:
            content['label_map'] = raw.label_map.astype(np.uint8 if len(self.classes) <= 256 else np.uint16)
        else:
            content = self._objects(raw, height, width, options)
        speed = {'read': read_ms, 'model': model_ms, 'after': (time.perf_counter() - start) * 1000}
        return Result(
            task=self.task,
            classes=self.classes,
            height=height,
            width=width,
            path=picture.path,
            frame=picture.frame,
            exif=picture.exif,
            speed=speed,
            image=picture.pixels if options.keep_image else None,
            palette=self.info.palette,
            **content,
        )

    def _objects(self, raw: Raw, height: int, width: int, options: Options) -> dict[str, Any]:
        scores = np.asarray(raw.scores, np.float32)
        labels = np.asarray(raw.labels, np.int64)
        least = self.info.threshold_of_classes() if options.score_thr is None else np.float32(options.score_thr)
        keep = scores >= (least[labels] if isinstance(least, np.ndarray) else least)
        wanted = class_places(options.classes, self.classes)
        if wanted is not None:
            keep &= np.isin(labels, wanted)
        order = np.argsort(-scores, kind='stable')
        order = order[keep[order]][: options.max_det]
        boxes = np.asarray(raw.boxes, np.float32).reshape(-1, 4)[order]
        return {
            'boxes': boxes.clip(0, np.array([width, height, width, height], np.float32)),
            'scores': scores[order],
            'labels': labels[order],
            'masks': None if raw.masks is None else raw.masks[order],
        }
