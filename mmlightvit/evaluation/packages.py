# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The packages that reports need and the rest of mmlightvit does not."""

from __future__ import annotations

import importlib
from typing import Any

from mmlightvit.errors import UserError

#: Import names, and what to install.
_DISTRIBUTIONS = {'hotcoco': 'hotcoco', 'jinja2': 'jinja2', 'matplotlib': 'matplotlib', 'sklearn': 'scikit-learn'}


def load(module: str) -> Any:
    """Import one of them, or a module inside of it.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        name = _DISTRIBUTIONS[module.partition('.')[0]]
        raise UserError(f'mmlightvit report needs {name}: pip install "mmlightvit[report]"') from None


def require() -> None:
    """All of them are there, said before a model works for minutes.

    Raises:
        UserError: One is not installed.
    """
    for name in _DISTRIBUTIONS:
        load(name)
