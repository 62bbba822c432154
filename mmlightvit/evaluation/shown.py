# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Pictures of a report: truth beside prediction, and places to look at, by the one renderer."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmlightvit.pictures.colours import VERMILION
from mmlightvit.pictures.drawing import Canvas, sheet
from mmlightvit.pictures.objects import Annotation, Picture, as_result
from mmlightvit.pictures.read import as_picture
from mmlightvit.pictures.result import Result
from mmlightvit.tasks import DETECTION, INSTANCE, SEGMENTATION

#: Pixels of a picture beside another, and of both on the page.
_SIDE, _ON_PAGE = 640, 900


def read(path: Path) -> NDArray[np.uint8]:
    """A picture as displayed."""
    return as_picture(path).pixels


def objects(
    pixels: NDArray[np.uint8], items: Sequence[Mapping[str, Any]], classes: Sequence[str], masks: bool
) -> Result:
    """COCO annotations or results of one picture as a result; annotations have no scores."""
    labelled = [Annotation.from_coco(item, classes[item['category_id'] - 1]) for item in items]
    return as_result(Picture(Path(), objects=labelled), tuple(classes), INSTANCE if masks else DETECTION, pixels)


def label_map(pixels: NDArray[np.uint8], values: NDArray, classes: Sequence[str]) -> Result:
    """A label map as a result."""
    height, width = pixels.shape[:2]
    return Result(SEGMENTATION, tuple(classes), height, width, label_map=values, image=pixels)


def side_by_side(truth: Result, prediction: Result) -> Image.Image:
    """Truth on the left, prediction on the right."""
    pair = [(truth.draw(legible=True), 'truth'), (prediction.draw(legible=True), 'prediction')]
    return Image.fromarray(sheet(pair, 2, _SIDE))


def thumbnail(pixels: NDArray[np.uint8], side: int = 480) -> Image.Image:
    """A picture of at most ``side`` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    return image


def cut_out(pixels: NDArray[np.uint8], box: Sequence[float], side: int = 240) -> Image.Image:
    """The surroundings of a box x, y, w, h, which is outlined."""
    x, y, w, h = box
    height, width = pixels.shape[:2]
    half = max(w, h, 24) * 0.8
    left, top = max(0, int(x + w / 2 - half)), max(0, int(y + h / 2 - half))
    right, bottom = min(width, int(x + w / 2 + half) + 1), min(height, int(y + h / 2 + half) + 1)
    part = pixels[top : max(bottom, top + 1), left : max(right, left + 1)]
    scale = side / max(part.shape[:2])
    size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    canvas = Canvas(np.asarray(Image.fromarray(part).resize(size, Image.Resampling.LANCZOS)))
    x, y = x - left, y - top
    canvas.box((x * scale, y * scale, (x + w) * scale, (y + h) * scale), VERMILION)
    return Image.fromarray(canvas.pixels())


def for_page(image: Image.Image, width: int = _ON_PAGE) -> bytes:
    """JPEG of at most ``width`` pixels across."""
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=76, optimize=True)
    return buffer.getvalue()
