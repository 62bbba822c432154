# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A quiet terminal: what a user can do nothing about, and what fills screens, goes to the log file alone.

These are warnings of other packages, what the toolboxes say while they are imported, and MMEngine's dumps of the
environment, of the config and of its hooks. Errors, and all that this package says, stay on the terminal.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from mmlightvit.errors import UserError

_PACKAGE = str(Path(__file__).resolve().parents[1])

#: Messages of MMEngine, the toolboxes and our runner that are for the file.
_FOR_THE_FILE = re.compile(
    r'[-\n]*(System environment:|Config:|Hooks will be executed|paramwise_options|Distributed training is not used)'
    r'|.* takes the place of |"(FileClient|HardDiskBackend)" |The prefix is not set in metric'
    r'|Exp name: |IoUMetric got empty|Please make sure that the mlflow server'
)
#: Lines that the toolboxes and pycocotools print.
_PRINTED_FOR_THE_FILE = re.compile(
    r'Could not import OneDL|[Ll]oading (annotations into memory|and preparing results)|(Done|DONE) \(t=|creating index'
    r'|index created|Running per image|Evaluate annotation type|Accumulating evaluation|Loads checkpoint by '
)


class Quiet:
    """Keeps texts until there is a log file, and then writes them there."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._files: list[logging.FileHandler] = []

    def keep(self, text: str) -> None:
        """Put a text into the log file, or keep it until there is one."""
        self._kept += [text.strip()] if text.strip() else []
        for kept in self._kept:
            record = logging.makeLogRecord(dict(name='mmengine', levelno=logging.INFO, levelname='INFO', msg=kept))
            for handler in self._files:
                handler.handle(record)
        if self._files:
            self._kept.clear()

    def attach(self, logger: logging.Logger) -> None:
        """Take a run's logger: its file gets all that was kept, its terminal only what is for it."""
        self._files = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
        for handler in set(logger.handlers) - set(self._files):
            handler.addFilter(is_for_the_terminal)
        self.keep('')

    @contextlib.contextmanager
    def imports(self) -> Iterator[None]:
        """Keep what is printed and logged meanwhile; it is shown after all if an error ends it that has no message."""
        from mmengine.logging import MMLogger

        printed = io.StringIO()

        def hold(record: logging.LogRecord) -> bool:
            self.keep(record.getMessage())
            return record.levelno >= logging.ERROR

        handlers = MMLogger.get_current_instance().handlers
        for handler in handlers:
            handler.addFilter(hold)
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                yield
        except UserError:
            raise
        except Exception:
            sys.stderr.write(printed.getvalue())
            raise
        finally:
            for handler in handlers:
                handler.removeFilter(hold)
        self.keep(printed.getvalue())


def is_for_the_terminal(record: logging.LogRecord) -> bool:
    """Whether a log record is short and news."""
    return record.levelno >= logging.ERROR or not _FOR_THE_FILE.match(record.getMessage())


class _Lines:
    """Standard output without the lines that are for the file; it is the stream behind it in all else."""

    def __init__(self, stream: TextIO, keep: Callable[[str], None]) -> None:
        self._stream, self._keep, self._line = stream, keep, ''

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).splitlines(keepends=True) or ['']
        if self._line.endswith(('\n', '\r')):
            lines, self._line = [*lines, self._line], ''
        for line in lines:
            (self._keep if _PRINTED_FOR_THE_FILE.match(line) else self._stream.write)(line)
        return len(text)

    def flush(self) -> None:
        if self._line and not _PRINTED_FOR_THE_FILE.match(self._line):
            self._stream.write(self._line)
            self._line = ''
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_current: Quiet | None = None


@contextlib.contextmanager
def quiet_terminal() -> Iterator[Quiet]:
    """Keep off the terminal what is for the log file; within another one, that one goes on."""
    global _current  # noqa: PLW0603 - one process has one terminal
    if _current is not None:
        yield _current
        return
    quiet = _current = Quiet()
    shown, stdout = warnings.showwarning, sys.stdout

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        if filename.startswith(_PACKAGE):
            shown(message, category, filename, lineno, file, line)
        else:
            quiet.keep(warnings.formatwarning(message, category, filename, lineno))

    warnings.showwarning, sys.stdout = show, cast(TextIO, _Lines(stdout, quiet.keep))
    try:
        yield quiet
    finally:
        sys.stdout.flush()
        warnings.showwarning, sys.stdout, _current = shown, stdout, None
