# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Self-attention with local-global broadcast (paper section 3.1).

Shape legend: B batch, L image tokens, T global tokens, C channels, N heads, D head width, A tokens of a window.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlightvit.models.layers.cpu_training import attend, can_attend
from mmlightvit.models.layers.kernels import EvalCache, forget_packed, is_plain_inference, linear
from mmlightvit.models.layers.tabled_grid import TabledGrid
from mmlightvit.models.layers.windows import TokenGrid


def relative_position_index(window: int) -> Tensor:
    """Row of the position-bias table for each (query, key) pair of a window.

    Row (dy + S - 1) * (2 S - 1) + (dx + S - 1) with (dy, dx) = query position - key position.

    Shape:
        (S * S, S * S), integers in [0, (2 S - 1) ** 2).
    """
    position = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing='ij')).flatten(1)
    dy, dx = position[:, :, None] - position[:, None, :] + window - 1
    return dy * (2 * window - 1) + dx


class AggregatedAttention(nn.Module):
    r"""Local window attention plus global aggregation and broadcast.

    .. math::
        X_{local} &= Attention(X_q, X_k, X_v)  \text{ within each window}   \quad (1) \\
        \hat G &= Attention(G_q, X_k, X_v)  \text{ over the whole image}    \quad (2) \\
        X_{global} &= Attention(X_q, \hat G_k, \hat G_v)                      \quad (3) \\
        X_{new} &= X_{local} + X_{global}                                   \quad (4)

    X are the image tokens, G the global tokens. One ``qkv`` projection serves both; of the global tokens only the
    query is needed. ``kv_global`` maps the aggregated tokens to the keys and values that are broadcast.

    Args:
        channels: Channels C; a multiple of ``num_heads``.
        num_heads: Attention heads N.
        window: Window side S, in tokens.
        has_global_tokens: Whether global tokens exist. Without them Eq. 1 is all that is left.

    Shape:
        ``forward(x, grid)``: x (B, L + T, C), image tokens first, in the order of ``grid`` -> the same shape.

    Source: paper section 3.1, Eq. 1-4, Figures 2a and 6.
    Departs: the paper's equations leave out the scale D ** -0.5 and the relative position bias of Eq. 1, which the
    published model has. A grid that is no multiple of the window is zero-padded before ``qkv``: padded keys take
    part in Eq. 1, as published, and never in Eq. 2.
    """

    def __init__(self, channels: int, num_heads: int, window: int, has_global_tokens: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.qkv = nn.Linear(channels, 3 * channels)
        self.kv_global = nn.Linear(channels, 2 * channels) if has_global_tokens else None
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.relative_position_index: Tensor
        self.register_buffer('relative_position_index', relative_position_index(window), persistent=False)
        self._bias_cache = EvalCache()

    def position_bias(self, dtype: torch.dtype) -> Tensor:
        """The bias of Eq. 1 as (1, N, A, A), gathered once per step in training and kept in inference."""
        table = self.relative_position_bias_table
        return self._bias_cache.get([table], dtype, lambda: self._gather_bias(table).to(dtype))

    def _gather_bias(self, table: Tensor) -> Tensor:
        A = self.window**2
        bias = table[self.relative_position_index.view(-1)].view(A, A, self.num_heads).permute(2, 0, 1)
        # Rows start at multiples of 8 values, which fused GPU kernels ask for and would otherwise copy to get.
        return F.pad(bias, (0, -A % 8))[None, ..., :A]

    def train(self, mode: bool = True) -> AggregatedAttention:
        self._bias_cache.clear()
        forget_packed(self)
        return super().train(mode)

    def forward(self, x: Tensor, grid: TokenGrid | TabledGrid, keep_global: bool = True) -> Tensor:
        """Attend.

        Args:
            x: Normed tokens (B, L + T, C), image tokens first.
            grid: Size and order of the image tokens.
            keep_global: Whether to put out the global tokens too; they take part either way.

        Returns:
            (B, L + T, C), or (B, L, C) without the global tokens.
        """
        if self.kv_global is not None and can_attend(x, self.kv_global):
            return self._train_on_cpu(x, grid, keep_global)
        qkv, q_global = self._project(x, grid)
        q, k, v = _heads(qkv, 3, self.num_heads)
        local = _attend(q, k, v, mask=self.position_bias(qkv.dtype))
        if self.kv_global is None:
            return linear(self.proj, grid.from_windows(_merge_heads(local)))

        q, k, v = _heads(qkv.view(x.shape[0], -1, qkv.shape[-1]), 3, self.num_heads)
        (q_global,) = _heads(q_global, 1, self.num_heads)
        aggregated = _merge_heads(_attend(q_global, k, v, mask=grid.real_keys))
        broadcast = _merge_heads(_attend_to_few(q, *_heads(self.kv_global(aggregated), 2, self.num_heads)))
        image = grid.from_windows(_merge_heads(local).view_as(broadcast) + broadcast)
        return linear(self.proj, torch.cat([image, aggregated], dim=1) if keep_global else image)

    def _project(self, x: Tensor, grid: TokenGrid | TabledGrid) -> tuple[Tensor, Tensor]:
        """Queries, keys and values of the windows (B * windows, A, 3 C), and the global tokens' queries (B, T, C)."""
        L, C = grid.num_tokens, x.shape[-1]
        if grid.in_windows and x.shape[0] == 1 and is_plain_inference(x):
            # The windows of one image lie one behind the other: one product for all tokens, and still no copy.
            qkv = linear(self.qkv, x)
            return grid.to_windows(qkv[:, :L]), qkv[:, L:, :C]
        qkv = linear(self.qkv, grid.to_windows(x[:, :L]))
        # Keys and values of the global tokens are never used.
        return qkv, F.linear(x[:, L:], self.qkv.weight[:C], self.qkv.bias[:C])

    def _train_on_cpu(self, x: Tensor, grid: TokenGrid | TabledGrid, keep_global: bool) -> Tensor:
        """:meth:`forward` with a backward pass of its own; the projections see all tokens, which spares copies."""
        num_global = x.shape[1] - grid.num_tokens
        if not grid.in_windows:
            windows = grid.to_windows(x[:, : grid.num_tokens]).reshape(x.shape[0], -1, x.shape[2])
            x = torch.cat([windows, x[:, grid.num_tokens :]], dim=1)
        assert self.kv_global is not None
        x = attend(self.qkv(x), num_global, self.position_bias(x.dtype), self.kv_global, grid.real_keys)
        if not grid.in_windows:
            x = torch.cat([grid.from_windows(x[:, :-num_global]), x[:, -num_global:]], dim=1)
        return self.proj(x if keep_global else x[:, : grid.num_tokens])


class VanillaAttention(nn.Module):
    """Multi-head self-attention over all image tokens, without position bias: ViT's.

    Args:
        channels: Channels C; a multiple of ``num_heads``.
        num_heads: Attention heads N.

    Shape:
        (B, L, C) -> (B, L, C)

    Source: paper section 5.3, first row of Table 5.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, grid: TokenGrid | TabledGrid, keep_global: bool = True) -> Tensor:
        """``grid`` and ``keep_global`` are those of :class:`AggregatedAttention`; there is nothing to cut or drop."""
        return self.proj(_merge_heads(_attend(*_heads(self.qkv(x), 3, self.num_heads))))


def _heads(x: Tensor, parts: int, num_heads: int) -> tuple[Tensor, ...]:
    """(B, L, parts * C) -> ``parts`` strided views (B, N, L, D), no copy."""
    B, L, width = x.shape
    return x.view(B, L, parts, num_heads, width // (parts * num_heads)).permute(2, 0, 3, 1, 4).unbind(0)


def _merge_heads(x: Tensor) -> Tensor:
    """(B, N, L, D) -> (B, L, C)."""
    return x.transpose(1, 2).flatten(2)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """SoftMax(q k^T / sqrt(D) + mask) v; a boolean mask is true at the keys to attend to."""
    if q.device.type == 'cpu' and mask is not None and mask.requires_grad:
        # No fused CPU kernel gives the bias a gradient, and torch's way round that is slower than these three steps.
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + mask).softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _attend_to_few(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """:func:`_attend` for many queries and a handful of keys."""
    if q.device.type != 'cpu':
        return _attend(q, k, v)
    # CPU kernels work along the last dimension, so the long one belongs there: scores are (B, N, keys, queries).
    weights = ((k * k.shape[-1] ** -0.5) @ q.transpose(-2, -1)).softmax(dim=-2)
    return weights.transpose(-2, -1) @ v
