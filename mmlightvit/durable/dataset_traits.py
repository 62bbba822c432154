# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What data sets of the three toolboxes have in common: the sets inside wrappers, their folders, their files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def innermost(dataset: Any) -> Iterator[Any]:
    """The data sets that read files, inside any nesting of wrappers (with ``dataset`` or ``datasets``)."""
    if hasattr(dataset, 'datasets'):
        for inner in dataset.datasets:
            yield from innermost(inner)
    elif hasattr(dataset, 'dataset'):
        yield from innermost(dataset.dataset)
    else:
        yield dataset


def roots(dataset: Any) -> tuple[str, str]:
    """The folders of the images and of the label images; empty where the config gives none."""
    prefix = getattr(dataset, 'data_prefix', None) or {}
    return (prefix.get('img_path') or prefix.get('img') or '', prefix.get('seg_map_path') or prefix.get('seg') or '')


def is_local(dataset: Any) -> bool:
    """Whether the data set's images are plain files, so that looking for them costs next to nothing."""
    backend = (getattr(dataset, 'backend_args', None) or {}).get('backend', 'local')
    return backend == 'local' and '://' not in roots(dataset)[0]


def is_a(dataset: Any, module: str, name: str) -> bool:
    """Whether a data set is of the class ``name`` of a toolbox's ``module``; imports no toolbox."""
    return any(base.__name__ == name and base.__module__.startswith(module) for base in type(dataset).__mro__)
