# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Replacing a function of another package: once, and only one of the signature that the replacement was written for."""

from __future__ import annotations

import inspect
import pkgutil
import sys
from collections.abc import Callable

from mmlightvit.errors import UserError

#: The versions whose functions the replacements were written for.
SUPPORTED = {'mmengine': '>=0.10.7,<0.11', 'mmcv': '>=2.1.0,<2.4', 'mmdet': '>=3.3.0,<3.6'}
_ORIGINAL = '_mmlightvit_replaces'


class UnknownVersion(UserError):
    """Another package is not as it was when its functions were replaced; its version is another one."""


def signature_of(function: Callable) -> str:
    """Names and defaults of a function's parameters, without types."""
    parameters = inspect.signature(function).parameters.values()
    return str(inspect.Signature([parameter.replace(annotation=parameter.empty) for parameter in parameters]))


def patch(owner: str, name: str, wrap: Callable[[Callable], Callable], signature: str) -> None:
    """Put ``wrap(original)`` in the place of a function. Calling it again changes nothing.

    Args:
        owner: The module that has the function, or ``'module:class'``.
        name: The function's name there.
        wrap: Takes the original and gives the replacement.
        signature: The original's, as :func:`signature_of` gives it.

    Raises:
        UnknownVersion: There is no such function, or it has another signature.
    """
    package = owner.partition(':')[0].partition('.')[0]
    try:
        found = pkgutil.resolve_name(owner)
        original = getattr(found, name)
    except (ImportError, AttributeError):
        seen = 'not there'
    else:
        if hasattr(original, _ORIGINAL):
            return
        seen = signature_of(original)
    if seen != signature:
        version = getattr(sys.modules.get(package), '__version__', 'of an unknown version')
        raise UnknownVersion(
            f'{package} {version} is not supported: {owner.replace(":", ".")}.{name} is {seen}, expected {signature}; '
            f'install {package}{SUPPORTED.get(package, "")}'
        )
    replacement = wrap(original)
    setattr(replacement, _ORIGINAL, original)
    is_static = isinstance(inspect.getattr_static(found, name), staticmethod)
    setattr(found, name, staticmethod(replacement) if is_static else replacement)
