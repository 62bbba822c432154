# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The first stage of the rules over data: the files and folders that a config names are there. Imports no toolbox."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mmengine.config import Config

from mmlightvit.data.data_root import DatasetEntry, evaluators, leaf_datasets
from mmlightvit.errors import UserError
from mmlightvit.toolboxes import kind_of

#: These fetch their files when they are not there.
_DOWNLOADING = ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')


def check_paths(cfg: Config, splits: Sequence[str]) -> None:
    """The annotation files and image folders of the splits, and the files that their evaluators read, exist.

    Raises:
        UserError: One does not exist, or an image folder is empty.
    """
    for split in splits:
        for entry in leaf_datasets(cfg, split):
            _check_dataset(entry)
        for entry in evaluators(cfg, split):
            ann_file = entry.cfg.get('ann_file')
            if isinstance(ann_file, str) and ann_file:
                _require(ann_file, 'annotation file', entry.key, 'ann_file', is_folder=False)


def _check_dataset(entry: DatasetEntry) -> None:
    dataset = entry.cfg
    name = kind_of(dataset)
    backend = dataset.get('backend_args') or {}
    if backend.get('backend', 'local') not in ('local', 'disk'):
        return
    if name in _DOWNLOADING and dataset.get('download', True):
        return
    root = dataset.get('data_root') or ''
    if root:
        _require(root, 'data folder', entry.key, 'data_root', is_folder=True)
    ann_file = dataset.get('ann_file')
    if isinstance(ann_file, str) and ann_file:
        _require(os.path.join(root, ann_file), 'annotation file', entry.key, 'ann_file', is_folder=False)
    prefix = dataset.get('data_prefix') or dataset.get('split' if name == 'ImageNet' else 'data_prefix')
    if isinstance(prefix, str):
        _require(os.path.join(root, prefix), 'image folder', entry.key, 'data_prefix', is_folder=True)
    elif isinstance(prefix, dict):
        for part, folder in prefix.items():
            if isinstance(folder, str) and (folder or root):
                key = f'data_prefix.{part}'
                _require(os.path.join(root, folder), 'image folder', entry.key, key, is_folder=True)


def _require(path: str, what: str, key: str, name: str, *, is_folder: bool) -> None:
    change = f'put the data there, or use --data-root DIR or --cfg-options {key}.{name}=PATH'
    if '://' in path:
        return
    path = os.path.abspath(os.path.expanduser(path))
    if not os.path.exists(path):
        raise UserError(f'{what} not found: {path} ({key}); {change}')
    if not is_folder:
        return
    if not os.path.isdir(path):
        raise UserError(f'{what} is not a folder: {path} ({key}); {change}')
    with os.scandir(path) as items:
        if next(items, None) is None:
            raise UserError(f'{what} is empty: {path} ({key}); {change}')
