# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Reading pictures once: whether they can be used, their sizes, and what near-duplicates share."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mmlightvit.durable.images import MAX_PIXELS, BadSample, fetch, read_header
from mmlightvit.pictures.read import PictureError, decode, read_file

#: Wraps an iterable of known length: (items, what they are, how many) -> the same items.
Progress = Callable[[Iterable, str, int], Iterable]
#: Endings of pictures, as prediction reads them too.
PICTURE_SUFFIXES = frozenset(
    '.avif .bmp .gif .jp2 .jpeg .jpg .pbm .pgm .png .ppm .tif .tiff .webp'.split()  # noqa: SIM905
)
#: Bits of 64 in which the hashes of near-duplicates may differ.
HASH_DISTANCE = 4
#: Correlation of their thumbnails: pictures of one colour have equal hashes and nothing else in common.
_CORRELATION = 0.95
_BATCH = 512
_BITS = np.array([value.bit_count() for value in range(256)], np.uint8)


@dataclass(frozen=True, slots=True)
class Probe:
    """What reading a picture told.

    Attributes:
        fault: Why it cannot be used; the rest is empty then.
        size: (height, width) as displayed.
        stored: (height, width) in the file, before EXIF turns it.
        turned: Whether EXIF turns or mirrors it.
        digest: SHA-256 of the file.
        difference_hash: 64 bits: whether brightness rises from one pixel of a grey 9 x 8 thumbnail to the next.
        thumbnail: (16, 16) grey.
    """

    fault: str | None = None
    size: tuple[int, int] = (0, 0)
    stored: tuple[int, int] = (0, 0)
    turned: bool = False
    digest: bytes = b''
    difference_hash: int = 0
    thumbnail: np.ndarray | None = None

    def annotated_size(self, stated: tuple[int, int] | None) -> tuple[int, int] | None:
        """The size that coordinates are for, or None where what is stated is no size of this picture."""
        if not stated or not all(stated):
            return self.size
        return stated if stated in (self.size, self.stored) else None


def probe(path: Path, backend_args: dict | None = None, max_pixels: int = MAX_PIXELS) -> Probe:
    """Read a picture as far as it takes to know that it decodes.

    Args:
        path: The picture.
        backend_args: Where it lies, as MMEngine says it; by default on a disk.
        max_pixels: Height x width that it may have.
    """
    try:
        content = fetch(str(path), backend_args) if backend_args else read_file(path)
        grey, stored, turned = _grey(content, str(path), max_pixels)
    except (PictureError, BadSample) as error:
        return Probe(getattr(error, 'reason', None) or str(error))
    size = (stored[1], stored[0]) if turned in range(5, 9) else stored
    rises = np.diff(np.asarray(grey.resize((9, 8)), np.int16), axis=1) > 0
    return Probe(
        None,
        size,
        stored,
        turned != 1,
        hashlib.sha256(content).digest(),
        int.from_bytes(np.packbits(rises).tobytes(), 'big'),
        np.asarray(grey.resize((16, 16)), np.float32),
    )


def _grey(content: bytes, name: str, max_pixels: int) -> tuple[Image.Image, tuple[int, int], int]:
    """The picture in grey, as displayed and perhaps smaller, its stored size and EXIF orientation."""
    header = read_header(content, max_pixels)
    try:
        with Image.open(io.BytesIO(content)) as image:
            orientation = image.getexif().get(0x0112, 1)
            if image.format == 'JPEG':  # an eighth is enough, and takes a fifth of the time; every byte is decoded
                image.draft('L', (32, 32))
                return ImageOps.exif_transpose(image).convert('L'), header.size, orientation
    except (OSError, SyntaxError, ValueError, EOFError):
        raise BadSample('it cannot be decoded: the file is broken or cut off') from None
    pixels, _ = decode(content, name)
    return Image.fromarray(pixels).convert('L'), header.size, orientation


def probe_all(paths: Iterable[Path]) -> Iterator[tuple[Path, Probe]]:
    """Every path with its probe, in order."""
    return in_threads(probe, list(paths))


def no_progress(items: Iterable, what: str, total: int) -> Iterable:
    """A :data:`Progress` that shows nothing."""
    return items


def in_threads(
    function: Callable[[Any], Any], items: Sequence, progress: Progress = no_progress, what: str = ''
) -> Iterator[tuple[Any, Any]]:
    """(item, result) in order. Decoding releases the interpreter lock; batches bound the memory."""
    done = iter(progress(range(len(items)), what, len(items)))
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(items), _BATCH):
            batch = items[start : start + _BATCH]
            for item, result in zip(batch, pool.map(function, batch)):
                next(done)
                yield item, result
    next(done, None)  # lets the bar finish


def duplicates(probes: Sequence[Probe]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each picture that has near-duplicates after it: its place, theirs, and which are the same byte for byte."""
    hashes = np.array([item.difference_hash for item in probes], np.uint64)
    files = np.unique([item.digest.hex() for item in probes], return_inverse=True)[1]
    empty = np.zeros((16, 16), np.float32)
    thumbnails = np.array([empty if item.thumbnail is None else item.thumbnail for item in probes]).reshape(-1, 256)
    thumbnails = thumbnails - thumbnails.mean(axis=1, keepdims=True)
    thumbnails /= np.maximum(np.linalg.norm(thumbnails, axis=1, keepdims=True), 1e-6)
    for first in range(len(hashes)):
        near = first + 1 + np.flatnonzero(_bits(hashes[first + 1 :] ^ hashes[first]) <= HASH_DISTANCE)
        same = files[near] == files[first]
        kept = same | (thumbnails[near] @ thumbnails[first] >= _CORRELATION)
        if kept.any():
            yield first, near[kept], same[kept]


def _bits(values: np.ndarray) -> np.ndarray:
    return _BITS[values.view(np.uint8).reshape(-1, 8)].sum(axis=1)


def pictures_in(
    folder: Path, recursive: bool = True, follow: Callable[[Path], bool] = lambda path: True
) -> Iterator[Path]:
    """The pictures of a folder in the order of their paths; hidden files and folders are passed over.

    Args:
        folder: Each real folder below it is gone through once, wherever links lead.
        recursive: Whether folders in it count.
        follow: Whether to follow a link to a folder.
    """
    if not recursive:
        yield from (path for path in sorted(folder.iterdir()) if is_picture(path) and path.is_file())
        return
    found: list[Path] = []
    seen: set[str] = set()
    waiting = [folder]
    while waiting:  # what lies behind links comes last, so that a picture has its own path where it has one
        for directory, folders, files in os.walk(waiting.pop(0)):
            real = os.path.realpath(directory)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            below = [Path(directory, name) for name in folders if not name.startswith('.')]
            waiting += [path for path in sorted(below) if path.is_symlink() and follow(path)]
            folders[:] = [path.name for path in below if not path.is_symlink()]
            found += [Path(directory, name) for name in files if is_picture(Path(name))]
    yield from sorted(found)


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith('.')
