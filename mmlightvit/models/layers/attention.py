# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Self-attention with local-global broadcast (paper section 3.1).

Shape legend: B batch, M = L + T tokens, L image tokens, T global tokens, C channels, N heads, D head width,
W windows, S window side, A tokens of a window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as attend

from mmlightvit.models.arguments import require
from mmlightvit.models.layers.windows import TokenGrid
from mmlightvit.published import relative_position_index


class AggregatedAttention(nn.Module):
    r"""Local window attention plus global aggregation and broadcast.

    .. math::
        X_{local} &= Attention(X_q, X_k, X_v)  \text{ within each window}   \quad (1) \\
        \hat G &= Attention(G_q, X_k, X_v)  \text{ over the whole image}    \quad (2) \\
        X_{global} &= Attention(X_q, \hat G_k, \hat G_v)                      \quad (3) \\
        X_{new} &= X_{local} + X_{global}                                   \quad (4)

    X are the image tokens, G the global tokens. One ``qkv`` projection serves both; of the global tokens only the
    query is used. ``kv_global`` maps the aggregated tokens to the keys and values that are broadcast.

    Args:
        channels: Channels C; a multiple of ``num_heads``.
        num_heads: Attention heads N.
        window: Window side S, in tokens. None: one window, the whole grid, without position bias, as in ViT (paper
            Table 5, first row).
        has_global_tokens: Whether global tokens exist. Without them Eq. 1 is all that is left.

    Shape:
        ``forward(x, grid)``: x (B, L + T, C), image tokens first, in the order of ``grid`` -> the same shape.

    Raises:
        ValueError: ``channels`` is no multiple of ``num_heads``.

    Source: paper section 3.1, Eq. 1-4, Figures 2a and 6.
    Departs: the paper's equations leave out the scale D ** -0.5 and the relative position bias of Eq. 1, which the
    published model has. A grid that is no multiple of the window is zero-padded before ``qkv``: padded keys take
    part in Eq. 1, as published, and never in Eq. 2.
    """

    def __init__(self, channels: int, num_heads: int, window: int | None, has_global_tokens: bool = True) -> None:
        super().__init__()
        require('channels', channels, channels % num_heads == 0, f'a multiple of num_heads={num_heads}')
        self.num_heads, self.head_width = num_heads, channels // num_heads
        self.window = window
        self.qkv = nn.Linear(channels, 3 * channels)
        self.kv_global = nn.Linear(channels, 2 * channels) if has_global_tokens else None
        self.proj = nn.Linear(channels, channels)
        if window is not None:
            self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
            nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
            self.relative_position_index: Tensor
            self.register_buffer('relative_position_index', relative_position_index(window), persistent=False)

    def position_bias(self) -> Tensor | None:
        """The bias of Eq. 1, (1, N, A, A); None for attention over the whole grid."""
        if self.window is None:
            return None
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1).unsqueeze(0)

    def forward(self, x_BMC: Tensor, grid: TokenGrid, keep_global: bool = True) -> Tensor:
        """Attend.

        Args:
            x_BMC: Normed tokens (B, L + T, C), image tokens first.
            grid: Size and order of the image tokens.
            keep_global: Whether to put out the global tokens too; they take part either way.

        Returns:
            (B, L + T, C), or (B, L, C) without the global tokens.
        """
        image, tokens = x_BMC[:, : grid.num_tokens], x_BMC[:, grid.num_tokens :]
        qkv = self.qkv(grid.to_windows(image))  # (B W, A, 3 C)
        q, k, v = self._heads(qkv, 3)  # (B W, N, A, D) each
        local = self._merge(attend(q, k, v, self.position_bias()))  # Eq. 1
        if self.kv_global is None:
            return self.proj(grid.from_windows(local))

        q, k, v = self._heads(qkv.view(x_BMC.shape[0], -1, qkv.shape[-1]), 3)  # the whole image, (B, N, W A, D)
        q_global, _, _ = self._heads(self.qkv(tokens), 3)  # (B, N, T, D)
        aggregated = self._merge(attend(q_global, k, v, grid.real_keys))  # Eq. 2, (B, T, C)
        k_global, v_global = self._heads(self.kv_global(aggregated), 2)
        broadcast = self._merge(attend(q, k_global, v_global))  # Eq. 3, (B, W A, C)
        image = grid.from_windows(local.view_as(broadcast) + broadcast)  # Eq. 4, (B, L, C)
        return self.proj(torch.cat([image, aggregated], dim=1) if keep_global else image)

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, L, parts * C) -> ``parts`` strided views (B, N, L, D)."""
        return x.unflatten(-1, (parts, self.num_heads, self.head_width)).permute(2, 0, 3, 1, 4).unbind(0)

    def _merge(self, x: Tensor) -> Tensor:
        """(B, N, L, D) -> (B, L, C)."""
        # A copy in any case: which of torch's kernels ran decides over the layout, and exports trace one of them.
        return x.transpose(1, 2).clone(memory_format=torch.contiguous_format).flatten(2)
