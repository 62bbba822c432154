# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The identity of a checkpoint, found by its keys and shapes, never by its name."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
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

#: Entries that hold the weights, first match first; and those of averages that programs other than mmengine (which
#: puts the average into state_dict) keep beside the raw ones.
_WEIGHTS = ('state_dict', 'model')
_AVERAGES = ('state_dict_ema', 'model_ema', 'ema')
#: What wrappers put in front of a model's own names.
_WRAPPED = re.compile(r'((?:module\.|model\.)+)(?:backbone\.)?(?:stages\.\d+|patch_embed)\.')
_COMPILED = '_orig_mod.'

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
    in_channels: int = 3  #: Bands of a picture.

    def __str__(self) -> str:
        name = f'LightViT {self.arch}' if self.arch else 'LightViT of no named variant'
        return (
            f'{name} (channels {list(self.embed_dims)}, blocks {list(self.num_blocks)}, '
            f'{self.num_global_tokens} global tokens, window {self.window_size}'
            f'{"" if self.in_channels == 3 else f", {self.in_channels} bands"})'
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
        prefixes: What wrappers have put in front of names, which is left out.
    """

    layout: str
    kind: str
    state: Mapping[str, Tensor]
    architecture: Architecture | None = None
    prefixes: tuple[str, ...] = ()

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
        if not self.architecture:
            return 'no LightViT'
        without = f', without the prefix {" and ".join(self.prefixes)}' if self.prefixes else ''
        return f'{self.layout} {self.kind}, {self.architecture}{without}'


def averages(checkpoint: Mapping[str, Any]) -> list[str]:
    """The entries that hold averaged weights beside those that are taken."""
    found = [key for key in (*_WEIGHTS, *_AVERAGES) if isinstance(checkpoint.get(key), Mapping)]
    return [key for key in found[1:] if key in _AVERAGES]


def find_state_dict(
    checkpoint: Mapping[str, Any], name: str = 'checkpoint', entry: str | None = None
) -> dict[str, Tensor]:
    """The weights of a checkpoint, without ``module.``: of ``{'state_dict': ...}``, ``{'model': ...}``, or bare ones.

    Args:
        checkpoint: As read.
        name: The file, for messages.
        entry: Take the weights of this entry, such as ``'state_dict_ema'``.

    Raises:
        UserError: There are none, or something that is no tensor is among them.
    """
    found = [key for key in (*_WEIGHTS, *_AVERAGES) if isinstance(checkpoint.get(key), Mapping)]
    if entry is not None and entry not in found:
        raise UserError(
            f'{name}: holds no weights in an entry {entry}; it has {shorten(found or map(str, checkpoint))}.'
        )
    state: Any = checkpoint[entry or found[0]] if found else checkpoint
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


def _unwrap(
    state: Mapping[str, Tensor], name: str, known: Collection[str]
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Weights without what ``torch.compile`` and other wrappers have put in front of names, and what that was."""
    prefixes = []
    plain = state
    if any(_COMPILED in key for key in state) and not any(_COMPILED in key for key in known):
        plain = {key.replace(_COMPILED, ''): value for key, value in state.items()}
        prefixes.append(_COMPILED)
    front = next((match[1] for match in map(_WRAPPED.match, plain) if match), None)
    if front is not None and not any(key.startswith(front) for key in known):
        plain = {key.removeprefix(front): value for key, value in plain.items()}
        prefixes.append(front)
    if len(plain) < len(state):
        raise UserError(f'{name}: holds names both with and without the prefix {" and ".join(prefixes)}.')
    return plain, tuple(prefixes)


def recognise(state: Mapping[str, Tensor], name: str = 'checkpoint', known: Collection[str] = ()) -> Source:
    """Say what the weights, by their names in the file, are, and bring them under our names.

    Args:
        state: The weights.
        name: The file, for messages.
        known: The names of the model that they are for; a prefix that these have is no wrapper's.

    Raises:
        UserError: The keys mix the published layout and ours, or an index buffer is not the one of its window.
    """
    state, prefixes = _unwrap(state, name, known)
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
    return replace(source, architecture=architecture_of(source.backbone), prefixes=prefixes)


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
    stem = backbone.get('patch_embed.stem.0.weight', backbone.get('patch_embed.proj.weight'))
    bands = stem.shape[1] if stem is not None and stem.dim() == 4 else 3
    return Architecture(arch, embed_dims, num_blocks, tokens, window, bands)


def number_of_classes(state: Mapping[str, Tensor]) -> int | None:
    """For how many classes a model is, by our names; None where its head is none of the known ones."""
    for key, value in state.items():
        if key.endswith('.bbox_head.fc_cls.weight') or re.fullmatch(r'roi_head\.bbox_head\.\d+\.fc_cls\.weight', key):
            return value.shape[0] - 1  # and the background
        if key in ('head.fc.weight', 'decode_head.conv_seg.weight'):
            return value.shape[0]
        if key == 'bbox_head.retina_cls.weight' and (boxes := state.get('bbox_head.retina_reg.weight')) is not None:
            return 4 * value.shape[0] // boxes.shape[0]  # both have these of each anchor
    return None


def shorten(keys: Iterable[str], limit: int = 12) -> str:
    """Keys for one line: all of them, or the first ``limit`` and how many more."""
    keys = list(keys)
    more = f', and {len(keys) - limit} more' if len(keys) > limit else ''
    return ', '.join(keys[:limit]) + more
