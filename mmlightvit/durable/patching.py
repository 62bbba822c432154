# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Replacing a function of another package: once, and only one of the signature that the replacement was written for."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from mmlightvit.errors import UserError

#: The versions whose functions the replacements were written for.
SUPPORTED = {'mmengine': '>=0.10.7,<0.11', 'mmcv': '>=2.1.0,<2.4', 'mmdet': '>=3.3.0,<3.6'}
_ORIGINAL = '_mmlightvit_replaces'


class UnknownVersion(UserError):
    """Another package is not as it was when its functions were replaced; its version is another one."""


def signature_of(function: Callable) -> str:
    """Names and defaults of a function's parameters, without types."""
    signature = inspect.signature(function)
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(inspect.Signature(parameters))


def patch(owner: Any, name: str, wrap: Callable[[Callable], Callable], signature: str) -> None:
    """Put ``wrap(original)`` in the place of a function. Calling it again changes nothing.

    Args:
        owner: The module or class that has the function.
        name: The function's name there.
        wrap: Takes the original and gives the replacement.
        signature: The original's, as :func:`signature_of` gives it.

    Raises:
        UnknownVersion: There is no such function, or it has another signature.
    """
    original = getattr(owner, name, None)
    if hasattr(original, _ORIGINAL):
        return
    found = signature_of(original) if callable(original) else 'not there'
    if original is None or found != signature:
        place = f'{getattr(owner, "__module__", None) or ""}.{owner.__name__}'.lstrip('.')
        package = place.partition('.')[0]
        version = getattr(sys.modules.get(package), '__version__', 'of an unknown version')
        raise UnknownVersion(
            f'{package} {version} is not supported: {place}.{name} is {found}, expected {signature}; '
            f'install {package}{SUPPORTED.get(package, "")}'
        )
    replacement = wrap(original)
    setattr(replacement, _ORIGINAL, original)
    is_static = isinstance(inspect.getattr_static(owner, name), staticmethod)
    setattr(owner, name, staticmethod(replacement) if is_static else replacement)
