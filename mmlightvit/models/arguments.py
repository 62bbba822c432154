# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Checks of arguments, in one form."""

from __future__ import annotations

from typing import Any


def require(name: str, got: Any, is_right: bool, expected: str) -> None:
    """Raise a ValueError that names an argument, what was expected and what came, unless it is right."""
    if not is_right:
        raise ValueError(f'{name}: expected {expected}, got {got!r}')
