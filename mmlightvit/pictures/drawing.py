# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The one renderer: objects, regions and classes over their picture, as arrays.

Lines and letters grow with the picture; labels keep off each other and off the edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.errors import UserError
from mmlightvit.pictures.colours import Colour, colour_of, letters_on
from mmlightvit.pictures.masks import Masks

Box = tuple[float, float, float, float]

_MASK_SHARE = 0.45
#: A picture smaller than this is enlarged where people look at it.
_LEGIBLE = 480
#: A class on a smaller share of the picture gets no label.
_LABELLED_SHARE = 0.01


def line_width(height: int, width: int) -> int:
    """Pixels of a line in a picture of this size."""
    return max(2, round(0.003 * (height + width) / 2))


def enlargement(height: int, width: int) -> int:
    """How many times a small picture is enlarged so that its labels can be read."""
    return max(1, math.ceil(_LEGIBLE / max(height, width)))


def draw(
    pixels: NDArray[np.uint8],
    classes: Sequence[str],
    *,
    boxes: NDArray | None = None,
    labels: NDArray | None = None,
    scores: NDArray | None = None,
    masks: Masks | None = None,
    label_map: NDArray | None = None,
    tags: Sequence[tuple[int, str]] = (),
    palette: Sequence[Sequence[int]] | None = None,
    scale: int = 1,
) -> NDArray[np.uint8]:
    """A picture with its objects, regions or class drawn into it.

    Args:
        pixels: (H, W, 3) uint8, RGB; it stays as it is.
        classes: Names.
        boxes: (n, 4) x1 y1 x2 y2, the surest first.
        labels: (n,), the objects' classes.
        scores: (n,); labels have none.
        masks: Of the n objects.
        label_map: (H, W), the class of each pixel; one that is no class is ignored, and black.
        tags: (class, text) of the whole picture.
        palette: RGB of each class; None takes ours.
        scale: Pixels per pixel of the picture.
    """
    pixels = np.array(pixels)
    if label_map is not None:
        ignored = label_map >= len(classes)
        table = np.array([colour_of(place, palette) for place in range(len(classes))], np.float32)
        pixels = _blend(pixels, table[np.where(ignored, 0, label_map)])
        pixels[ignored] = 0
    elif masks is not None and labels is not None:
        _paint_masks(pixels, masks, labels, palette)
    if scale > 1:
        pixels = pixels.repeat(scale, 0).repeat(scale, 1)
    canvas = Canvas(pixels)
    for place, text in tags:
        canvas.corner_label(text, colour_of(place, palette))
    if label_map is not None:
        for place, (y, x) in _region_centres(label_map, len(classes)).items():
            canvas.centre_label(classes[place], x * scale, y * scale, colour_of(place, palette))
    elif boxes is not None and labels is not None:
        each = [None] * len(boxes) if scores is None else scores.tolist()
        objects = list(zip(boxes * scale, labels.tolist(), each))
        for box, label, _ in reversed(objects):  # the surest on top
            canvas.box(tuple(box.tolist()), colour_of(label, palette))
        for box, label, score in objects:
            text = classes[label] + (f' {score:.2f}' if score is not None else '')
            canvas.box_label(text, tuple(box.tolist()), colour_of(label, palette))
    return canvas.pixels()


class Canvas:
    """A picture to draw boxes and labels on.

    Args:
        pixels: (H, W, 3) uint8.
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.image = Image.fromarray(pixels)
        self.height, self.width = pixels.shape[:2]
        self.line = line_width(self.height, self.width)
        self.font = _font(max(12, round(0.018 * (self.height + self.width) / 2)))
        self._pen = ImageDraw.Draw(self.image)
        self._taken: list[Box] = []

    def pixels(self) -> NDArray[np.uint8]:
        return np.asarray(self.image)

    def box(self, box: Box, colour: Colour) -> None:
        """The outline of a box; a box without area becomes a dot."""
        x1, y1, x2, y2 = box
        right, bottom = max(x1, x2 - 1), max(y1, y2 - 1)
        self._pen.rectangle((x1, y1, right, bottom), outline=colour, width=self.line)

    def box_label(self, text: str, box: Box, colour: Colour) -> None:
        """A label at a box: above it, else below, inside or beside it, where it covers no other."""
        x1, y1, x2, y2 = box
        width, height = self._size(text)
        beside = [(x2, y1), (x1 - width, y1), (x2, y2 - height), (x1 - width, y2 - height)]
        corners = [(x1, y1 - height), (x1, y2), (x1, y1), (x1, y2 - height), *beside]
        self._place(text, corners, width, height, colour)

    def centre_label(self, text: str, x: float, y: float, colour: Colour) -> None:
        """A label with its middle at a point, or near it."""
        width, height = self._size(text)
        left, top = x - width / 2, y - height / 2
        self._place(text, [(left, top), (left, top - height), (left, top + height)], width, height, colour)

    def corner_label(self, text: str, colour: Colour) -> None:
        """A label in the top left corner, below those that are there."""
        width, height = self._size(text)
        self._place(text, [(0, 0), *((0, bottom) for _, _, _, bottom in self._taken)], width, height, colour)

    def paste(self, pixels: NDArray[np.uint8], corner: tuple[int, int], size: tuple[int, int]) -> None:
        """A picture with its left and top at ``corner``, brought to ``size`` (width, height)."""
        self.image.paste(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS), corner)

    def text(self, text: str, corner: tuple[float, float], colour: Colour, size: int) -> float:
        """A line of text; returns where it ends."""
        self._pen.text(corner, text, fill=colour, font=_font(size))
        return corner[0] + _font(size).getlength(text)

    def chip(self, text: str, corner: tuple[float, float], colour: Colour, size: int) -> float:
        """A line of text on a coloured ground; returns where it ends."""
        left, top = corner
        right = left + _font(size).getlength(text) + size
        self._pen.rounded_rectangle((left, top, right, top + 1.4 * size), radius=size // 4, fill=colour)
        self.text(text, (left + size / 2, top + size // 8), letters_on(colour), size)
        return right

    def _size(self, text: str) -> tuple[float, float]:
        left, _, right, _ = self.font.getbbox(text)
        ascent, descent = self.font.getmetrics() if isinstance(self.font, ImageFont.FreeTypeFont) else (10, 2)
        return right - left + 2 * self.line + 2, ascent + descent + 2

    def _place(
        self, text: str, corners: Sequence[tuple[float, float]], width: float, height: float, colour: Colour
    ) -> None:
        inside = [
            (max(0.0, min(left, self.width - width)), max(0.0, min(top, self.height - height))) for left, top in corners
        ]
        left, top = min(inside, key=lambda corner: self._covered(corner[0], corner[1], width, height))
        self._taken.append((left, top, left + width, top + height))
        self._pen.rectangle((left, top, left + width, top + height), fill=colour)
        self._pen.text((left + self.line + 1, top + 1), text, fill=letters_on(colour), font=self.font)

    def _covered(self, left: float, top: float, width: float, height: float) -> float:
        """How much of the labels drawn before a label would cover, in pixels."""
        return sum(
            max(0.0, min(right, left + width) - max(other_left, left))
            * max(0.0, min(bottom, top + height) - max(other_top, top))
            for other_left, other_top, right, bottom in self._taken
        )


def sheet(tiles: Sequence[tuple[NDArray[np.uint8], str]], columns: int, side: int = 320) -> NDArray[np.uint8]:
    """Pictures side by side, each with a line under it.

    Args:
        tiles: (pixels, caption); pictures are brought to the same width.
        columns: Tiles per row.
        side: Width of a tile, in pixels.
    """
    gap, font = 8, _font(15)
    columns = min(columns, len(tiles))
    images = []
    for pixels, _ in tiles:
        height = max(1, round(side * pixels.shape[0] / pixels.shape[1]))
        kind = Image.Resampling.NEAREST if pixels.shape[1] <= side else Image.Resampling.LANCZOS
        images.append(Image.fromarray(pixels).resize((side, height), kind))
    line = 24 if any(caption for _, caption in tiles) else 0
    rows = [range(start, min(start + columns, len(tiles))) for start in range(0, len(tiles), columns)]
    heights = [max(images[i].height for i in row) + line + gap for row in rows]
    out = Image.new('RGB', (columns * (side + gap) + gap, sum(heights) + gap), (255, 255, 255))
    pen, top = ImageDraw.Draw(out), gap
    for row, height in zip(rows, heights):
        for column, i in enumerate(row):
            left = gap + column * (side + gap)
            out.paste(images[i], (left, top))
            pen.text((left, top + images[i].height + 2), tiles[i][1], fill=(0, 0, 0), font=font)
        top += height
    return np.asarray(out)


def write_picture(path: Path, pixels: NDArray | Image.Image, quality: int = 95) -> None:
    """Write a picture in full or not at all; the ending says the format.

    Raises:
        UserError: Pillow knows no such ending, or the file cannot be written.
    """
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    Image.init()
    kind = Image.EXTENSION.get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise UserError(f'{path}: expected an ending such as .jpg, .png or .json')
    try:
        atomic_write(path, lambda file: image.save(file, kind, quality=quality))
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror or error}') from None


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _blend(pixels: NDArray[np.uint8], colours: NDArray) -> NDArray[np.uint8]:
    return np.rint((1 - _MASK_SHARE) * pixels + _MASK_SHARE * colours).astype(np.uint8)


def _paint_masks(
    pixels: NDArray[np.uint8], masks: Masks, labels: NDArray, palette: Sequence[Sequence[int]] | None
) -> None:
    """Each mask in its class's colour with an outline, the largest first."""
    line = max(1, line_width(*pixels.shape[:2]) // 2)
    for index in np.argsort(-masks.areas(), kind='stable'):
        mask, top, left = masks.window(int(index))
        part = pixels[top : top + mask.shape[0], left : left + mask.shape[1]]
        colour = np.array(colour_of(int(labels[index]), palette), np.float32)
        part[mask] = _blend(part[mask], colour)
        part[mask & ~eroded(mask, line)] = colour.astype(np.uint8)


def eroded(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """A mask without its pixels nearer than ``by`` to what is outside."""
    for _ in range(by):
        ringed = np.pad(mask, 1)
        mask = ringed[1:-1, 1:-1] & ringed[:-2, 1:-1] & ringed[2:, 1:-1] & ringed[1:-1, :-2] & ringed[1:-1, 2:]
    return mask


def _region_centres(label_map: NDArray, classes: int) -> dict[int, tuple[float, float]]:
    """For each class that covers enough, the point that lies deepest inside of it (y, x), largest class first."""
    step = max(1, max(label_map.shape) // 96)
    small = label_map[step // 2 :: step, step // 2 :: step]
    places, counts = np.unique(small, return_counts=True)
    centres = {}
    for place in places[np.argsort(-counts, kind='stable')]:
        if place >= classes:
            continue
        region = small == place
        if region.mean() < _LABELLED_SHARE:
            continue
        inner = region
        while (smaller := eroded(inner, 1)).any():
            inner = smaller
        ys, xs = np.nonzero(inner)
        middle = np.argmin((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2)
        centres[int(place)] = (float(ys[middle] + 0.5) * step, float(xs[middle] + 0.5) * step)
    return centres
