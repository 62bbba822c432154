# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Modules under the names that they had in 0.1, each with a warning. Version 0.3 is without this file."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

#: Old name -> new one, below ``mmlightvit``.
MOVED = {
    'analysis': 'cost',
    'analysis.counting': 'cost.counting',
    'analysis.reports': 'cost.reports',
    'analysis.tables': 'cost.tables',
    'inference.masks': 'pictures.masks',
    'inference.model_folder': 'model_folder.write',
    'inference.model_folder_hook': 'model_folder.hook',
    'inference.model_info': 'model_folder.info',
    'inference.pictures': 'pictures.read',
    'inference.result': 'pictures.result',
    'visualization': 'explain',
    'visualization.attention': 'explain.attention',
    'visualization.explain': 'explain.tokens',
    'visualization.logs': 'explain.curves',
}


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the module of the new name for the old one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition('.')
        if package != 'mmlightvit' or name not in MOVED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=f'mmlightvit.{MOVED[name]}')

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of the new name in the place of the empty one of the old."""
        spec = module.__spec__
        assert spec is not None and spec.origin is not None
        warnings.warn(f'{spec.name} is {spec.origin} now', DeprecationWarning, stacklevel=2)
        sys.modules[spec.name] = importlib.import_module(spec.origin)


def install() -> None:
    """Let the old names be imported."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())  # before the finder of files, which would load a second copy
