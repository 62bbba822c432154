# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Where pictures come from: files, folders, globs, lists, videos, cameras, addresses, standard input.

Finding reads nothing but folders and lists; each source is read when its turn comes, a video frame by frame.
"""

from __future__ import annotations

import glob
import os
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlparse

import numpy as np

from mmlightvit.durable.safe_loading.offline import is_offline
from mmlightvit.errors import UserError
from mmlightvit.pictures.read import ENDINGS, Picture, PictureError, as_picture, decode, silent_opencv

VIDEOS = ['.mp4', '.avi', '.mov', '.mkv', '.webm', '.mpg', '.mpeg', '.m4v', '.wmv', '.gif']
_SCHEMES = ('http://', 'https://')
_MAX_BYTES = 100_000_000
_TIMEOUT = 30.0
#: Seconds before a camera or stream that broke off is opened again, and again.
_WAITS = (1.0, 2.0, 4.0)
STDIN = '-'


@dataclass(frozen=True)
class Entry:
    """One picture or video.

    Attributes:
        name: Path, address, number of a camera, or ``-``.
        place: Where it belongs below an output folder, without ending.
    """

    name: str
    place: PurePath

    @property
    def is_video(self) -> bool:
        return is_video(self.name)

    def read(self, every: int = 1) -> Iterator[Picture | PictureError]:
        """Its picture or its frames; an error that ends it comes last."""
        try:
            if self.is_video:
                yield from self._frames(every)
            else:
                yield self._picture()
        except PictureError as error:
            yield error

    def _picture(self) -> Picture:
        if not self.name.startswith(_SCHEMES) and self.name != STDIN:
            return as_picture(self.name)
        start = time.perf_counter()
        content = sys.stdin.buffer.read() if self.name == STDIN else fetch(self.name)
        pixels, exif = decode(content, 'standard input' if self.name == STDIN else self.name)
        return Picture(pixels, self.name, None, exif, (time.perf_counter() - start) * 1000)

    def _frames(self, every: int) -> Iterator[Picture]:
        with Video(self.name) as video:
            number = -1
            while video.step():
                number += 1
                if number % every:
                    continue
                start = time.perf_counter()
                pixels = video.frame()
                read_ms = (time.perf_counter() - start) * 1000
                yield Picture(pixels, self.name, number, None, read_ms, video.rate / every, -(-video.length // every))
            if number < 0:
                raise PictureError(self.name, 'it has no frame that can be decoded')


class Video:
    """A video, camera or stream, read by OpenCV.

    Args:
        name: Path, address or number of a camera.

    Raises:
        PictureError: It cannot be opened.
        UserError: OpenCV is not there.
    """

    def __init__(self, name: str) -> None:
        cv2 = _opencv()
        self.name = name
        self._folder = None
        source: str | int = int(name) if name.isdigit() else name
        if name.startswith(_SCHEMES):
            self._folder = tempfile.TemporaryDirectory()
            source = os.path.join(self._folder.name, 'video' + PurePath(urlparse(name).path).suffix)
            Path(source).write_bytes(fetch(name))
        elif isinstance(source, str) and '://' not in source:
            if not os.path.isfile(source):
                raise PictureError(name, 'the file is missing')
            if not os.path.getsize(source):
                raise PictureError(name, 'the file is empty')
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(_TIMEOUT * 1000)] if '://' in name else []

        def connect() -> Any:
            with silent_opencv():
                return cv2.VideoCapture(source, cv2.CAP_ANY, limits)

        self._connect, self._capture = connect, connect()
        self._called = f'camera {name}' if name.isdigit() else name
        if not self._capture.isOpened():
            self.close()
            what = 'there is no such camera' if name.isdigit() else 'it cannot be opened as a video'
            raise PictureError(self._called, what)
        self.rate = float(self._capture.get(cv2.CAP_PROP_FPS)) or 25.0
        #: Frames that the file claims to have; 0 where it does not say.
        self.length = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if hasattr(self, '_capture'):
            self._capture.release()
        if self._folder is not None:
            self._folder.cleanup()

    def step(self) -> bool:
        """Go on to the next frame; False at the end. A camera or stream that breaks off is opened again.

        Raises:
            PictureError: It stays away.
        """
        if self._capture.grab():
            return True
        if not is_endless(self.name):
            return False
        for wait in _WAITS:
            time.sleep(wait)
            self._capture.release()
            self._capture = self._connect()
            if self._capture.grab():
                return True
        raise PictureError(self._called, 'it gives no more frames: it was unplugged, or the connection broke off')

    def frame(self) -> np.ndarray:
        """The pixels of this frame, RGB."""
        good, bgr = self._capture.retrieve()
        if not good:
            raise PictureError(self.name, 'a frame cannot be decoded: the file is broken or cut off')
        return np.ascontiguousarray(bgr[..., ::-1])


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise UserError('videos and cameras need OpenCV: pip install opencv-python') from None
    return cv2


def is_endless(name: str) -> bool:
    """Whether a source is a camera or a stream."""
    return name.startswith('rtsp://') or (name.isdigit() and not os.path.exists(name))


def is_video(name: str) -> bool:
    """Whether a source is read as a video: by its ending, or because it is a camera or a stream."""
    return is_endless(name) or _ending(name) in VIDEOS


def find(names: Sequence[str], recursive: bool = False) -> list[Entry]:
    """The pictures and videos behind the words of a user, in their order; folders and globs by path.

    Args:
        names: Pictures, folders, globs, ``.txt`` lists, videos, cameras, addresses, ``-``.
        recursive: Whether folders are searched below their first level.

    Raises:
        UserError: A folder, a glob or a list has none, or a path is not there; the message names it.
    """
    entries: list[Entry] = []
    for name in names:
        if name == STDIN:
            entries.append(Entry(name, PurePath('stdin')))
        elif '://' in name:
            if not name.startswith((*_SCHEMES, 'rtsp://')):
                raise UserError(f'{name}: expected http://, https:// or rtsp://')
            entries.append(Entry(name, PurePath(_safe(PurePath(urlparse(name).path).stem) or 'address')))
        elif os.path.isdir(name):
            entries += _in_folder(Path(name), recursive)
        elif is_endless(name):
            entries.append(Entry(name, PurePath(f'camera{name}')))
        elif os.path.exists(name) or not glob.has_magic(name):
            entries += _in_list(Path(name)) if _ending(name) == '.txt' else [Entry(name, PurePath(Path(name).stem))]
        else:
            paths = sorted(path for path in glob.glob(name, recursive=True) if os.path.isfile(path))
            if not paths:
                raise UserError(f'{name}: no file fits')
            root = _glob_root(name)
            entries += [Entry(path, PurePath(os.path.relpath(os.path.splitext(path)[0], root))) for path in paths]
    return _told_apart(entries)


def pixels_of(names: Sequence[str], most: int) -> list[np.ndarray]:
    """The first pictures, or videos, of what a user names, RGB (H, W, 3).

    Raises:
        UserError: There is none.
        PictureError: One cannot be used.
    """
    pixels = []
    for entry in find(names)[:most]:
        for picture in entry.read():
            if isinstance(picture, PictureError):
                raise picture
            pixels.append(picture.pixels)
    return pixels


def _in_folder(folder: Path, recursive: bool) -> list[Entry]:
    endings = (*ENDINGS, *VIDEOS)
    paths = sorted(
        path
        for path in (folder.rglob('*') if recursive else folder.iterdir())
        if path.suffix.lower() in endings and path.is_file() and not path.name.startswith('.')
    )
    if not paths:
        below = '' if recursive else '; --recursive looks below its first level too'
        raise UserError(f'{folder}: the folder has no pictures or videos ({" ".join(e[1:] for e in endings)}){below}')
    return [Entry(str(path), PurePath(path.relative_to(folder).with_suffix(''))) for path in paths]


def _in_list(path: Path) -> list[Entry]:
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path}: the list cannot be read: {getattr(error, "strerror", None) or error}') from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f'{path}: the list is empty')
    out = []
    for name in names:
        inside = PurePath(name)
        # A path that leads elsewhere keeps its name only, so that nothing is written outside of the output folder.
        below = inside if not inside.is_absolute() and '..' not in inside.parts else PurePath(inside.name)
        out.append(Entry(name if '://' in name else str(path.parent / name), below.with_suffix('')))
    return out


def _told_apart(entries: list[Entry]) -> list[Entry]:
    """Entries of one place, such as a.jpg and a.png, get their endings, then numbers: none overwrites another."""
    used: dict[str, int] = {}
    out = []
    places = Counter(str(entry.place).casefold() for entry in entries)
    for entry in entries:
        new = entry.place
        if places[str(new).casefold()] > 1:
            new = entry.place.with_name(entry.place.name + _ending(entry.name).replace('.', '_'))
        used[str(new).casefold()] = count = used.get(str(new).casefold(), 0) + 1
        out.append(Entry(entry.name, new if count == 1 else new.with_name(f'{new.name}-{count}')))
    return out


def _glob_root(pattern: str) -> str:
    parts = []
    for part in Path(pattern).parent.parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return os.path.join(*parts) if parts else '.'


def _ending(name: str) -> str:
    return PurePath(urlparse(name).path if '://' in name else name).suffix.lower()


def _safe(name: str) -> str:
    return ''.join(c if c.isalnum() or c in '-_. ' else '_' for c in name)[:100]


def fetch(address: str) -> bytes:
    """The content behind an address that the user wrote, up to 100 MB, within 30 s.

    Raises:
        PictureError: It cannot be had.
    """
    if is_offline():
        raise PictureError(address, 'MMLIGHTVIT_OFFLINE is set, so no address is opened')
    deadline = time.monotonic() + _TIMEOUT
    content = bytearray()
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as response:
            while chunk := response.read(1 << 16):
                content += chunk
                if len(content) > _MAX_BYTES:
                    raise PictureError(address, f'it is larger than {_MAX_BYTES // 1_000_000} MB')
                if time.monotonic() > deadline:
                    raise PictureError(address, f'it did not arrive within {_TIMEOUT:.0f} s')
    except (OSError, ValueError) as error:  # urllib's own errors are OSErrors; ValueError is a malformed address
        if isinstance(error, PictureError):
            raise
        if isinstance(error, HTTPError):
            error.close()
        cause = error if isinstance(error, HTTPError) else getattr(error, 'reason', error)
        reason = ' '.join(str(cause).split()) or type(error).__name__
        raise PictureError(address, f'the address cannot be had ({reason})') from None
    return bytes(content)
