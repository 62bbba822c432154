# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Checkpoint files from one layout and format to another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmlightvit import published
from mmlightvit.checkpoint.identify import Source, averages, find_state_dict, recognise, shorten
from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.durable.safe_loading.read import read_checkpoint
from mmlightvit.errors import UserError

SAFETENSORS = '.safetensors'


@dataclass(frozen=True)
class Differences:
    """The keys by which a file departs from its variant, and those of parts that no layout is published of."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    unchecked: tuple[str, ...]

    @property
    def faults(self) -> dict[str, tuple[str, ...]]:
        return {'missing': self.missing, 'unexpected': self.unexpected, 'reshaped': self.reshaped}

    def __bool__(self) -> bool:
        return any(self.faults.values())

    def __str__(self) -> str:
        lines = [f'{what} ({len(keys)}): {", ".join(keys) or "none"}' for what, keys in self.faults.items()]
        if self.unchecked:
            beginnings = sorted({'.'.join(key.split('.')[:2]) for key in self.unchecked})
            lines.append(f'not checked, no layout is published ({len(self.unchecked)}): {", ".join(beginnings)}')
        return '\n'.join(lines)


class LayoutError(UserError):
    """A file is recognised (``source``) but departs from its variant (``differences``)."""

    def __init__(self, source: Source, differences: Differences, name: str) -> None:
        listed = '; '.join(f'{what}: {shorten(keys)}' for what, keys in differences.faults.items() if keys)
        super().__init__(f'{name} ({source}) does not have the keys of its variant; nothing was written. {listed}')
        self.source = source
        self.differences = differences


def convert(
    source: str | os.PathLike, target: str | os.PathLike, to: str = 'native', entry: str | None = None
) -> tuple[Source, Differences]:
    """Convert a checkpoint file; nothing is written unless it fits its variant in every key and shape.

    Args:
        source: A published file or one of ours, in any form :func:`read_checkpoint` reads.
        target: What to write: safetensors where the name ends so, otherwise ``{'state_dict': ...}`` of torch.
        to: Whose names to write: ``'native'``, those of this project (``'own'``, the former word), or ``'published'``.
        entry: Entry of the file that holds the weights to take, such as ``'state_dict_ema'``.

    Returns:
        What the file is, and its parts that could not be checked.

    Raises:
        UserError: The file can't be read, is no LightViT, or departs from its variant; or the target can't be written.
    """
    checkpoint = read_checkpoint(source)
    recognised = recognise(find_state_dict(checkpoint, str(source), entry), str(source))
    if entry is None and (beside := averages(checkpoint)):
        print_log(f'{source} holds averaged weights too, which are not taken: --weights {beside[0]} takes them')
    if recognised.architecture is None:
        raise UserError(f'{source}: holds no LightViT; its keys start with {shorten(list(recognised.state), 4)}.')
    # A file that is to have the published names has to be one that was published.
    differences = compare(replace(recognised, layout='published') if to == 'published' else recognised)
    if differences:
        raise LayoutError(recognised, differences, str(source))
    state: Mapping[str, Tensor] = recognised.state
    if to == 'published':
        state = published.rename_to_published(state, recognised.table)
    write_state_dict(state, Path(target))
    return recognised, differences


def write_state_dict(state: Mapping[str, Tensor], path: Path) -> None:
    """Write weights in full or not at all, or raise a :class:`UserError`; safetensors where the name ends so."""
    # A view of a larger storage would be saved with all of it, and safetensors takes no shared storage.
    state = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}

    def write(file: BinaryIO) -> None:
        if path.suffix == SAFETENSORS:
            from safetensors.torch import save

            file.write(save(state, metadata={'format': 'pt'}))
        else:
            torch.save({'state_dict': state}, file)

    try:
        atomic_write(path, write)
    except (OSError, RuntimeError) as error:
        raise UserError(f'{path} cannot be written: {error}') from None


def compare(source: Source) -> Differences:
    """Hold the backbone against the model of the recognised arguments, published heads against their known shapes."""
    prefix = '' if source.kind == 'backbone' else 'backbone.'
    expected = {f'{prefix}{key}': shape for key, shape in _backbone_shapes(source).items()}
    for name, shape in _published_parts(source).items():  # each bias has as many entries as its weight has rows
        expected |= {f'{name}.weight': shape, f'{name}.bias': shape[:1]}
    parts = {key.split('.')[0] for key in expected}
    reshaped, unexpected, unchecked = [], [], []
    for key, value in source.state.items():
        if key in expected:
            if tuple(value.shape) != expected[key]:
                reshaped.append(f'{key} {list(value.shape)}, expected {list(expected[key])}')
        elif source.layout == 'published' or key.split('.')[0] in parts:
            unexpected.append(key)
        else:
            unchecked.append(key)
    missing = tuple(key for key in expected if key not in source.state)
    return Differences(missing, tuple(unexpected), tuple(reshaped), tuple(unchecked))


def _backbone_shapes(source: Source) -> dict[str, tuple[int, ...]]:
    from mmlightvit.models.backbones.lightvit import ARCH_ZOO, LightViT

    architecture, backbone = source.architecture, source.backbone
    assert architecture is not None
    native = source.layout == 'native'
    if architecture.arch is None:
        if native:  # A variant of the user's: its config alone knows the layout, and loading checks it.
            return {}
        raise UserError(f'the file holds a {architecture}, which is none of the published {sorted(ARCH_ZOO)}.')

    def has(part: str) -> bool:
        """Whether a part that the ablations leave out exists; in published files all do."""
        return not native or any(part in key for key in backbone)

    norms = tuple(i for i in range(len(architecture.embed_dims)) if f'norm{i}.weight' in backbone)
    with torch.device('meta'):
        model = LightViT(
            architecture.arch,
            in_channels=architecture.in_channels if native else 3,
            num_global_tokens=architecture.num_global_tokens,
            window_size=architecture.window_size,
            out_indices=norms if norms else (len(architecture.embed_dims) - 1,),
            out_type='featmap' if norms else 'tokens',
            spatial_attention=has('.spatial_select.'),
            channel_attention=has('.channel_select.'),
            residual_merging=has('.residual_proj.'),
            overlapping_patches=has('patch_embed.stem.'),
        )
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def _published_parts(source: Source) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of the published parts beside a backbone; the Mask R-CNN's are mmdet's standard ones."""
    assert source.architecture is not None
    dims = source.architecture.embed_dims

    def rows(key: str, default: int) -> int:
        value = source.state.get(key)
        return value.shape[0] if value is not None and value.dim() else default

    if source.kind == 'classifier' and (source.layout == 'published' or 'head.proj.weight' in source.state):
        hidden, classes = rows('head.proj.weight', 1280), rows('head.fc.weight', 1000)
        return {
            'head.norm': (dims[-1],),
            'head.proj': (hidden, dims[-1]),
            'head.proj_norm': (hidden,),
            'head.fc': (classes, hidden),
        }
    if source.kind != 'detector' or source.layout != 'published':
        return {}
    classes, width, anchors, hidden = rows('roi_head.bbox_head.fc_cls.weight', 81) - 1, 256, 3, 1024
    return {
        **{f'neck.lateral_convs.{i}.conv': (width, channels, 1, 1) for i, channels in enumerate(dims)},
        **{f'neck.fpn_convs.{i}.conv': (width, width, 3, 3) for i in range(len(dims))},
        'neck.transposed_convs.0': (width, width, 2, 2),
        'neck.transposed_fpn_convs.0.conv': (width, width, 3, 3),
        'rpn_head.rpn_conv': (width, width, 3, 3),
        'rpn_head.rpn_cls': (anchors, width, 1, 1),
        'rpn_head.rpn_reg': (4 * anchors, width, 1, 1),
        'roi_head.bbox_head.shared_fcs.0': (hidden, width * 7 * 7),
        'roi_head.bbox_head.shared_fcs.1': (hidden, hidden),
        'roi_head.bbox_head.fc_cls': (classes + 1, hidden),
        'roi_head.bbox_head.fc_reg': (4 * classes, hidden),
        **{f'roi_head.mask_head.convs.{i}.conv': (width, width, 3, 3) for i in range(4)},
        'roi_head.mask_head.upsample': (width, width, 2, 2),
        'roi_head.mask_head.conv_logits': (classes, width, 1, 1),
    }
