# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Stochastic depth."""

from __future__ import annotations

from torch import Tensor, nn

from mmlightvit.models.arguments import require


class DropPath(nn.Module):
    """Drop the residual branch of whole samples in training; the kept ones are scaled to keep the mean.

    Args:
        rate: Probability of dropping a sample's branch, in [0, 1).

    Shape:
        (B, ...) -> the same. One draw per sample, shared by its image and global tokens.

    Raises:
        ValueError: ``rate`` is out of its range.

    Source: Huang et al., "Deep networks with stochastic depth", ECCV 2016.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        require('drop_path_rate', rate, 0 <= rate < 1, 'a number in [0, 1)')
        self.rate = float(rate)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        draw = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * (draw / keep)

    def extra_repr(self) -> str:
        return f'rate={self.rate:.3g}'
