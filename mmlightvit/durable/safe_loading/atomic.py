# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Write a file so that its name always holds a complete one: the old or the new, never a part."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

#: Ends the names of files being written, so that strays of killed processes can be found.
TEMPORARY_SUFFIX = '.incomplete'


def atomic_write(path: str | os.PathLike, writer: Callable[[BinaryIO], object]) -> None:
    """Write ``path`` in full or not at all.

    The content goes to a temporary file in the same directory, which is flushed, synced, and renamed over ``path``;
    then the directory is synced, so that the rename outlives a power failure too. Whatever ``path`` held stays until
    the rename. On any exception, an interrupt included, the temporary file is removed.

    Args:
        path: Where the file shall be. Its directory exists.
        writer: Called once with the open binary file; writes the content.

    Raises:
        OSError: The directory is missing or read-only, the disk is full, a quota is reached.
    """
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f'.{path.name}.', suffix=TEMPORARY_SUFFIX, dir=path.parent)
    try:
        with os.fdopen(descriptor, 'wb') as file:
            # mkstemp makes the file private; a checkpoint is as readable as any file the user writes.
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            writer(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: str | os.PathLike) -> None:
    """Make renames and removals in a directory durable, on file systems that can sync a directory."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _umask() -> int:
    """The process's umask; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
