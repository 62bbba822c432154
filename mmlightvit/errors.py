# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Errors that a user can put right, and the way a tool reports them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """Something outside the code is wrong: a path, a file, a setting. The message says what, and what to do."""


class AllRanksError(UserError):
    """An error that every process of a job raises alike, so that one of them can report it for all."""


def listed(items: Iterable[object], most: int = 8, between: str = ', ') -> str:
    """``a, b and 3 more``: the first items, and how many more there are."""
    names = list(map(str, items))
    if len(names) <= most:
        return between.join(names)
    last = ' ' if between == ', ' else between
    return f'{between.join(names[:most])}{last}and {len(names) - most} more'


def exit_on_user_error(main: Callable[[], int | None]) -> Callable[[], None]:
    """Turn a tool's ``main`` into an entry point: a :class:`UserError` becomes one line and exit code 1.

    Args:
        main: The tool; returns its exit code, or None for 0.
    """

    @functools.wraps(main)
    def entry() -> None:
        try:
            code = main()
        except UserError as error:
            print('error: ' + ' '.join(str(error).split()), file=sys.stderr)
            code = 1
        sys.exit(code or 0)

    return entry
