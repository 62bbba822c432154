# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The published names and ours: one declared table, read in both directions.

Each row maps the beginning of a key, the rest is carried over, and the first row that matches counts. ``{i}`` and
``{j}`` are numbers: the published files number the downsampling and the blocks of a stage in one list, so block ``j``
of a later stage stands there as ``{j+1}``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from torch import Tensor

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
    ('neck.extra_trans_convs.{i}.conv.', 'neck.transposed_convs.{i}.'),
    ('neck.extra_fpn_convs.{i}.', 'neck.transposed_fpn_convs.{i}.'),
)

#: The whole table of each kind of file.
TABLES: Mapping[str, Table] = {
    'backbone': BACKBONE,
    'classifier': HEAD + tuple((theirs, f'backbone.{ours}') for theirs, ours in BACKBONE) + (('', 'backbone.'),),
    'detector': NECK + tuple((f'backbone.{theirs}', f'backbone.{ours}') for theirs, ours in BACKBONE),
}

#: A buffer of the published files that follows from the window size.
INDEX = 'relative_position_index'

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
    from mmlightvit.models.layers.attention import relative_position_index

    renamed = {}
    for key, value in state.items():
        renamed[to_published(key, kind)] = value
        if key.endswith('.relative_position_bias_table'):
            window = (int(value.shape[0] ** 0.5) + 1) // 2
            index_key = to_published(key.replace('relative_position_bias_table', INDEX), kind)
            renamed[index_key] = relative_position_index(window).flatten()
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
