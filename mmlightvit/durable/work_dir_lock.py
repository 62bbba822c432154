# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""One run at a time in a work directory."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.logging import print_log

from mmlightvit.errors import UserError

LOCK_NAME = '.lock'
#: Beside the lock, which not every system lets another process read: who has it.
HOLDER_NAME = '.lock.holder'
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # network file systems without a lock service


class WorkDirLock:
    """Allows one run at a time in a work directory.

    The system holds the lock for the process and drops it when the process ends, however that happens. Where the file
    system has no locks, a warning takes its place.

    Args:
        work_dir: An existing directory.
    """

    def __init__(self, work_dir: str | os.PathLike) -> None:
        self.directory = Path(work_dir)
        self._lock = FileLock(self.directory / LOCK_NAME)

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            UserError: Another process has it, or the directory cannot be written to or locked.
        """
        holder = self.directory / HOLDER_NAME
        if not os.access(self.directory, os.W_OK):
            problem = 'it is read-only' if self.directory.exists() else 'it does not exist'
            raise UserError(f'cannot write to the work directory {self.directory}: {problem}')
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            name = holder.read_text(errors='replace').strip() if holder.is_file() else 'another process'
            raise UserError(
                f'{self.directory} is in use by {name}; wait for that run to end, stop it, or choose another --work-dir'
            ) from error
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in _WITHOUT_LOCKS:
                raise UserError(f'cannot lock the work directory {self.directory}: {error.strerror}') from error
            print_log(
                f'The file system of {self.directory} knows no locks ({error}): nothing keeps a second run out of this '
                'work directory.',
                logger='current',
                level=logging.WARNING,
            )
            return
        started = time.strftime('%Y-%m-%d %H:%M:%S')
        holder.write_text(f'process {os.getpid()} on {socket.gethostname()} since {started}\n')

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()
