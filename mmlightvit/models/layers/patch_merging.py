# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Downsampling between stages."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualPatchMerging(nn.Module):
    """Halve the grid, change the width, and bring the global tokens to the new width.

    Each 2x2 cell group becomes one token: its four concatenated cells are normed and projected (main branch), and
    their maximum is projected (residual branch). An odd grid is zero-padded right and bottom.

    Args:
        in_channels: Channels C before.
        out_channels: Channels C' after.
        has_global_tokens: Whether global tokens pass through.
        residual: Whether the residual branch exists.

    Shape:
        image tokens (B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C'); global tokens (B, T, C) -> (B, T, C'), or None.

    Source: paper section 4.1 "Downsample with residual patch merging" and Figure 5c.
    Departs: the maximum over cells shares a gradient evenly between equal cells, where a pooling layer gives it to
    the first of them. The outputs are the same.
    """

    def __init__(
        self, in_channels: int, out_channels: int, has_global_tokens: bool = True, residual: bool = True
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.reduction = nn.Linear(4 * in_channels, out_channels, bias=False)
        self.residual_proj = nn.Linear(in_channels, out_channels, bias=False) if residual else None
        self.global_norm = nn.LayerNorm(in_channels) if has_global_tokens else None
        self.global_proj = nn.Linear(in_channels, out_channels, bias=False) if has_global_tokens else None

    def forward(self, x_BHWC: Tensor, global_BTC: Tensor | None) -> tuple[Tensor, Tensor | None]:
        B, H, W, C = x_BHWC.shape
        x = F.pad(x_BHWC, (0, 0, 0, W % 2, 0, H % 2))
        # The published order of the cells: (row 0, column 0), (1, 0), (0, 1), (1, 1).
        cells = x.view(B, (H + 1) // 2, 2, (W + 1) // 2, 2, C).permute(0, 1, 3, 4, 2, 5).flatten(3, 4)
        merged = self.reduction(self.norm(cells.flatten(3)))
        if self.residual_proj is not None:
            merged = merged + self.residual_proj(cells.amax(dim=3))
        if self.global_norm is not None and self.global_proj is not None and global_BTC is not None:
            global_BTC = self.global_proj(self.global_norm(global_BTC))
        return merged, global_BTC
