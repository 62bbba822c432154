# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Walking the data sets of a config, and moving all of them to another folder at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mmengine.config import Config

from mmlightvit.errors import UserError
from mmlightvit.tasks import SPLITS


class DatasetEntry(NamedTuple):
    """A data set of a config: the key that --cfg-options calls it by, and its settings."""

    key: str
    cfg: dict


def leaf_datasets(cfg: Config, split: str) -> Iterator[DatasetEntry]:
    """The data sets that read files, inside RepeatDataset, ConcatDataset, MultiImageMixDataset and so on.

    Args:
        cfg: The config.
        split: ``train``, ``val`` or ``test``.
    """
    key = f'{split}_dataloader'
    dataset = (cfg.get(key) or {}).get('dataset')
    if dataset is not None:
        yield from _leaves(dataset, f'{key}.dataset')


def _leaves(dataset: dict, key: str) -> Iterator[DatasetEntry]:
    inner = dataset.get('dataset')
    several = dataset.get('datasets')
    if isinstance(inner, dict):
        yield from _leaves(inner, f'{key}.dataset')
    elif isinstance(several, (list, tuple)):
        for index, item in enumerate(several):
            yield from _leaves(item, f'{key}.datasets.{index}')
    else:
        yield DatasetEntry(key, dataset)


def evaluators(cfg: Config, split: str) -> Iterator[DatasetEntry]:
    """The metrics of ``val`` or ``test``, each with its key."""
    key = f'{split}_evaluator'
    found = cfg.get(key)
    if isinstance(found, dict):
        yield DatasetEntry(key, found)
    elif isinstance(found, (list, tuple)):
        for index, item in enumerate(found):
            yield DatasetEntry(f'{key}.{index}', item)


def move_data_root(cfg: Config, folder: str) -> list[str]:
    """Point every split and every evaluator file at ``folder`` instead of the config's data root.

    Everything below the old root moves: ``data_root`` itself and paths that begin with it, in data sets,
    wrappers of data sets, pipelines and evaluators.

    Args:
        cfg: The config, changed in place.
        folder: The new data root.

    Returns:
        The keys that changed.

    Raises:
        UserError: The config names no data root, or several that do not lie in one another.
    """
    roots = {
        _normal(entry.cfg['data_root'])
        for split in SPLITS
        for entry in leaf_datasets(cfg, split)
        if entry.cfg.get('data_root')
    }
    if not roots:
        raise UserError(
            '--data-root has nothing to move: no data set of the config has a data_root; '
            'name the files themselves, e.g. --cfg-options train_dataloader.dataset.ann_file=FILE'
        )
    old = min(sorted(roots), key=len)
    apart = sorted(root for root in roots if _moved(root, old, folder) is None)
    if apart:
        raise UserError(
            f'--data-root can move one root, and the config has {old} and {", ".join(apart)}; '
            'set each with --cfg-options, e.g. train_dataloader.dataset.data_root=DIR'
        )
    changed: list[str] = []

    def move(key: str, text: str) -> str:
        new = _moved(text, old, folder)
        if new is None:
            return text
        changed.append(key)
        return new

    keys = [f'{split}_{part}' for split in SPLITS for part in ('dataloader', 'evaluator')]
    for key in ['data_root', *keys, 'tta_pipeline']:
        if cfg.get(key) is not None:
            cfg[key] = _map_strings(cfg[key], key, move)
    return changed


def _map_strings(value: Any, key: str, change: Callable[[str, str], str]) -> Any:
    if isinstance(value, str):
        return change(key, value)
    if isinstance(value, dict):
        for name in list(value):
            value[name] = _map_strings(value[name], f'{key}.{name}', change)
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(_map_strings(item, f'{key}.{index}', change) for index, item in enumerate(value))
    return value


def _normal(path: str) -> str:
    return path.rstrip('/') if '://' in path else os.path.normpath(path)


def _moved(text: str, old: str, new: str) -> str | None:
    """``text`` with ``new`` in place of its leading ``old``, or None where it does not lie in ``old``."""
    path = _normal(text) if text else ''
    if path == old:
        return new
    if path.startswith(old + '/'):
        return os.path.join(new, path[len(old) + 1 :])
    return None
