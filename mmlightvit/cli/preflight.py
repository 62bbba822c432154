# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Checks of a config before a toolbox is imported, a model built or a GPU taken.

Each check raises a :class:`~mmlightvit.errors.UserError` that names the path and the option that changes it.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmlightvit.cli.config import require_file
from mmlightvit.data.data_root import evaluators
from mmlightvit.data.paths import check_paths
from mmlightvit.durable.find import goes_on
from mmlightvit.durable.programs import PROGRAMS
from mmlightvit.errors import UserError
from mmlightvit.toolboxes import is_installed, kind_of

#: Necks that hand the channels of the backbone on.
_PASSING_NECKS = ('GlobalAveragePooling', 'GeneralizedMeanPooling')
#: Parts whose ``in_channels`` are those of the maps that they take, in their order.
_TAKING_MAPS = (
    'LightViTFPN', 'FPN', 'PAFPN', 'ChannelMapper', 'UPerHead', 'FPNHead', 'FCNHead', 'LightViTHead', 'LinearClsHead',
)  # fmt: skip


def check_training(cfg: Config) -> None:
    """Everything that training reads or writes: work directory, logs, weights, training and validation data.

    Raises:
        UserError: Something is missing.
    """
    check_writable(cfg.work_dir, 'work directory', '--work-dir DIR')
    check_vis_backends(cfg)
    check_top_k(cfg)
    if isinstance(cfg.get('load_from'), str):
        option = '--resume FILE' if cfg.get('resume') else '--cfg-options load_from=FILE'
        require_file(cfg.load_from, 'checkpoint', option)
    check_paths(cfg, ('train', 'val'))
    check_widths(cfg)  # imports torch
    if not goes_on(cfg):
        check_initial_weights(cfg)


def check_testing(cfg: Config) -> None:
    """Everything that testing reads or writes beside its checkpoint: work directory and test data.

    Raises:
        UserError: Something is missing.
    """
    check_writable(cfg.work_dir, 'work directory', '--work-dir DIR')
    check_vis_backends(cfg)
    check_paths(cfg, ('test',))


def check_writable(path: str, what: str, option: str) -> None:
    """A folder can be written, or the one that it is to be made in; nothing is left there.

    Raises:
        UserError: It cannot.
    """
    there = Path(os.path.abspath(path))
    try:
        while not there.exists():
            there = there.parent
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f'{what} {path} cannot be written ({error.strerror}); choose another with {option}') from error


def check_vis_backends(cfg: Config) -> None:
    """The packages are installed that write the logs.

    Raises:
        UserError: One is not.
    """
    backends = (cfg.get('visualizer') or {}).get('vis_backends') or []
    for entry in backends if isinstance(backends, (list, tuple)) else [backends]:
        backend = entry.get('backend') if kind_of(entry) == 'Tracker' else entry
        kind = backend if isinstance(backend, str) else kind_of(backend)
        name = kind.removesuffix('VisBackend').removesuffix('Log').lower()
        packages, install = PROGRAMS.get(name, ((), ''))
        if name == 'mlflow' and (kind == 'MLflowVisBackend' or os.environ.get('MLFLOW_TRACKING_URI')):
            packages, install = ('mlflow',), 'mlflow-skinny'  # a server, or files: no database here
        missing = [package for package in packages if not is_installed(package)]
        if missing:
            raise UserError(f'logging to {name} needs {", ".join(missing)}: pip install {install}')


def check_top_k(cfg: Config) -> None:
    """No accuracy is asked for among more classes than there are.

    Raises:
        UserError: One is.
    """
    head = (cfg.get('model') or {}).get('head') or {}
    classes = head.get('num_classes')
    asked = {'model.head.topk': head.get('topk')}
    asked |= {f'{entry.key}.topk': entry.cfg.get('topk') for entry in evaluators(cfg, 'val')}
    for key, topk in asked.items():
        most = max(topk) if isinstance(topk, (list, tuple)) and topk else topk
        if isinstance(most, int) and isinstance(classes, int) and most > classes:
            raise UserError(f'{key}={topk} with {classes} classes: use --cfg-options "{key}=(1,)"')


def check_widths(cfg: Config) -> None:
    """The part behind a LightViT takes the channels that the backbone gives.

    A part of a kind that is not known to take them in their order is warned of, not refused.

    Raises:
        UserError: It takes others, such as those of another ``arch``, or a map that is not there.
    """
    model = cfg.get('model') or {}
    backbone = model.get('backbone') or {}
    if kind_of(backbone) != 'LightViT':
        return
    from mmlightvit.models.backbones.lightvit import ARCH_ZOO

    arch = backbone.get('arch', 'tiny')
    widths = list((ARCH_ZOO.get(arch, {}) if isinstance(arch, str) else arch).get('embed_dims', ()))
    outs = backbone.get('out_indices', (0, 1, 2))
    outs = [outs] if isinstance(outs, int) else list(outs)
    if not widths or any(not -len(widths) <= place < len(widths) for place in outs):
        return  # the backbone says so when it is built
    maps = [widths[place] for place in outs]
    neck = model.get('neck')
    if neck is None or kind_of(neck) in _PASSING_NECKS:
        names = ('head', 'decode_head', 'auxiliary_head')
        parts = {name: part for name in names if isinstance(part := model.get(name), dict)}
        several = model.get('auxiliary_head')
        if isinstance(several, (list, tuple)):
            parts |= {f'auxiliary_head.{index}': part for index, part in enumerate(several)}
    else:
        parts = {'neck': neck} if isinstance(neck, dict) else {}
    for name, part in parts.items():
        if part.get('in_channels') is not None:
            _check_channels(f'model.{name}', part, maps, arch)


def _check_channels(key: str, part: Any, maps: list[int], arch: Any) -> None:
    """One part takes the maps of the backbone that it chooses."""
    taken, chosen = part['in_channels'], part.get('in_index')
    several = isinstance(taken, (list, tuple))
    if chosen is None:
        chosen = range(len(maps)) if several else -1
    try:
        given: Any = [maps[place] for place in chosen] if several else maps[chosen]
    except (IndexError, TypeError):
        raise UserError(
            f'{key}.in_index is {chosen}, but the backbone gives {len(maps)} maps, 0 to {len(maps) - 1}; in_channels '
            f'is {taken}'
        ) from None
    if (list(taken) if several else taken) == given:
        return
    message = f'{key}.in_channels is {taken}, but the backbone (arch={arch!r}) gives {given}'
    if kind_of(part) in _TAKING_MAPS:
        change = f'set {key}.in_channels={str(given).replace(" ", "")}, or take a config of that variant'
        raise UserError(f'{message}; {change}')
    if not several or sorted(taken) != sorted(given):
        warnings.warn(f'{message}; whether {kind_of(part)} fits is not known', stacklevel=2)


def check_initial_weights(cfg: Config) -> None:
    """The files that the model's parts start from (``init_cfg``) exist; those at a web address are fetched now.

    Raises:
        UserError: A file does not exist, or cannot be fetched.
    """
    from mmlightvit.durable.safe_loading import read

    for key, checkpoint in _pretrained(cfg.get('model'), 'model'):
        scratch = f'{key}=None'
        owner = key.partition('.init_cfg')[0]
        if _value_at(cfg, owner).get('norm_eval'):
            scratch += f' {owner}.norm_eval=False'  # its statistics come with the weights
        change = f'use --cfg-options {key}.checkpoint=FILE, or {scratch} to train from scratch'
        if checkpoint.startswith(('http://', 'https://')):
            try:
                read.download(checkpoint)
            except read.CheckpointUnavailable as error:
                raise UserError(f'{error} To change it, {change}') from error
        elif '://' not in checkpoint and not os.path.exists(os.path.expanduser(checkpoint)):
            raise UserError(f'pretrained weights not found: {os.path.abspath(checkpoint)}; {change}')


def _pretrained(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if value.get('type') in ('Pretrained', 'PretrainedInit') and isinstance(value.get('checkpoint'), str):
            yield key, value['checkpoint']
        for name, item in value.items():
            yield from _pretrained(item, f'{key}.{name}')
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _pretrained(item, f'{key}.{index}')


def _value_at(cfg: Config, key: str) -> Any:
    value: Any = cfg
    for name in key.split('.'):
        value = value[int(name)] if isinstance(value, (list, tuple)) else value[name]
    return value
