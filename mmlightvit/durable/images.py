# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Reading one image of a data set: by its header first, so that no file takes more memory than it may.

Reading order: limits -> faults -> header -> pixels -> paths.
"""

from __future__ import annotations

import io
import os.path as osp
import posixpath
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

#: Pillow's own default: 268 MB as an 8-bit colour image.
MAX_PIXELS = 89_478_485


class BadSample(ValueError):
    """A file of a data set, or its annotation, cannot be used; the message is the reason in plain words."""


class TooManyPixels(BadSample):
    """An image is larger than it may be, by its header."""


@dataclass(frozen=True)
class Header:
    """What an image file says of itself before its pixels are read: size as stored (before EXIF), Pillow's mode."""

    height: int
    width: int
    mode: str

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


def fetch(path: str, backend_args: dict | None = None) -> bytes:
    """The content of a file; :class:`BadSample` where it is missing, unreadable or empty."""
    from mmengine import fileio  # prediction without mmengine reads headers here

    try:
        content = fileio.get(path, backend_args=backend_args)
    except FileNotFoundError:
        raise BadSample('the file is missing') from None
    except OSError as error:
        raise BadSample(f'the file cannot be read: {error.strerror or error}') from error
    if not len(content):
        raise BadSample('the file is empty')
    return bytes(content)


def read_header(content: bytes, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] | None = None) -> Header:
    """Size and mode of an image, without decoding it.

    Args:
        content: The file.
        max_pixels: Height x width that is still accepted.
        formats: Pillow's names of those that are tried; None for all.

    Raises:
        BadSample: No known format, or too many pixels.
    """
    try:
        # What Pillow remarks on a broken header is in our own message.
        with warnings.catch_warnings(action='ignore'), Image.open(io.BytesIO(content), formats=formats) as image:
            header = Header(image.height, image.width, image.mode)
    except Image.DecompressionBombError:
        raise TooManyPixels(f'its header claims more pixels than max_pixels={max_pixels:,}') from None
    except UnidentifiedImageError:
        raise BadSample('it is not an image of a known format') from None
    except (OSError, RuntimeError, ValueError, SyntaxError, EOFError) as error:  # Pillow's plugins, on broken headers
        raise BadSample(f'its header cannot be read: {error}') from error
    if header.height * header.width > max_pixels:
        raise TooManyPixels(
            f'its header claims {header.width} x {header.height} pixels, more than max_pixels={max_pixels:,}'
        )
    return header


def decode(content: bytes, flag: str = 'color', backend: str | None = 'cv2') -> np.ndarray:
    """The pixels of an image, as mmcv decodes them.

    Args:
        content: The file.
        flag: mmcv's ``color_type``: ``'color'`` gives 8-bit BGR of grey, palette, CMYK and 16-bit images too, turned
            as the EXIF orientation says.
        backend: mmcv's decoding backend.

    Returns:
        Shape (H, W, 3) or (H, W).

    Raises:
        BadSample: The pixels are cut off or broken.
    """
    import cv2
    import mmcv

    try:
        image = mmcv.imfrombytes(content, flag=flag, backend=backend)
    except (cv2.error, OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadSample(f'it cannot be decoded: {" ".join(str(error).split())}') from error
    if image is None:
        raise BadSample('it cannot be decoded: the file is broken or cut off')
    return image


def escapes(path: str, root: str) -> bool:
    """Whether ``path``, as the data set would open it, leaves the folder ``root`` by ``..`` or by being absolute.

    Links are followed without question: folders of linked images are common. Without a root, nothing can be left.
    """
    if not root:
        return False
    if '://' in root:
        return not posixpath.normpath(path).startswith(posixpath.normpath(root) + '/')
    inside = osp.join(osp.abspath(root), '')
    return not osp.abspath(path).startswith(inside)
