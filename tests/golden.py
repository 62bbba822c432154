# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The published implementation's layout, and what it computes (eval mode, float32) from reproducible weights.

The names and shapes of LightViT-T's three kinds of published file, in their order, written down without the package.
Each tensor is drawn from a generator that its key seeds, so any machine has the same file. ``golden_outputs.npz`` holds
the outputs, some of their channels (:data:`KEPT`), and the gradient norm of each parameter for the loss
sum over outputs i of mean(output_i * R_i), R_i = RandomState(7 + i).standard_normal(shape).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

Layout = dict[str, tuple[int, ...]]

#: What is kept of each output, by the beginning of its name.
KEPT = {
    'feat': np.s_[:, ::4],
    'logits': np.s_[:],
    'level': np.s_[:, ::32],
    'rpn': np.s_[:],
    'roi_mask_logits': np.s_[:, ::8, ::4, ::4],
    'roi': np.s_[:],
}


def _pair(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A weight and its bias."""
    yield f'{name}.weight', shape
    yield f'{name}.bias', shape[:1]


def _block(name: str, channels: int, heads: int, ratio: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, reduced = ratio * channels, channels // 4
    yield from _pair(f'{name}.norm1', channels)
    yield f'{name}.attn.relative_position_bias_table', (13**2, heads)
    yield f'{name}.attn.relative_position_index', (7**4,)
    yield from _pair(f'{name}.attn.qkv', 3 * channels, channels)
    yield from _pair(f'{name}.attn.kv_global', 2 * channels, channels)
    yield from _pair(f'{name}.attn.proj', channels, channels)
    yield from _pair(f'{name}.norm2', channels)
    yield from _pair(f'{name}.mlp.fc1', hidden, channels)
    yield from _pair(f'{name}.mlp.fc2', channels, hidden)
    yield from _pair(f'{name}.mlp.attn.norm', channels)
    yield from _pair(f'{name}.mlp.attn.global_reduce', reduced, channels)
    yield from _pair(f'{name}.mlp.attn.local_reduce', reduced, channels)
    yield from _pair(f'{name}.mlp.attn.channel_select', channels, reduced)
    yield from _pair(f'{name}.mlp.attn.spatial_select', 1, 2 * reduced)


def _backbone() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield 'global_token', (1, 8, 64)
    for i in range(4):
        yield f'patch_embed.stem.{3 * i}.weight', (32, 1 if i else 3, 3, 3)
        for part in ('weight', 'bias', 'running_mean', 'running_var'):
            yield f'patch_embed.stem.{3 * i + 1}.{part}', (32,)
        yield f'patch_embed.stem.{3 * i + 1}.num_batches_tracked', ()
    yield from _pair('patch_embed.proj', 64, 32, 3, 3)
    yield from _pair('patch_embed.norm', 64)
    for stage, (channels, blocks, ratio) in enumerate([(64, 2, 8), (128, 6, 4), (256, 6, 4)]):
        first, before = f'stages.{stage}.0', channels // 2
        if stage:
            yield from _pair(f'{first}.norm', 4 * before)
            yield f'{first}.reduction.weight', (channels, 4 * before)
            yield from _pair(f'{first}.norm2', before)
            yield f'{first}.proj.weight', (channels, before)
            yield f'{first}.res_proj.weight', (channels, before)
        for j in range(blocks):
            yield from _block(f'stages.{stage}.{j + (stage > 0)}', channels, channels // 32, ratio)


def _norms() -> Iterator[tuple[str, tuple[int, ...]]]:
    for i, channels in enumerate((64, 128, 256)):
        yield from _pair(f'norm{i}', channels)


def _head() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _pair('norm', 256)
    yield from _pair('neck.0', 1280, 256)
    yield from _pair('neck.1', 1280)
    yield from _pair('head', 1000, 1280)


def _mask_rcnn() -> Iterator[tuple[str, tuple[int, ...]]]:
    for i, channels in enumerate((64, 128, 256)):
        yield from _pair(f'neck.lateral_convs.{i}.conv', 256, channels, 1, 1)
    for i in range(3):
        yield from _pair(f'neck.fpn_convs.{i}.conv', 256, 256, 3, 3)
    yield from _pair('neck.extra_trans_convs.0.conv', 256, 256, 2, 2)
    yield from _pair('neck.extra_fpn_convs.0.conv', 256, 256, 3, 3)
    yield from _pair('rpn_head.rpn_conv', 256, 256, 3, 3)
    yield from _pair('rpn_head.rpn_cls', 3, 256, 1, 1)
    yield from _pair('rpn_head.rpn_reg', 12, 256, 1, 1)
    yield from _pair('roi_head.bbox_head.fc_cls', 81, 1024)
    yield from _pair('roi_head.bbox_head.fc_reg', 320, 1024)
    yield from _pair('roi_head.bbox_head.shared_fcs.0', 1024, 256 * 7 * 7)
    yield from _pair('roi_head.bbox_head.shared_fcs.1', 1024, 1024)
    for i in range(4):
        yield from _pair(f'roi_head.mask_head.convs.{i}.conv', 256, 256, 3, 3)
    yield from _pair('roi_head.mask_head.upsample', 256, 256, 2, 2)
    yield from _pair('roi_head.mask_head.conv_logits', 80, 256, 1, 1)


def layout(name: str) -> Layout:
    """Keys and shapes of ``'backbone_tiny'``, ``'cls_tiny'`` or ``'detector_tiny'``."""
    if name == 'cls_tiny':
        return dict([*_backbone(), *_head()])
    backbone = dict([*_backbone(), *_norms()])
    if name == 'backbone_tiny':
        return backbone
    return {f'backbone.{key}': shape for key, shape in backbone.items()} | dict(_mask_rcnn())


def values(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The values of one tensor; norms near 1, weights scaled by the number of their inputs."""
    random, part = np.random.RandomState(zlib.crc32(key.encode())), key.rpartition('.')[2]
    if part == 'num_batches_tracked':
        return torch.tensor(1000)
    if part == 'relative_position_index':
        rows, columns = np.divmod(np.arange(49), 7)
        dy, dx = (axis[:, None] - axis[None] + 6 for axis in (rows, columns))
        return torch.from_numpy(13 * dy + dx).flatten()
    noise = random.standard_normal(shape)
    if part == 'running_var':
        noise = 0.5 + random.uniform(size=shape)
    elif part == 'relative_position_bias_table':
        noise = 0.5 * noise
    elif len(shape) == 1:
        noise = (part == 'weight') + 0.1 * noise
    elif part != 'global_token':
        noise = noise / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(noise, dtype=np.float32))


def state_dict(name: str) -> dict[str, torch.Tensor]:
    """The weights of one file."""
    return {key: values(key, shape) for key, shape in layout(name).items()}


def image(height: int, width: int, batch: int = 1) -> torch.Tensor:
    """The input of the outputs that are called ``<height>x<width>x<batch>/...``."""
    random = np.random.RandomState(zlib.crc32(f'image {batch} {height} {width}'.encode()))
    return torch.from_numpy(random.standard_normal((batch, 3, height, width)).astype(np.float32))


def outputs(name: str) -> dict[str, np.ndarray]:
    """Outputs of one file, some channels of them, and its gradient norms as ``gradnorm/KEY``."""
    with np.load(Path(__file__).with_name('golden_outputs.npz')) as file:
        found = {key.removeprefix(f'{name}/'): file[key] for key in file.files if key.startswith(f'{name}/')}
    keys = [key for key in layout(name) if not key.endswith(('index', 'tracked', 'running_mean', 'running_var'))]
    norms = found.pop('gradnorms', [])
    return found | {f'gradnorm/{key}': norm for key, norm in zip(keys, norms)}


def kept(key: str, output: torch.Tensor) -> np.ndarray:
    """The part of an output that :func:`outputs` has of it."""
    name = key.rpartition('/')[2]
    return output.detach().numpy()[next(part for start, part in KEPT.items() if name.startswith(start))]
