# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The identity of a checkpoint, found by its keys and shapes, never by its name."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mmlightvit import published
from mmlightvit.errors import UserError

#: What stands beside ``backbone.`` in a model of each kind, first match first.
_KINDS = (
    ('detector', ('rpn_head.', 'roi_head.', 'bbox_head.', 'mask_head.')),
    ('segmenter', ('decode_head.',)),
    ('classifier', ('head.',)),
)

_PUBLISHED_KEY = re.compile(r'(?:^|\.)stages\.\d+\.\d+\.')
_OUR_KEY = re.compile(r'(?:^|\.)stages\.\d+\.(?:blocks|downsample)\.')


@dataclass(frozen=True)
class Architecture:
    """The arguments of a backbone, as its tensors' shapes show them."""

    arch: str | None  #: Name of the variant, or None where no variant fits.
    embed_dims: tuple[int, ...]  #: Channels of each stage.
    num_blocks: tuple[int, ...]  #: Blocks of each stage.
    num_global_tokens: int
    window_size: int | None  #: Window side; None without position-bias tables.

    def __str__(self) -> str:
        name = f'LightViT {self.arch}' if self.arch else 'LightViT of no named variant'
        return (
            f'{name} (channels {list(self.embed_dims)}, blocks {list(self.num_blocks)}, '
            f'{self.num_global_tokens} global tokens, window {self.window_size})'
        )


@dataclass(frozen=True)
class Source:
    """The weights of a checkpoint under our names.

    Attributes:
        layout: ``'published'``, the authors' names, or ``'native'``, those of this project.
        kind: ``'classifier'``, ``'detector'``, ``'segmenter'``, ``'backbone'`` (bare, no prefix), ``'headless'``
            (``backbone.`` with none of these heads), or ``'other'``: no LightViT at its top level; then the keys are
            as in the file.
        state: Tensors by our names.
        architecture: Of the backbone; None for ``'other'``.
    """

    layout: str
    kind: str
    state: Mapping[str, Tensor]
    architecture: Architecture | None = None

    @property
    def table(self) -> str:
        """Key of the table of names in :data:`.published.TABLES`."""
        # Detectors, segmenters and lone prefixed backbones differ in nothing that the table renames.
        return self.kind if self.kind in published.TABLES else 'detector'

    @property
    def backbone(self) -> dict[str, Tensor]:
        """The backbone's tensors, without prefix."""
        if self.kind == 'backbone':
            return dict(self.state)
        return {k.removeprefix('backbone.'): v for k, v in self.state.items() if k.startswith('backbone.')}

    def __str__(self) -> str:
        return f'{self.layout} {self.kind}, {self.architecture}' if self.architecture else 'no LightViT'


def find_state_dict(checkpoint: Mapping[str, Any], name: str = 'checkpoint') -> dict[str, Tensor]:
    """The weights of a checkpoint, without ``module.``: of ``{'state_dict': ...}``, ``{'model': ...}``, or bare ones.

    Raises:
        UserError: There are none, or something that is no tensor is among them.
    """
    containers = (checkpoint.get('state_dict'), checkpoint.get('model'))
    state: Any = next((found for found in containers if isinstance(found, Mapping)), checkpoint)
    if not state:
        raise UserError(f'{name}: holds no weights.')
    others = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise UserError(
            f'{name}: expected tensors in state_dict, model or at the top level, got something else under '
            f'{shorten(others)}.'
        )
    weights: dict[str, Tensor] = {}
    for key, value in state.items():
        stripped = str(key).removeprefix('module.')
        if stripped in weights:
            raise UserError(f'{name}: holds {stripped} both with and without the prefix module.')
        weights[stripped] = value
    return weights


def recognise(state: Mapping[str, Tensor], name: str = 'checkpoint') -> Source:
    """Say what the weights, by their names in the file, are, and bring them under our names.

    Raises:
        UserError: The keys mix the published layout and ours, or an index buffer is not the one of its window.
    """
    theirs = [key for key in state if _PUBLISHED_KEY.search(key)]
    ours = [key for key in state if _OUR_KEY.search(key)]
    if theirs and ours:
        raise UserError(
            f'{name}: mixes the published layout ({shorten(theirs)}) and that of this project ({shorten(ours)}).'
        )
    layout = 'published' if theirs else 'native'
    kind = kind_of(state)
    if kind == 'other':
        return Source(layout, kind, dict(state))
    for key, value in state.items():
        # They are left out, so they have to be the ones that their windows give.
        if key.endswith(f'.{published.INDEX}') and (problem := published.problem_of_index(key, value)):
            raise UserError(f'{name}: {problem}')
    source = Source(
        layout, kind, {key: value for key, value in state.items() if not key.endswith(f'.{published.INDEX}')}
    )
    if theirs:
        source = replace(source, state=published.rename_to_ours(source.state, source.table))
    return replace(source, architecture=architecture_of(source.backbone))


def kind_of(keys: Iterable[str]) -> str:
    """The kind of model that has these keys, published or ours."""
    keys = list(keys)
    if any(key.startswith('stages.') for key in keys):
        has_head = any(key.startswith(('norm.', 'neck.', 'head.')) for key in keys)
        return 'classifier' if has_head else 'backbone'
    if any(key.startswith('backbone.stages.') for key in keys):
        for kind, prefixes in _KINDS:
            if any(key.startswith(prefixes) for key in keys):
                return kind
        return 'headless'
    return 'other'


def architecture_of(backbone: Mapping[str, Tensor]) -> Architecture:
    """Read a backbone's arguments off its tensors: by our names, without prefix; some may be missing."""
    from mmlightvit.models.backbones.lightvit import ARCH_ZOO

    blocks: dict[int, set[str]] = {}
    dims: dict[int, int] = {}
    hidden: defaultdict[int, set[int]] = defaultdict(set)
    heads: defaultdict[int, set[int]] = defaultdict(set)
    window = None
    for key, value in backbone.items():
        if match := re.match(r'stages\.(\d+)\.blocks\.(\d+)\.', key):
            stage = int(match[1])
            blocks.setdefault(stage, set()).add(match[2])
            if key.endswith('.norm1.weight'):
                dims[stage] = value.shape[0]
            if key.endswith('.ffn.fc1.weight'):
                hidden[stage].add(value.shape[0])
            if key.endswith(f'.{published.TABLE}'):
                window = (math.isqrt(value.shape[0]) + 1) // 2
                heads[stage].add(value.shape[-1])

    def fits(variant: Mapping[str, Any]) -> bool:
        """Whether its sizes are these. Stages that are not built say nothing, nor do blocks that disagree: these are
        a damaged file's, which is to be held against its variant."""
        sizes = zip(*(variant[name] for name in ('embed_dims', 'num_blocks', 'ffn_ratios', 'num_heads')))
        return 0 < len(dims) <= len(variant['embed_dims']) and all(
            dims.get(i, C) == C
            and len(blocks.get(i, range(depth))) == depth
            and (len(hidden[i]) != 1 or hidden[i] == {int(C * ratio)})
            and (len(heads[i]) != 1 or heads[i] == {N})
            for i, (C, depth, ratio, N) in enumerate(sizes)
        )

    embed_dims = tuple(dims[i] for i in sorted(dims))
    num_blocks = tuple(len(blocks[i]) for i in sorted(blocks))
    arch = next((name for name, variant in ARCH_ZOO.items() if fits(variant)), None)
    token = backbone.get('global_token')
    tokens = token.shape[1] if token is not None and token.dim() == 3 else 0
    return Architecture(arch, embed_dims, num_blocks, tokens, window)


def shorten(keys: Iterable[str], limit: int = 12) -> str:
    """Keys for one line: all of them, or the first ``limit`` and how many more."""
    keys = list(keys)
    more = f', and {len(keys) - limit} more' if len(keys) > limit else ''
    return ', '.join(keys[:limit]) + more
