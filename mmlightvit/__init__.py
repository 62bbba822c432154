# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""LightViT (arXiv 2207.05557) for the OpenMMLab ecosystem.

Importing the package imports no toolbox: the registries find what a config names when it is built, and what stands
below is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mmlightvit import moved
from mmlightvit.version import __version__

if TYPE_CHECKING:
    from mmlightvit.checkpoint.zoo import list_models
    from mmlightvit.load import load_model
    from mmlightvit.pictures.result import Result

__all__ = ['Result', '__version__', 'list_models', 'load_model']

_LATER = {
    'load_model': 'mmlightvit.load',
    'list_models': 'mmlightvit.checkpoint.zoo',
    'Result': 'mmlightvit.pictures.result',
}

moved.install()


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(_LATER[name]), name)
