# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Masks of objects as COCO's run-length codes, and nothing else of them in memory.

A code counts the pixels of the runs down the columns, nothing first, and is written as COCO's API writes it. Outlines
run along the edges of pixels, so that their area is the number of pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Loop = NDArray[np.float64]  # (k, 2) corners x, y of a closed outline


class Masks:
    """Masks of the objects of one picture.

    Args:
        counts: The code of each object.
        height, width: Size of the picture.
    """

    def __init__(self, counts: Iterable[str], height: int, width: int) -> None:
        self.counts = tuple(counts)
        self.height, self.width = height, width

    @classmethod
    def from_dense(cls, masks: NDArray, boxes: NDArray | None = None) -> Masks:
        """From (n, H, W) of bool. With ``boxes`` (n, 4), nothing is looked for farther than 2 px outside of them."""
        height, width = masks.shape[1:]
        counts = []
        for index, mask in enumerate(masks):
            top, left, bottom, right = 0, 0, height, width
            if boxes is not None:
                x1, y1, x2, y2 = boxes[index]
                top, left = max(0, int(y1) - 2), max(0, int(x1) - 2)
                bottom, right = min(height, int(y2) + 3), min(width, int(x2) + 3)
            counts.append(encode(mask[top:bottom, left:right], (top, left), (height, width)))
        return cls(counts, height, width)

    def __len__(self) -> int:
        return len(self.counts)

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Masks) and (self.height, self.width) == (other.height, other.width)
        return same and self.counts == other.counts  # type: ignore[attr-defined]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f'Masks({len(self)} of {self.height} x {self.width} px)'

    @overload
    def __getitem__(self, index: int) -> NDArray[np.bool_]: ...
    @overload
    def __getitem__(self, index: slice | NDArray | Sequence) -> Masks: ...
    def __getitem__(self, index: Any) -> Any:
        """The mask (H, W) of an object; or some of the masks."""
        if isinstance(index, int | np.integer):
            return decode(self.counts[index], self.height, self.width)
        return Masks([self.counts[i] for i in np.arange(len(self))[index]], self.height, self.width)

    def rle(self) -> list[dict[str, Any]]:
        """COCO's form: ``{'size': [height, width], 'counts': text}`` for each object."""
        return [{'size': [self.height, self.width], 'counts': text} for text in self.counts]

    def dense(self) -> NDArray[np.bool_]:
        """All of them, (n, H, W): a byte per pixel and object."""
        out = np.zeros((len(self), self.height, self.width), bool)
        for index in range(len(self)):
            out[index] = self[index]
        return out

    def areas(self) -> NDArray[np.int64]:
        """Pixels of each object, (n,)."""
        return np.array([runs(text)[1::2].sum() for text in self.counts], np.int64)

    def window(self, index: int) -> tuple[NDArray[np.bool_], int, int]:
        """The smallest rectangle that holds the mask of an object, its top and its left; (0, 0) large where none is."""
        ends = np.cumsum(runs(self.counts[index]))
        starts, ends = ends[0 : len(ends) // 2 * 2 : 2], ends[1::2]
        if not len(starts):
            return np.zeros((0, 0), bool), 0, 0
        left, right = int(starts[0] // self.height), int((ends[-1] - 1) // self.height) + 1
        part = np.zeros((right - left) * self.height + 1, np.int8)
        part[starts - left * self.height] += 1
        part[ends - left * self.height] -= 1
        columns = np.cumsum(part[:-1]).astype(bool).reshape(right - left, self.height).T
        rows = np.flatnonzero(columns.any(axis=1))
        return columns[rows[0] : rows[-1] + 1], int(rows[0]), left

    def outlines(self, index: int) -> tuple[list[Loop], list[Loop]]:
        """The outlines of an object's parts, largest first, and of its holes. Parts that touch at a corner are two."""
        mask, top, left = self.window(index)
        outer: list[Loop] = []
        holes: list[Loop] = []
        for loop, is_hole in _trace(mask):
            (holes if is_hole else outer).append(loop + (left, top))
        return sorted(outer, key=_area, reverse=True), holes

    def polygons(self, holes: str = 'bridge') -> list[Loop]:
        """One outline for each object, (k, 2); empty where the mask is.

        Args:
            holes: ``'bridge'`` joins further parts and holes by bridges without width, ``'drop'`` leaves them out with
                a warning, ``'error'`` raises a ValueError.
        """
        if holes not in ('bridge', 'drop', 'error'):
            raise ValueError(f"holes: expected 'bridge', 'drop' or 'error', got {holes!r}")
        out, dropped = [], 0
        for index in range(len(self)):
            outer, inner = self.outlines(index)
            rest = outer[1:] + inner
            if rest and holes == 'error':
                raise ValueError(f'object {index} has {len(outer)} parts and {len(inner)} holes: no single outline')
            polygon = outer[0] if outer else np.zeros((0, 2))
            if holes == 'bridge':
                for loop in rest:
                    polygon = _bridge(polygon, loop)
            dropped += len(rest) if holes == 'drop' else 0
            out.append(polygon)
        if dropped:
            warnings.warn(f'{dropped} holes and further parts of masks are left out of their outlines', stacklevel=2)
        return out


# -- the code ---------------------------------------------------------------------------------------------------------
def encode(mask: NDArray[np.bool_], corner: tuple[int, int] = (0, 0), size: tuple[int, int] | None = None) -> str:
    """The code of a mask that stands with its ``corner`` (top, left) in a picture of ``size`` (height, width)."""
    height, width = mask.shape if size is None else size
    # Column after column with a gap between them, so that bounds are starts and ends of runs in turn.
    ringed = np.zeros((mask.shape[1], mask.shape[0] + 1), bool)
    ringed[:, :-1] = mask.T
    flat = np.concatenate([[False], ringed.ravel()])
    columns, rows = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), mask.shape[0] + 1)
    bounds = (columns + corner[1]) * height + rows + corner[0]
    starts, ends = bounds[::2], bounds[1::2]
    apart = starts[1:] != ends[:-1]  # a run may go on in the next column
    starts, ends = starts[np.r_[True, apart][: len(starts)]], ends[np.r_[apart, True][: len(ends)]]
    bounds = np.concatenate([[0], np.stack([starts, ends], axis=1).ravel(), [height * width]])
    counts = np.diff(bounds)
    return _compress(counts if counts[-1] or len(counts) == 1 else counts[:-1])


def decode(text: str, height: int, width: int) -> NDArray[np.bool_]:
    """The mask (height, width) of a code."""
    counts = runs(text)
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def _compress(counts: NDArray[np.int64]) -> str:
    """Differences to the run before the last, in groups of five bits, lowest first; the sixth bit says: more follow."""
    left = counts.copy()
    left[3:] -= counts[1:-2]
    groups, live = [], np.ones(len(left), bool)
    while live.any():
        low = left & 31
        left >>= 5
        more = np.where(low & 16, left != -1, left != 0)
        groups.append(np.where(live, low | (more << 5), -1))
        live &= more
    codes = np.stack(groups, axis=1).ravel()
    return (codes[codes >= 0] + 48).astype(np.uint8).tobytes().decode('ascii')


def runs(text: str) -> NDArray[np.int64]:
    """The lengths of the runs of a code, nothing first.

    Raises:
        ValueError: It is no such code.
    """
    codes = np.frombuffer(text.encode('ascii'), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 32 == 0)
    if not len(ends) or ends[-1] != len(codes) - 1:
        raise ValueError('a run-length code ends within a number')
    starts = np.concatenate([[0], ends[:-1] + 1])
    groups = ends - starts + 1  # of five bits, of each number
    place = 5 * (np.arange(len(codes)) - np.repeat(starts, groups))
    counts = np.add.reduceat((codes & 31) << place, starts)
    counts -= (codes[ends] >> 4 & 1) << 5 * groups  # the highest bit is the sign
    counts[1::2] = counts[1::2].cumsum()
    counts[2::2] = counts[2::2].cumsum()
    return counts


def paste(probabilities: NDArray[np.float32], boxes: NDArray, height: int, width: int, threshold: float = 0.5) -> Masks:
    """The masks of small probability maps laid over their boxes, as mmdet pastes them.

    Args:
        probabilities: (n, m, m).
        boxes: (n, 4) x1 y1 x2 y2, in pixels of the picture.
        height, width: Size of the picture.
        threshold: From which probability on a pixel belongs to the object.
    """
    counts = []
    for small, (x1, y1, x2, y2) in zip(probabilities, np.asarray(boxes, np.float32)):
        top, left = max(0, int(np.floor(y1)) - 1), max(0, int(np.floor(x1)) - 1)
        rows = _interpolation(top, min(height, int(np.ceil(y2)) + 1), y1, y2, small.shape[0])
        columns = _interpolation(left, min(width, int(np.ceil(x2)) + 1), x1, x2, small.shape[1])
        counts.append(encode(rows @ small @ columns.T >= threshold, (top, left), (height, width)))
    return Masks(counts, height, width)


def _interpolation(first: int, last: int, low: np.float32, high: np.float32, size: int) -> NDArray[np.float32]:
    """(last - first, size): each pixel's share of each cell between ``low`` and ``high``; beyond them is nothing."""
    pixels = np.arange(first, max(first, last), dtype=np.float32) + np.float32(0.5)
    extent = high - low  # where there is none, the middle of the map stands for all of it
    place = (pixels - low) / extent * size - np.float32(0.5) if extent > 0 else np.full_like(pixels, size / 2 - 0.5)
    return tent(place, size)


def tent(place: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Weights of linear interpolation at places between ``size`` cells, zero beyond them: (places, size)."""
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(size, dtype=np.float32))).astype(np.float32)


# -- outlines ---------------------------------------------------------------------------------------------------------
def _trace(mask: NDArray[np.bool_]) -> list[tuple[Loop, bool]]:
    """Closed outlines along the pixels' edges, corners only, and whether each is a hole's. Filled corners do not join.

    The corners of a row pair up to its horizontal edges, those of a column to its vertical ones; a corner where two
    outlines touch counts for two. Outlines go through both pairings in turn.
    """
    ringed = np.pad(mask, 1).astype(np.int8)
    a, b, c, d = ringed[:-1, :-1], ringed[:-1, 1:], ringed[1:, :-1], ringed[1:, 1:]
    falling, rising = (a & d & (1 - b) & (1 - c)).astype(bool), (b & c & (1 - a) & (1 - d)).astype(bool)
    corner = (a + b + c + d) % 2 == 1
    ys, xs = np.nonzero(corner | falling | rising)
    copies = np.where(falling | rising, 2, 1)[ys, xs]
    copy = np.arange(copies.sum()) - np.repeat(np.cumsum(copies) - copies, copies)
    y, x = np.repeat(ys, copies), np.repeat(xs, copies)
    # The first copy's horizontal edge goes left; its vertical edge goes up where the pixel above it is inside.
    below = np.where(rising[y, x], 1 - copy, copy)
    across, down = _mates(np.lexsort((copy, x, y))), _mates(np.lexsort((below, y, x)))
    seen = np.zeros(len(y), bool)
    loops = []
    for start in range(len(y)):  # row by row, so a loop begins at its topmost corner, and there at the leftmost
        if seen[start]:
            continue
        path, place = [], start
        while not seen[place]:
            path += [place, across[place]]
            seen[place] = seen[across[place]] = True
            place = down[across[place]]
        is_hole = not d[y[start], x[start]]
        points = np.stack([x[path], y[path]], axis=1).astype(np.float64)
        # From its topmost left corner to the right: clockwise on the screen. Holes go the other way round.
        loops.append((points[::-1] if is_hole else points, is_hole))
    return loops


def _mates(order: NDArray[np.int64]) -> list[int]:
    mates = np.empty(len(order), np.int64)
    mates[order] = order[np.arange(len(order)) ^ 1]
    return mates.tolist()


def _area(loop: Loop) -> float:
    """Shoelace formula; positive for outlines of parts, negative for those of holes."""
    x, y = loop[:, 0], loop[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _bridge(polygon: Loop, loop: Loop) -> Loop:
    """Both as one outline, joined where they are nearest."""
    distance = ((polygon[:, None] - loop[None]) ** 2).sum(axis=2)
    here, there = np.unravel_index(distance.argmin(), distance.shape)
    return np.concatenate([polygon[: here + 1], np.roll(loop, -there, axis=0), loop[there : there + 1], polygon[here:]])
