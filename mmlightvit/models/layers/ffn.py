# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Feed-forward network with bi-dimensional attention (paper section 3.2).

Shape legend: B batch, M tokens, image tokens and global tokens together, C channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmlightvit.models.layers.cpu_training import mlp
from mmlightvit.models.layers.kernels import forget_packed, gelu, linear_gelu


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

    Source: paper section 3.2, Figures 2b and 7.
    Departs: Figure 7 leaves out the norm, which the published model has. With one gate alone (Table 5) the layers
    that only the other one needs do not exist; the paper does not say which layers those rows had.
    """

    def __init__(self, channels: int, spatial: bool = True, channel: bool = True, reduction: int = 4) -> None:
        super().__init__()
        if not (spatial or channel):
            raise ValueError('bi-dimensional attention: expected spatial=True or channel=True, got neither')
        reduced = channels // reduction
        self.norm = nn.LayerNorm(channels)
        self.global_reduce = nn.Linear(channels, reduced)
        self.channel_select = nn.Linear(reduced, channels) if channel else None
        self.local_reduce = nn.Linear(channels, reduced) if spatial else None
        self.spatial_select = nn.Linear(2 * reduced, 1) if spatial else None

    def gates(self, y: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The channel gate (B, 1, C) and the spatial gate (B, M, 1); None for one that does not exist."""
        n = self.norm(y)
        g = gelu(self.global_reduce(n.mean(dim=1, keepdim=True)))
        channel = spatial = None
        if self.channel_select is not None:
            channel = self.channel_select(g).sigmoid()
        if self.local_reduce is not None and self.spatial_select is not None:
            # spatial_select([l, g]) = l w_l + (g w_g + bias): nothing is concatenated or expanded.
            w_local, w_global = self.spatial_select.weight.chunk(2, dim=1)
            spatial = linear_gelu(self.local_reduce, n) @ w_local.squeeze(0)
            spatial = (spatial.unsqueeze(-1) + F.linear(g, w_global, self.spatial_select.bias)).sigmoid()
        return channel, spatial

    def forward(self, y: Tensor) -> Tensor:
        channel, spatial = self.gates(y)
        if channel is None or spatial is None:
            gate = channel if spatial is None else spatial
            assert gate is not None
            return y * gate
        return y * (channel * spatial)


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
        self.attn = (
            BiDimensionalAttention(channels, spatial_attention, channel_attention)
            if spatial_attention or channel_attention
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = mlp(self.fc1, self.fc2, x)
        return y if self.attn is None else self.attn(y)

    def train(self, mode: bool = True) -> FFN:
        forget_packed(self)
        return super().train(mode)
