# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Attention of the global tokens, to and from the image, and gates of the FFN (paper Figure 4).

The model runs as always, with its fused attention; hooks take the inputs of its layers, and the softmax is computed
again from these, explicitly.

Shape legend: B batch, L image tokens, T global tokens, C channels, N heads, D head width, A tokens of a window,
H W token grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlightvit.errors import UserError
from mmlightvit.models.backbones.lightvit import LightViT, LightViTBlock
from mmlightvit.models.layers.attention import AggregatedAttention
from mmlightvit.models.layers.windows import TokenGrid


@dataclass(frozen=True)
class BlockMaps:
    """Attention and gates of one block on one image.

    Attributes:
        stage: Stage, counted from 1 as in the paper.
        block: Block of the stage, counted from 1.
        stride: Pixels per token side.
        aggregation: (N, T, H, W), how much of each token's sum comes from where; sums to 1 over H and W.
        broadcast: (N, T, H, W), how much of each pixel's answer comes from which token; sums to 1 over T.
        spatial_gate: (H, W) in (0, 1), or None where the FFN has none.
        channel_gate: (C,) in (0, 1), or None where the FFN has none.
    """

    stage: int
    block: int
    stride: int
    aggregation: Tensor
    broadcast: Tensor
    spatial_gate: Tensor | None
    channel_gate: Tensor | None


def explicit_attention(attn: AggregatedAttention, x: Tensor, grid: TokenGrid) -> tuple[Tensor, Tensor, Tensor]:
    """The layer's equations one by one, with every softmax at hand.

    Args:
        attn: The layer; it has global tokens.
        x: Its input (B, L + T, C), image tokens first.
        grid: Size and order of the image tokens.

    Returns:
        aggregation (B, N, T, L) and broadcast (B, N, L, T), tokens in the order of ``grid``, and the layer's output
        (B, L + T, C).
    """
    if attn.kv_global is None:
        raise UserError('the attention has no global tokens, so there is nothing to gather or to broadcast')

    def heads(y: Tensor) -> Tensor:
        return y.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)

    def softmax(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        return (scores if bias is None else scores + bias).softmax(dim=-1)

    def merge(y: Tensor) -> Tensor:
        return y.transpose(1, 2).flatten(2)

    L = grid.num_tokens
    q, k, v = (heads(part) for part in attn.qkv(x).chunk(3, dim=-1))
    aggregation = softmax(q[:, :, L:], k[:, :, :L])
    gathered = merge(aggregation @ v[:, :, :L])
    k_global, v_global = (heads(part) for part in attn.kv_global(gathered).chunk(2, dim=-1))
    broadcast = softmax(q[:, :, :L], k_global)
    # Eq. 1 works on windows, whose padding goes through the projection too.
    q_local, k_local, v_local = (heads(part) for part in attn.qkv(grid.to_windows(x[:, :L])).chunk(3, dim=-1))
    local = softmax(q_local, k_local, attn.position_bias()) @ v_local
    image = grid.from_windows(merge(local)) + merge(broadcast @ v_global)
    return aggregation, broadcast, attn.proj(torch.cat([image, gathered], dim=1))


def find_backbone(model: nn.Module) -> LightViT:
    """The LightViT with global tokens of a model of any task.

    Raises:
        UserError: There is none.
    """
    backbone = getattr(model, 'backbone', model)
    if not isinstance(backbone, LightViT):
        raise UserError(f'expected a model with a LightViT backbone, got {type(backbone).__name__}')
    if not backbone.num_global_tokens:
        raise UserError('the model has no global tokens (num_global_tokens=0), so there is no attention of theirs')
    return backbone


@torch.no_grad()
def collect_maps(backbone: LightViT, image: Tensor) -> list[BlockMaps]:
    """Run a backbone on one image and return the attention and the gates of every block.

    Args:
        backbone: In eval mode, with global tokens.
        image: (1, 3, height, width), normalised and padded as the model expects it.
    """
    if image.shape[0] != 1:
        raise ValueError(f'image: expected a batch of 1, got {image.shape[0]}')
    calls: dict[nn.Module, tuple[Any, ...]] = {}
    stages: Any = backbone.stages
    blocks = [(i + 1, j + 1, block) for i, stage in enumerate(stages) for j, block in enumerate(stage.blocks)]
    watched = [part for *_, block in blocks for part in (block.attn, block.ffn.attn) if part is not None]
    handles = [part.register_forward_pre_hook(calls.__setitem__) for part in watched]
    try:
        backbone(image)
    finally:
        for handle in handles:
            handle.remove()
    first = backbone.patch_embed.stride
    return [_block_maps(stage, index, first * 2 ** (stage - 1), block, calls) for stage, index, block in blocks]


def _block_maps(
    stage: int, index: int, stride: int, block: LightViTBlock, calls: dict[nn.Module, tuple[Any, ...]]
) -> BlockMaps:
    attn = block.attn
    x, grid = calls[attn][:2]
    aggregation, broadcast, _ = explicit_attention(attn, x, grid)

    def to_grid(values: Tensor) -> Tensor:
        """(..., L) in the order of the grid -> (..., H, W)."""
        leading = values.shape[:-1]
        return (
            grid.unflatten(values.reshape(1, -1, grid.num_tokens).transpose(1, 2))[0]
            .permute(2, 0, 1)
            .unflatten(0, leading or (1,))
        )

    spatial = channel = None
    if block.ffn.attn is not None:
        channel_gate, spatial_gate = block.ffn.attn.gates(calls[block.ffn.attn][0])
        if isinstance(channel_gate, Tensor):
            channel = channel_gate[0, 0]
        if isinstance(spatial_gate, Tensor):
            spatial = to_grid(spatial_gate[0, : grid.num_tokens, 0])[0]
    return BlockMaps(
        stage, index, stride, to_grid(aggregation[0]), to_grid(broadcast[0].transpose(-2, -1)), spatial, channel
    )


def to_pixels(values: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Lay a map of tokens over the image: each token covers its ``stride`` x ``stride`` pixels, smoothly in between.

    Args:
        values: (H, W), one value per token.
        stride: Pixels per token side.
        size: (height, width) of the image in pixels; what the grid covers beyond that is padding, and cut off.

    Shape:
        (H, W) -> (height, width)
    """
    height, width = size
    rows, columns = values.shape
    if rows * stride < height or columns * stride < width:
        raise ValueError(f'a grid of {rows}x{columns} tokens of {stride} px does not cover {height}x{width} px')
    # Beyond the border the map falls off by what nobody sees, so that a peak in a border token lies at the token's
    # centre, as it does elsewhere, and not anywhere between there and the edge.
    ringed = F.pad(values[None, None], (1, 1, 1, 1), mode='replicate')
    fall = torch.full_like(ringed, 0.9999)
    fall[..., 1:-1, 1:-1] = 1
    grown = F.interpolate(ringed * fall, scale_factor=stride, mode='bilinear', align_corners=False)
    return grown[0, 0, stride : stride + height, stride : stride + width]
