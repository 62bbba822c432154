# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Checkpoints that survive kills, full disks and rotten bits.

A checkpoint is one file: what ``torch.save`` writes, with a *seal* in the place the zip format has for a comment.
The seal says which run it is of and how far the training had come, and ends with a SHA-256 of everything before. Being
part of the file, it moves with it, and there is no moment at which the one exists without the other. ``torch.load``
reads sealed files as usual.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.errors import UserError

_SEAL = re.compile(
    rb'mmlightvit checkpoint run=(\d{14}) iter=(\d{12}) epoch=(\d{8}) resumable=([01]) sha256=([0-9a-f]{64})\n'
)
_SEAL_HEAD = 'mmlightvit checkpoint run={:014d} iter={:012d} epoch={:08d} resumable={:d} sha256='
_DIGEST_BYTES = 64 + 1  # hexadecimal digits and the line's end
_SEAL_BYTES = len(_SEAL_HEAD.format(0, 0, 0, 0)) + _DIGEST_BYTES
_ZIP_END = b'PK\x05\x06'
_ZIP_END_BYTES = 22  # the zip format's last record; its last two bytes are the length of the comment that follows
_CHUNK = 1 << 20
_HINTS = {
    errno.ENOSPC: 'the disk is full: free some space',
    errno.EDQUOT: 'the disk quota is reached: free some space',
    errno.EROFS: 'the file system is read-only: remount it or choose another --work-dir',
    errno.EACCES: 'permission denied: make the directory writable or choose another --work-dir',
    errno.EFBIG: 'the file is larger than the limit on file sizes (ulimit -f)',
    errno.ENOENT: 'the directory is gone',
}


class Seal(NamedTuple):
    """What a checkpoint says about itself.

    Attributes:
        run: When its run began, in milliseconds since 1970.
        iteration: Iterations trained.
        epoch: Epochs completed.
        resumable: Whether it holds the optimizer's state, so that a run can go on from it.
        sha256: Digest of the file up to this field.
    """

    run: int
    iteration: int
    epoch: int
    resumable: bool
    sha256: str


class DamagedCheckpoint(UserError):
    """A checkpoint that is not what was written."""


def atomic_save(
    obj: Any, path: str | os.PathLike, iteration: int = 0, epoch: int = 0, resumable: bool = False, run: int = 0
) -> None:
    """Write ``obj`` and its seal to ``path``, in full or not at all.

    Args:
        obj: Whatever ``torch.save`` takes.
        path: The checkpoint. An older one of this name stays until the new one is safely on disk.
        iteration: Iterations trained.
        epoch: Epochs completed.
        resumable: Whether a run can go on from this file.
        run: When the run began, in milliseconds since 1970; 0 where it is not known.

    Raises:
        UserError: The disk is full, read-only, over quota, or refuses otherwise; nothing is left behind.
    """

    import torch

    def write(file: BinaryIO) -> None:
        sealing = _SealingFile(file)
        try:
            torch.save(obj, cast(BinaryIO, sealing))
        except (OSError, RuntimeError) as error:
            # torch reports a failed write in its own words; the reason is what the operating system said first.
            raise sealing.error or error from error
        sealing.finish(_SEAL_HEAD.format(run, iteration, epoch, resumable))

    try:
        atomic_write(path, write)
    except OSError as error:
        reason = _HINTS.get(error.errno or 0, error.strerror or str(error))
        raise UserError(
            f'cannot save {path}: {reason}. Checkpoints saved before are intact: put that right and go on with --resume'
        ) from error


class _SealingFile:
    """The file that ``torch.save`` writes to: it hashes on the way, and holds the zip's last record back until the
    length of the seal, which stands in it, can be written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._tail = b''
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast('B')
        if len(view) >= _ZIP_END_BYTES:
            self._emit(self._tail)
            self._emit(view[:-_ZIP_END_BYTES])
            self._tail = bytes(view[-_ZIP_END_BYTES:])
        else:
            joined = self._tail + bytes(view)
            self._emit(joined[:-_ZIP_END_BYTES])
            self._tail = joined[-_ZIP_END_BYTES:]
        return len(view)

    def flush(self) -> None:
        """torch asks for it; the file is flushed and synced when it is complete."""

    def finish(self, seal_head: str) -> None:
        if not self._tail.startswith(_ZIP_END):
            raise RuntimeError('torch.save did not write a zip archive without a comment')
        self._emit(self._tail[:-2] + _SEAL_BYTES.to_bytes(2, 'little') + seal_head.encode())
        self._file.write(f'{self._digest.hexdigest()}\n'.encode())

    def _emit(self, data: bytes | memoryview) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise
        self._digest.update(data)


def read_seal(path: str | os.PathLike) -> Seal | None:
    """The seal of a checkpoint, without checking it against the content; None where there is none."""
    with open(path, 'rb') as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _SEAL_BYTES))
        match = _SEAL.fullmatch(file.read())
    if match is None:
        return None
    run, iteration, epoch, resumable, digest = match.groups()
    return Seal(int(run), int(iteration), int(epoch), resumable == b'1', digest.decode())


def verify(path: str | os.PathLike) -> Seal | None:
    """Check a checkpoint against its seal; a file without one against the zip format's own checksums.

    Args:
        path: A file that ``torch.save`` or :func:`atomic_save` wrote.

    Returns:
        The seal, or None for an intact file that another program wrote.

    Raises:
        DamagedCheckpoint: The content is not what was written, or the file is cut short.
    """
    seal = read_seal(path)
    if seal is None:
        _verify_unsealed(Path(path))
        return None
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        left = file.seek(0, os.SEEK_END) - _DIGEST_BYTES
        file.seek(0)
        while left:
            chunk = file.read(min(_CHUNK, left))
            digest.update(chunk)
            left -= len(chunk)
    if digest.hexdigest() != seal.sha256:
        raise DamagedCheckpoint(f'{path} is damaged: its content does not match its checksum')
    return seal


def require_plain_archive(path: Path) -> None:
    """Look at the beginning and the end of a file without a seal: cheap, and finds one that was cut short.

    Raises:
        DamagedCheckpoint: It does not begin and end as what ``torch.save`` writes.
    """
    with open(path, 'rb') as file:
        start = file.read(4)
        file.seek(max(0, file.seek(0, os.SEEK_END) - _ZIP_END_BYTES))
        end = file.read()
    # A sealed file whose seal is hurt still has a comment, and a file cut short has no last record.
    if not (start == b'PK\x03\x04' and end.startswith(_ZIP_END) and end.endswith(b'\0\0')):
        raise DamagedCheckpoint(f'{path} is damaged: its beginning, its end or its seal is not as it was written')


def _verify_unsealed(path: Path) -> None:
    require_plain_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, OSError, NotImplementedError, EOFError) as error:
        raise DamagedCheckpoint(f'{path} is damaged: {error}') from error
    if bad is not None:
        raise DamagedCheckpoint(f'{path} is damaged: {bad} does not match its checksum')
