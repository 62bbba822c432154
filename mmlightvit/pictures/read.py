# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Pictures of any kind as RGB pixels the way they are displayed, equal to what the reader of training gives.

Training reads by OpenCV. Pillow gives the same pixels where what OpenCV does is repeated: alpha is dropped, 16 bits
keep their upper eight, CMYK goes its way to RGB, the EXIF orientation is applied.
"""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mmlightvit.durable.images import MAX_PIXELS, BadSample, TooManyPixels, read_header
from mmlightvit.errors import UserError

#: Endings of pictures' files.
ENDINGS = ('.bmp', '.jpg', '.jpeg', '.jp2', '.png', '.tif', '.tiff', '.webp', '.ppm', '.pgm', '.pbm', '.avif')
_WIDTH, _HEIGHT = 0x0100, 0x0101
#: Rows whose colours are computed together.
_ROWS = 64


class PictureError(UserError):
    """A picture cannot be used; the message is its name and the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f'{name}: {reason}')
        self.name, self.reason = name, reason


@dataclass(frozen=True)
class Picture:
    """One picture, ready for a model.

    Attributes:
        pixels: (H, W, 3) uint8, RGB as displayed.
        path: Its file or address, if it has one.
        frame: Its number in a video, counted from 0.
        exif: The EXIF orientation that was applied, 2 to 8; None for none.
        read_ms: Milliseconds of reading it.
        rate: Of a frame, the frames per second among which it is.
        of: Of a frame, how many there are to come in all; 0 where the video does not say.
    """

    pixels: NDArray[np.uint8]
    path: str | None = None
    frame: int | None = None
    exif: int | None = None
    read_ms: float = 0.0
    rate: float | None = None
    of: int = 0


def as_picture(source: Any, channels: str = 'rgb') -> Picture:
    """A picture from a path, the bytes of a file, a Pillow image, an array or a tensor.

    Args:
        source: Arrays are uint8 of shape (H, W, 3), (H, W, 4) or (H, W); tensors (3, H, W), uint8 or float in [0, 1].
        channels: Order of an array's or tensor's channels, ``'rgb'`` or ``'bgr'`` (OpenCV's).

    Raises:
        PictureError: It cannot be read or decoded.
        TypeError, ValueError: It is no picture, or not of these types and shapes.
    """
    if channels not in ('rgb', 'bgr'):
        raise ValueError(f"channels: expected 'rgb' or 'bgr', got {channels!r}")
    start = time.perf_counter()
    path = exif = None
    if isinstance(source, str | Path):
        path = str(source)
        pixels, exif = decode(read_file(Path(source)), path)
    elif isinstance(source, bytes | bytearray | memoryview):
        pixels, exif = decode(bytes(source), 'picture bytes')
    elif isinstance(source, Image.Image):
        path = getattr(source, 'filename', None) or None
        pixels, exif = _from_pillow(source, path or 'Pillow image')
    else:
        pixels = _from_array(source, channels)
    return Picture(pixels, path, None, exif, (time.perf_counter() - start) * 1000)


def read_file(path: Path) -> bytes:
    """The content of a picture's file."""
    try:
        content = path.expanduser().read_bytes()
    except FileNotFoundError:
        raise PictureError(str(path), 'the file is missing') from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        reason = getattr(error, 'strerror', None) or error
        raise PictureError(str(path), f'the file cannot be read: {reason}') from None
    if not content:
        raise PictureError(str(path), 'the file is empty')
    return content


def decode(content: bytes, name: str) -> tuple[NDArray[np.uint8], int | None]:
    """The pixels of a picture's file, and the EXIF orientation that was applied.

    Raises:
        PictureError: The reason, in the words of the data guard.
    """
    if not content:
        raise PictureError(name, 'there are no bytes')
    try:
        read_header(content)
    except TooManyPixels as error:
        raise PictureError(name, str(error)) from None
    except BadSample as error:
        return _other_tiff(content, name, str(error)), None
    with Image.open(io.BytesIO(content)) as image:
        if image.format == 'TIFF' and len(image.getbands()) == 4:
            return _four_bands(content, name), None
        return _from_pillow(image, name)


def _other_tiff(content: bytes, name: str, reason: str) -> NDArray[np.uint8]:
    """A TIFF that OpenCV knows and Pillow does not, such as one of 3 x 16 bits; its tags say how large it is.

    OpenCV gets nothing else that Pillow refuses: how large it is would be known when it lies in memory.
    """
    try:
        is_large = content[2:3] == b'\x2b'
        tags = ImageFileDirectory_v2(content[: 16 if is_large else 8])
        file = io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        width, height = int(tags[_WIDTH]), int(tags[_HEIGHT])
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        raise PictureError(name, reason) from None
    if width * height > MAX_PIXELS:
        raise PictureError(name, f'it has {width} x {height} pixels, more than {MAX_PIXELS:,}')
    pixels = _by_opencv(content)
    if pixels is None:
        raise PictureError(name, reason)
    return pixels


def _four_bands(content: bytes, name: str) -> NDArray[np.uint8]:
    """A TIFF of four bands. Whether the fourth one darkens the others depends on tags, which OpenCV's reader knows."""
    pixels = _by_opencv(content)
    if pixels is None:
        raise PictureError(name, 'a TIFF of four bands that OpenCV does not read; save it with three')
    return pixels


def _from_pillow(image: Image.Image, name: str) -> tuple[NDArray[np.uint8], int | None]:
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(name, f'it has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}')
    if not image.width * image.height:
        raise PictureError(name, 'it has no pixels')
    try:
        orientation = orientation_of(image)
        image.load()
        pixels = _to_rgb(ImageOps.exif_transpose(image) if orientation else image)
    except (OSError, RuntimeError, SyntaxError, ValueError, EOFError) as error:  # Pillow's plugins, on broken files
        reason = ' '.join(str(error).split())
        if 'truncated' in reason or 'broken' in reason:
            reason = 'the file is broken or cut off'
        raise PictureError(name, f'it cannot be decoded: {reason}') from None
    return pixels, orientation


def orientation_of(image: Image.Image) -> int | None:
    """The EXIF orientation of an opened picture, 2 to 8 (from 5 on, height and width change places); None for none."""
    orientation = image.getexif().get(0x0112)
    return orientation if orientation in range(2, 9) else None


def displayed_size(file: Path | BinaryIO) -> tuple[int, int] | None:
    """(height, width) of a picture file as displayed, by its header; None where it cannot be read."""
    try:
        with warnings.catch_warnings(action='ignore'), Image.open(file) as image:
            orientation = orientation_of(image)
            width, height = image.size
            if image.format == 'TIFF':  # of which newer versions of Pillow give the size as displayed
                width, height = image.tag_v2[256], image.tag_v2[257]  # type: ignore[attr-defined]
            return (width, height) if (orientation or 1) >= 5 else (height, width)
    except (OSError, SyntaxError, ValueError, KeyError, Image.DecompressionBombError):
        return None


def read_label_map(path: Path) -> NDArray:
    """(H, W) values of a label image, of a palette picture its places.

    Raises:
        PictureError: It cannot be read, or is a picture in colours.
    """
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise PictureError(str(path), f'the label image cannot be read: {error}') from None
    if values.ndim != 2:
        raise PictureError(str(path), 'a label image has one number for each pixel, and this one has colours')
    return values


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith('I;16'):
        return _grey_to_rgb((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ('I', 'F'):
        raise ValueError('its pixels have 32 bits; save it with 8 or 16')
    if image.mode == 'CMYK':
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        for first in range(0, image.height, _ROWS):  # 32 bits of all would be sixteen bytes a pixel
            ink = 255 - np.asarray(image.crop((0, first, image.width, min(first + _ROWS, image.height))), np.int32)
            key = ink[..., 3:]
            pixels[first : first + _ROWS] = key - ((255 - ink[..., :3]) * key >> 8)
        return pixels
    return np.array(image if image.mode == 'RGB' else image.convert('RGB'))


def _by_opencv(content: bytes) -> NDArray[np.uint8] | None:
    try:
        import cv2
    except ImportError:
        return None
    try:
        with silent_opencv():
            bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if bgr is None else np.ascontiguousarray(bgr[..., ::-1]).astype(np.uint8)


@contextlib.contextmanager
def silent_opencv() -> Iterator[None]:
    """Without OpenCV's remarks on files that it cannot read; what matters of them is in our own message."""
    import cv2

    logging: Any = cv2 if hasattr(cv2, 'setLogLevel') else cv2.utils.logging  # OpenCV 4 and 5
    level = logging.getLogLevel()
    logging.setLogLevel(0)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _from_array(source: Any, channels: str) -> NDArray[np.uint8]:
    torch = sys.modules.get('torch')
    if torch is not None and isinstance(source, torch.Tensor):
        array = _from_tensor(source.detach().cpu().numpy())
    elif isinstance(source, np.ndarray):
        array = source
        if array.dtype != np.uint8:
            raise TypeError(
                f'array of {array.dtype}: expected uint8; whether other numbers lie in [0, 1], in [0, 255] or are '
                'normalised cannot be told, so bring them to uint8 first'
            )
    else:
        raise TypeError(
            'expected a path, bytes, a Pillow image, a uint8 array (H, W, 3), (H, W, 4) or (H, W), or a tensor '
            f'(3, H, W), got {type(source).__name__}'
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or not array.size:
        raise ValueError(f'array of shape {array.shape}: expected (H, W, 3), (H, W, 4) or (H, W), none of them 0')
    if array.ndim == 2:
        return _grey_to_rgb(array)
    # A copy: the caller may write into the array while the result still shows it.
    return np.array(array[..., :3] if channels == 'rgb' else array[..., 2::-1])


def _from_tensor(values: NDArray) -> NDArray:
    if values.ndim != 3 or values.shape[0] != 3 or not values.size:
        raise ValueError(f'tensor of shape {tuple(values.shape)}: expected (3, H, W)')
    if values.dtype != np.uint8:
        if not np.issubdtype(values.dtype, np.floating) or not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(f'tensor of {values.dtype}: expected uint8, or float in [0, 1] and not normalised')
        values = np.rint(values.astype(np.float32) * 255).astype(np.uint8)
    return values.transpose(1, 2, 0)


def _grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)
