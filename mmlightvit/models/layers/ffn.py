# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Feed-forward network with bi-dimensional attention (paper section 3.2).

Shape legend: B batch, M tokens, image tokens and global tokens together, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlightvit.models.arguments import require


class BiDimensionalAttention(nn.Module):
    r"""Gate the channels of a sample and the tokens of a sample.

    With :math:`n = LN(y)`, :math:`g = GELU(global\_reduce(mean(n)))` and :math:`l = GELU(local\_reduce(n))`:

    .. math::
        c = sigmoid(channel\_select(g)), \quad s = sigmoid(spatial\_select([l, g])), \quad out = y \cdot c \cdot s

    Args:
        channels: Channels C; a multiple of ``reduction``.
        spatial: Whether the spatial gate s exists.
        channel: Whether the channel gate c exists; at least one of the two.
        reduction: Factor by which the two reductions narrow the channels.

    Shape:
        (B, M, C) -> (B, M, C)

    Raises:
        ValueError: Neither gate is asked for, or ``channels`` is no multiple of ``reduction``.

    Source: paper section 3.2, Figures 2b and 7.
    Departs: Figure 7 leaves out the norm, which the published model has. With one gate alone (Table 5) the layers
    that only the other one needs do not exist; the paper does not say which layers those rows had.
    """

    def __init__(self, channels: int, spatial: bool = True, channel: bool = True, reduction: int = 4) -> None:
        super().__init__()
        require('spatial, channel', (spatial, channel), spatial or channel, 'one of them at least')
        require('channels', channels, channels % reduction == 0, f'a multiple of reduction={reduction}')
        reduced = channels // reduction
        self.norm = nn.LayerNorm(channels)
        self.global_reduce = nn.Linear(channels, reduced)
        self.channel_select = nn.Linear(reduced, channels) if channel else None
        self.local_reduce = nn.Linear(channels, reduced) if spatial else None
        self.spatial_select = nn.Linear(2 * reduced, 1) if spatial else None

    def gates(self, y_BMC: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """The channel gate (B, 1, C) and the spatial gate (B, M, 1); 1.0 in place of one that does not exist."""
        channel: Tensor | float = 1.0
        spatial: Tensor | float = 1.0
        n = self.norm(y_BMC)
        g = F.gelu(self.global_reduce(n.mean(dim=1, keepdim=True)))
        if self.channel_select is not None:
            channel = self.channel_select(g).sigmoid()
        if self.local_reduce is not None and self.spatial_select is not None:
            l = F.gelu(self.local_reduce(n))  # noqa: E741
            spatial = self.spatial_select(torch.cat([l, g.expand(-1, l.shape[1], -1)], dim=-1)).sigmoid()
        return channel, spatial

    def forward(self, y_BMC: Tensor) -> Tensor:
        channel, spatial = self.gates(y_BMC)
        return y_BMC * (channel * spatial)


class FFN(nn.Module):
    """Two linear layers around a GELU, then bi-dimensional attention.

    Args:
        channels: Channels C.
        ratio: Width of the hidden layer over C.
        spatial_attention: Whether the spatial gate exists.
        channel_attention: Whether the channel gate exists. Without both, a plain transformer FFN is left.

    Shape:
        (B, M, C) -> (B, M, C)

    Source: paper section 3.2.
    """

    def __init__(
        self, channels: int, ratio: float, spatial_attention: bool = True, channel_attention: bool = True
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, int(channels * ratio))
        self.fc2 = nn.Linear(int(channels * ratio), channels)
        has_gates = spatial_attention or channel_attention
        self.attn = BiDimensionalAttention(channels, spatial_attention, channel_attention) if has_gates else None

    def forward(self, x_BMC: Tensor) -> Tensor:
        y_BMC = self.fc2(F.gelu(self.fc1(x_BMC)))
        return y_BMC if self.attn is None else self.attn(y_BMC)
