# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A picture as the network takes it: the toolboxes' test pipelines, from the few numbers of ``input`` in model.json.

Every pixel is the one that the pipeline would give, with OpenCV or without it.

Shape legend: H W picture, h w resized and cropped, P Q padded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmlightvit.model_folder.info import InputSpec


@dataclass(frozen=True)
class Prepared:
    """One picture, prepared.

    Attributes:
        array: (3, P, Q) float32, normalised and padded.
        size: (h, w), what of it is picture.
        original: (H, W) of the picture.
        scale: (vertical, horizontal), network pixels per pixel of the picture.
    """

    array: NDArray[np.float32]
    size: tuple[int, int]
    original: tuple[int, int]
    scale: tuple[float, float]


def prepare(pixels: NDArray[np.uint8], spec: InputSpec) -> Prepared:
    """Resize, crop, normalise and pad RGB pixels (H, W, 3)."""
    H, W = pixels.shape[:2]
    resized = pixels
    for h, w in target_sizes(H, W, spec.resize):
        if resized.shape[:2] != (h, w):
            resized = resize(resized, h, w, spec.interpolation)
    h, w = resized.shape[:2]
    if spec.crop is not None:
        resized = _centre(resized, *spec.crop)
    if spec.channels == 'bgr':
        resized = resized[..., ::-1]
    size = resized.shape[0], resized.shape[1]
    P, Q = (-(-side // spec.pad_multiple) * spec.pad_multiple if spec.pad_multiple else side for side in size)
    array = np.zeros((3, P, Q), np.float32)
    x = array[:, : size[0], : size[1]]
    np.subtract(resized.transpose(2, 0, 1), np.array(spec.mean, np.float32)[:, None, None], out=x)
    x /= np.array(spec.std, np.float32)[:, None, None]
    return Prepared(array, size, (H, W), (h / H, w / W))


def target_sizes(height: int, width: int, resize: Mapping[str, int] | None) -> list[tuple[int, int]]:
    """The sizes (h, w) to which a picture is brought one after the other, rounded as the toolboxes round."""
    if resize is None:
        return []
    if 'height' in resize:
        height, width = resize['height'], resize['width']
    elif 'long' in resize:
        ratio = min(resize['long'] / max(height, width), resize['short'] / min(height, width))
        height, width = max(1, int(height * ratio + 0.5)), max(1, int(width * ratio + 0.5))
    elif height <= width:
        height, width = resize['short'], int(resize['short'] * width / height)
    else:
        height, width = int(resize['short'] * height / width), resize['short']
    multiple = resize.get('multiple', 1)
    return [(height, width), (-(-height // multiple) * multiple, -(-width // multiple) * multiple)]


def resize(pixels: NDArray[np.uint8], height: int, width: int, interpolation: str = 'bilinear') -> NDArray[np.uint8]:
    """Resize (H, W, 3) uint8: ``'bilinear'`` as OpenCV's INTER_LINEAR, ``'bicubic'`` as Pillow's."""
    if interpolation == 'bicubic':
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    try:
        import cv2
    except ImportError:
        return resize_bilinear(pixels, height, width)
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def resize_bilinear(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """OpenCV's bilinear resizing of 8-bit pixels (H, W, C), to the last bit.

    It takes weights of 11 bits, cuts four bits after the horizontal sum and sixteen from each vertical product.
    """
    H, W, C = pixels.shape
    if 2 * height == H and 2 * width == W:  # here it takes the mean of four pixels
        blocks = pixels.reshape(height, 2, width, 2, C).astype(np.int32).sum(axis=(1, 3))
        return ((blocks + 2) >> 2).astype(np.uint8)
    rows, row_weights = _taps(H, height)
    columns, column_weights = _taps(W, width)
    # Beyond the border, the last row counts with both weights and the last column with one; cutting shows it.
    column_weights[:, columns[0] < 0] = [[2048], [0]]
    column_weights[:, columns[0] >= W - 1] = [[2048], [0]]
    rows, columns = rows.clip(0, H - 1), columns.clip(0, W - 1)
    out = np.empty((height, width, C), np.uint8)
    step = max(1, (1 << 18) // width)  # rows at a time, so that memory stays small
    for start in range(0, height, step):
        part = slice(start, start + step)
        low, high = rows[0, part].min(), rows[1, part].max() + 1
        lines = pixels[low:high].astype(np.int32)
        across = lines[:, columns[0]] * column_weights[0][:, None] + lines[:, columns[1]] * column_weights[1][:, None]
        across >>= 4
        total = np.full((len(rows[0, part]), width, C), 2, np.int32)
        for row, weight in zip(rows[:, part], row_weights[:, part]):
            total += (across[row - low] * weight[:, None, None]) >> 16
        out[part] = (total >> 2).clip(0, 255)
    return out


def _taps(size: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The two source places of each target place, and their weights, both (2, target)."""
    centre = ((np.arange(target) + 0.5) * (size / target) - 0.5).astype(np.float32)
    first = np.floor(centre)
    fraction = centre - first
    weights = np.rint(np.stack([np.float32(1) - fraction, fraction]) * np.float32(2048)).astype(np.int32)
    return np.stack([first, first + 1]).astype(np.int64), weights


def _centre(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    top = max(0, round((pixels.shape[0] - height) / 2))
    left = max(0, round((pixels.shape[1] - width) / 2))
    return pixels[top : top + height, left : left + width]
