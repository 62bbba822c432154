# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The published names and ours: one declared table, read in both directions, and the loading of files that have them.

Each row maps the beginning of a key, the rest is carried over, and the first row that matches counts. ``{i}`` and
``{j}`` are numbers: the published files number the downsampling and the blocks of a stage in one list, so block ``j``
of a later stage stands there as ``{j+1}``.

Reading order: tables -> names -> values that depend on the window -> what the models do in ``load_state_dict``.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Table = tuple[tuple[str, str], ...]

#: published -> ours, of the backbone.
BACKBONE: Table = (
    ('stages.0.{j}.mlp.', 'stages.0.blocks.{j}.ffn.'),
    ('stages.0.{j}.', 'stages.0.blocks.{j}.'),
    # The published `norm2` and `proj` belong to the global tokens, `res_proj` to the residual branch.
    ('stages.{i}.0.norm2.', 'stages.{i}.downsample.global_norm.'),
    ('stages.{i}.0.proj.', 'stages.{i}.downsample.global_proj.'),
    ('stages.{i}.0.res_proj.', 'stages.{i}.downsample.residual_proj.'),
    ('stages.{i}.0.', 'stages.{i}.downsample.'),
    ('stages.{i}.{j+1}.mlp.', 'stages.{i}.blocks.{j}.ffn.'),
    ('stages.{i}.{j+1}.', 'stages.{i}.blocks.{j}.'),
)

#: published -> ours, of the classification head.
HEAD: Table = (
    ('norm.', 'head.norm.'),
    ('neck.0.', 'head.proj.'),
    ('neck.1.', 'head.proj_norm.'),
    ('head.', 'head.fc.'),
)

#: published -> ours, of the detector's neck. Its RPN and RoI heads are mmdet's own and keep their names.
NECK: Table = (
    ('extra_trans_convs.{i}.conv.', 'transposed_convs.{i}.'),
    ('extra_fpn_convs.{i}.', 'transposed_fpn_convs.{i}.'),
)


def _below(prefix: str, table: Table) -> Table:
    return tuple((f'{prefix}{theirs}', f'{prefix}{ours}') for theirs, ours in table)


#: The whole table of each kind of file.
TABLES: Mapping[str, Table] = {
    'backbone': BACKBONE,
    'classifier': HEAD + tuple((theirs, f'backbone.{ours}') for theirs, ours in BACKBONE) + (('', 'backbone.'),),
    'detector': _below('neck.', NECK) + _below('backbone.', BACKBONE),
}

#: A buffer of the published files that follows from the window size.
INDEX = 'relative_position_index'
TABLE = 'relative_position_bias_table'

#: The parts beside the backbone in a published classifier.
_BESIDE = ('norm.', 'neck.', 'head.')
_PUBLISHED_BLOCK = re.compile(r'stages\.\d+\.\d+\.')

_FIELD = r'\{(\w)(?:\+\d)?\}'


def to_ours(key: str, kind: str) -> str:
    """Our name of a published key."""
    return _rename(key, TABLES[kind], forward=True)


def to_published(key: str, kind: str) -> str:
    """The published name of one of our keys."""
    return _rename(key, TABLES[kind], forward=False)


def rename_to_ours(state: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """A published state dict under our names, in its order, without the index buffers."""
    return {to_ours(key, kind): value for key, value in state.items() if not key.endswith(f'.{INDEX}')}


def rename_to_published(state: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Our state dict under the published names, with the index buffers that the published model expects."""
    renamed = {}
    for key, value in state.items():
        renamed[to_published(key, kind)] = value
        if key.endswith(f'.{TABLE}'):
            window = (math.isqrt(value.shape[0]) + 1) // 2
            renamed[to_published(key.replace(TABLE, INDEX), kind)] = relative_position_index(window).flatten()
    return renamed


def _rename(key: str, table: Table, forward: bool) -> str:
    for theirs, ours in table:
        source, target = (theirs, ours) if forward else (ours, theirs)
        match = _pattern(source).match(key)
        if match is None:
            continue
        numbers = {name: int(value) - _offset(source, name) for name, value in match.groupdict().items()}
        if min(numbers.values(), default=0) >= 0:
            return _fill(target, numbers) + key[match.end() :]
    return key


def _fill(template: str, numbers: Mapping[str, int]) -> str:
    return re.sub(_FIELD, lambda field: str(numbers[field[1]] + _offset(template, field[1])), template)


@functools.cache
def _pattern(template: str) -> re.Pattern:
    parts = re.split(r'(\{\w(?:\+\d)?\})', template)
    return re.compile(''.join(f'(?P<{p[1]}>\\d+)' if p.startswith('{') else re.escape(p) for p in parts))


@functools.cache
def _offset(template: str, name: str) -> int:
    match = re.search(rf'\{{{name}\+(\d)\}}', template)
    return int(match[1]) if match else 0


# Values that depend on the window -------------------------------------------------------------------------------------


def relative_position_index(window: int) -> Tensor:
    """Row of the position-bias table for each (query, key) pair of a window, (S * S, S * S).

    Row (dy + S - 1) * (2 S - 1) + (dx + S - 1) with (dy, dx) = query position - key position.
    """
    position = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    dy, dx = (position[:, None] - position + window - 1).unbind(-1)
    return dy * (2 * window - 1) + dx


def problem_of_index(key: str, value: Tensor) -> str | None:
    """Why an index buffer cannot be left out: it is not the one that its window gives; None if it is."""
    window = math.isqrt(math.isqrt(value.numel()))
    if window**4 == value.numel() and value.flatten().equal(relative_position_index(window).flatten()):
        return None
    return f'{key} is not the index of a {window} x {window} window in row-major order.'


def resize_table(table: Tensor, rows: int) -> Tensor | None:
    """A position-bias table of another window size, bicubic over its two offsets.

    Args:
        table: Shape ((2 S - 1) ** 2, heads).
        rows: (2 S' - 1) ** 2 of the other window size S'.

    Returns:
        Shape (rows, heads); None if ``table`` is not of that form.
    """
    old, new = math.isqrt(table.shape[0]) if table.dim() == 2 else 0, math.isqrt(rows)
    if old % 2 == 0 or old**2 != table.shape[0]:
        return None
    if new == 1:
        return table[old**2 // 2].unsqueeze(0)
    # Corners on corners: the offset 0 stays in the middle and the farthest offset stays the farthest.
    grid = table.float().T.reshape(1, -1, old, old)
    resized = F.interpolate(grid, size=(new, new), mode='bicubic', align_corners=True)[0]
    return resized.flatten(1).T.to(table.dtype)


# First in the models' `_load_from_state_dict`, so any loader of torch or mmengine takes published files --------------


def translate_backbone(module: nn.Module, state: MutableMapping[str, Any], prefix: str, *reports: Any) -> None:
    """The backbone's state as it loads: published names, and position-bias tables of other window sizes.

    A bare backbone leaves out the norm, neck and head that stand beside it in a classifier's file. Classifiers as a
    whole are out of reach: a loader hands a part its own keys only, and there the published backbone has no prefix.
    """
    errors = reports[-1]
    keys = [key for key in state if key.startswith(prefix)]
    if any(_PUBLISHED_BLOCK.match(key, len(prefix)) for key in keys):
        for key in keys:
            name, value = key.removeprefix(prefix), state.pop(key)
            if name.endswith(f'.{INDEX}'):
                problem = problem_of_index(key, value)
                errors.extend([problem] if problem else [])
            elif prefix or not name.startswith(_BESIDE):
                state[prefix + to_ours(name, 'backbone')] = value
    for name, parameter in module.named_parameters():
        table = state.get(prefix + name) if name.endswith(f'.{TABLE}') else None
        if table is not None and table.shape != parameter.shape:
            resized = resize_table(table, len(parameter))
            state[prefix + name] = table if resized is None else resized


def translate_neck(module: nn.Module, state: MutableMapping[str, Any], prefix: str, *reports: Any) -> None:
    """The neck's state as it loads: the names of the published detectors."""
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + _rename(key.removeprefix(prefix), NECK, forward=True)] = state.pop(key)
