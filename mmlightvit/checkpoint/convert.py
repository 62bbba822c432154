# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Checkpoint files from one layout and format to another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from mmlightvit.checkpoint.identify import Architecture, Source, find_state_dict, recognise, shorten
from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.durable.safe_loading.read import read_checkpoint
from mmlightvit.errors import UserError
from mmlightvit.models import published as keymap

SAFETENSORS = '.safetensors'


@dataclass(frozen=True)
class Differences:
    """Where the keys and shapes of a file depart from what its variant has.

    Attributes:
        missing: Keys that are not there.
        unexpected: Keys that should not be there.
        reshaped: Keys of another shape, with both shapes.
        unchecked: Keys of parts that this project does not define, such as a decode head.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    unchecked: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        lines = []
        for what in ('missing', 'unexpected', 'reshaped'):
            keys = getattr(self, what)
            lines.append(f'{what} ({len(keys)}): {", ".join(keys) or "none"}')
        if self.unchecked:
            beginnings = sorted({'.'.join(key.split('.')[:2]) for key in self.unchecked})
            lines.append(
                f'not checked, for want of a published layout ({len(self.unchecked)}): {", ".join(beginnings)}'
            )
        return '\n'.join(lines)


def convert(source: str | os.PathLike, target: str | os.PathLike, to: str = 'own') -> tuple[Source, Differences]:
    """Convert a checkpoint file; nothing is written unless it fits its variant in every key and shape.

    Args:
        source: A published file or one of ours, in any form :func:`read_checkpoint` reads.
        target: What to write: safetensors where the name ends so, otherwise ``{'state_dict': ...}`` of torch.
        to: ``'own'`` or ``'published'``: whose names to write.

    Returns:
        What the file is, and its parts that could not be checked.

    Raises:
        UserError: The file can't be read, is no LightViT, or departs from its variant; or the target can't be written.
    """
    recognised = recognise(find_state_dict(read_checkpoint(source), str(source)), str(source))
    if recognised.architecture is None:
        raise UserError(f'{source}: holds no LightViT; its keys start with {shorten(list(recognised.state), 4)}.')
    # What is to have the published names has to be what was published.
    differences = compare(replace(recognised, layout='published') if to == 'published' else recognised)
    if differences:
        raise LayoutError(recognised, differences, str(source))
    state: Mapping[str, Tensor] = recognised.state
    if to == 'published':
        kind = recognised.kind if recognised.kind in keymap.TABLES else 'detector'
        state = keymap.rename_to_published(state, kind)
    write_state_dict(state, Path(target))
    return recognised, differences


class LayoutError(UserError):
    """A file is recognised but departs from its variant.

    Args:
        source: What it was recognised as.
        differences: Where it departs.
        name: The file.
    """

    def __init__(self, source: Source, differences: Differences, name: str) -> None:
        super().__init__(
            f'{name} ({source}) does not have the keys of its variant; nothing was written. '
            + '; '.join(
                f'{what}: {shorten(keys)}'
                for what in ('missing', 'unexpected', 'reshaped')
                if (keys := getattr(differences, what))
            )
        )
        self.source = source
        self.differences = differences


def write_state_dict(state: Mapping[str, Tensor], path: Path) -> None:
    """Write weights in full or not at all; safetensors where the name ends so.

    Raises:
        UserError: The directory is missing or not writable, or the disk is full.
    """
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
    """Compare a recognised file with the layout of its variant.

    The backbone is compared with the model of the recognised arguments, the heads of the published kinds with the
    published ones for their number of classes.
    """
    assert source.architecture is not None
    expected = _expected(source)
    parts = {key.split('.')[0] for key in expected}
    missing = [key for key in expected if key not in source.state]
    reshaped, unexpected, unchecked = [], [], []
    for key, value in source.state.items():
        shape = expected.get(key)
        if shape is not None:
            if list(value.shape) != shape:
                reshaped.append(f'{key} {list(value.shape)}, expected {shape}')
        elif source.layout == 'published' or key.split('.')[0] in parts:
            unexpected.append(key)
        else:
            unchecked.append(key)
    return Differences(tuple(missing), tuple(unexpected), tuple(reshaped), tuple(unchecked))


def _expected(source: Source) -> dict[str, list[int]]:
    architecture = source.architecture
    assert architecture is not None
    prefix = '' if source.kind == 'backbone' else 'backbone.'
    expected = {f'{prefix}{key}': shape for key, shape in _backbone_shapes(architecture, source).items()}
    if source.kind == 'classifier' and (source.layout == 'published' or 'head.proj.weight' in source.state):
        expected.update(_head_shapes(source))
    if source.kind == 'detector' and source.layout == 'published':
        expected.update(_mask_rcnn_shapes(source))
    return expected


def _backbone_shapes(architecture: Architecture, source: Source) -> dict[str, list[int]]:
    from mmlightvit.models.backbones.lightvit import ARCH_ZOO, LightViT

    backbone = source.backbone
    own = source.layout == 'own'
    if architecture.arch is None:
        if own:  # A variant of the user's: its config alone knows the layout, and loading checks it.
            return {}
        raise UserError(f'the file holds a {architecture}, which is none of the published {sorted(ARCH_ZOO)}.')

    def has(part: str) -> bool:
        """Whether a part that the ablations leave out exists; in published files all do."""
        return not own or any(part in key for key in backbone)

    norms = tuple(i for i in range(len(architecture.embed_dims)) if f'norm{i}.weight' in backbone)
    model = LightViT(
        architecture.arch,
        num_global_tokens=architecture.num_global_tokens,
        window_size=architecture.window_size,
        out_indices=norms if norms else (len(architecture.embed_dims) - 1,),
        out_type='featmap' if norms else 'raw',
        spatial_attention=has('.spatial_select.'),
        channel_attention=has('.channel_select.'),
        residual_merging=has('.residual_proj.'),
        overlapping_patches=has('patch_embed.stem.'),
    )
    return {key: list(value.shape) for key, value in model.state_dict().items()}


def _head_shapes(source: Source) -> dict[str, list[int]]:
    assert source.architecture is not None
    channels, hidden = source.architecture.embed_dims[-1], _size(source, 'head.proj.weight', 1280)
    classes = _size(source, 'head.fc.weight', 1000)
    return {
        **_pair('head.norm', [channels]),
        **_pair('head.proj', [hidden, channels]),
        **_pair('head.proj_norm', [hidden]),
        **_pair('head.fc', [classes, hidden]),
    }


def _mask_rcnn_shapes(source: Source) -> dict[str, list[int]]:
    """Neck and heads of the published Mask R-CNN: mmdet's standard ones."""
    assert source.architecture is not None
    classes = _size(source, 'roi_head.bbox_head.fc_cls.weight', 81) - 1
    width, anchors, hidden, cells = 256, 3, 1024, 7 * 7
    shapes = {}
    for i, channels in enumerate(source.architecture.embed_dims):
        shapes.update(_pair(f'neck.lateral_convs.{i}.conv', [width, channels, 1, 1]))
        shapes.update(_pair(f'neck.fpn_convs.{i}.conv', [width, width, 3, 3]))
    shapes.update(_pair('neck.transposed_convs.0', [width, width, 2, 2]))
    shapes.update(_pair('neck.transposed_fpn_convs.0.conv', [width, width, 3, 3]))
    shapes.update(_pair('rpn_head.rpn_conv', [width, width, 3, 3]))
    shapes.update(_pair('rpn_head.rpn_cls', [anchors, width, 1, 1]))
    shapes.update(_pair('rpn_head.rpn_reg', [4 * anchors, width, 1, 1]))
    shapes.update(_pair('roi_head.bbox_head.shared_fcs.0', [hidden, width * cells]))
    shapes.update(_pair('roi_head.bbox_head.shared_fcs.1', [hidden, hidden]))
    shapes.update(_pair('roi_head.bbox_head.fc_cls', [classes + 1, hidden]))
    shapes.update(_pair('roi_head.bbox_head.fc_reg', [4 * classes, hidden]))
    for i in range(4):
        shapes.update(_pair(f'roi_head.mask_head.convs.{i}.conv', [width, width, 3, 3]))
    shapes.update(_pair('roi_head.mask_head.upsample', [width, width, 2, 2]))
    shapes.update(_pair('roi_head.mask_head.conv_logits', [classes, width, 1, 1]))
    return shapes


def _pair(name: str, weight: list[int]) -> dict[str, list[int]]:
    """A weight and its bias; every bias of these layouts has as many entries as the weight has rows."""
    return {f'{name}.weight': weight, f'{name}.bias': [weight[0]]}


def _size(source: Source, key: str, default: int) -> int:
    value = source.state.get(key)
    return value.shape[0] if value is not None and value.dim() else default
