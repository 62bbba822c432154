# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Windows: how the image tokens of a stage lie in memory.

Every operator of a LightViT block is row-wise or indifferent to the order of the tokens, except the window
attention, and windows are never shifted. So where the grid is a multiple of the window, a stage puts its
tokens into window order once and takes them out once. Other grids stay in raster order, because padding the
residual stream would make every layer pay for tokens that are not there.

Shape legend: B batch, H W grid height and width, S window side, A tokens of a window, L image tokens, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def missing(length: int, multiple: int) -> int:
    """How much a length is short of the next multiple. Not ``-length % multiple``, which ONNX's division truncates."""
    return (length + multiple - 1) // multiple * multiple - length


def window_partition(x_BHWC: Tensor, size: int) -> Tensor:
    """Cut a grid into windows: (B, H, W, C) -> (B * H/S * W/S, S * S, C), windows and tokens in raster order."""
    B, H, W, C = x_BHWC.shape
    x = x_BHWC.reshape(B, H // size, size, W // size, size, C).transpose(2, 3)
    # A copy in any case: an export would take the sizes for which reshape needs none to be the only ones.
    return x.clone(memory_format=torch.contiguous_format).view(-1, size * size, C)


def window_reverse(windows: Tensor, height: int, width: int, size: int) -> Tensor:
    """Put windows, or any tensor with their elements, back into a grid: the inverse of :func:`window_partition`."""
    C = windows.shape[-1]
    x = windows.reshape(-1, height // size, width // size, size, size, C).transpose(2, 3)
    return x.clone(memory_format=torch.contiguous_format).view(-1, height, width, C)


class TokenGrid(NamedTuple):
    """The image tokens of one stage: the size of the grid and their order in memory.

    Attributes:
        height: Rows of the grid, in tokens.
        width: Columns of the grid, in tokens.
        window: Window side S in tokens; None for one window that is the whole grid.
        real_keys: For a grid that has to be padded to whole windows, and is kept in raster order, (1, padded length)
            booleans in window order, true where a token is real. None for a grid that is kept in windows.
    """

    height: int
    width: int
    window: int | None
    real_keys: Tensor | None = None

    @classmethod
    def of(cls, x_BHWC: Tensor, window: int | None) -> TokenGrid:
        """The grid of a feature map; the module docstring says when it is kept in windows."""
        _, height, width, _ = x_BHWC.shape
        # A traced branch on the remainder would freeze to the example's size, so an export always pads.
        if window is None or not (torch.compiler.is_exporting() or height % window or width % window):
            return cls(height, width, window)
        ones = x_BHWC.new_ones((1, height, width, 1), dtype=torch.bool)
        return cls(height, width, window, window_partition(_pad(ones, window), window).view(1, -1))

    @property
    def num_tokens(self) -> int:
        """Number of real image tokens, L = H * W."""
        return self.height * self.width

    def flatten(self, x_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, L, C) in the order of this grid."""
        if self.window and self.real_keys is None:
            x_BHWC = window_partition(x_BHWC, self.window)
        return x_BHWC.reshape(-1, self.num_tokens, x_BHWC.shape[-1])

    def unflatten(self, x_BLC: Tensor) -> Tensor:
        """(B, L, C) in the order of this grid -> (B, H, W, C)."""
        if self.window and self.real_keys is None:
            return window_reverse(x_BLC, self.height, self.width, self.window)
        return x_BLC.reshape(-1, self.height, self.width, x_BLC.shape[-1])

    def to_windows(self, x_BLC: Tensor) -> Tensor:
        """(B, L, C) -> (B * windows, A, C), zero-padded to the right and at the bottom where needed."""
        if self.window and self.real_keys is not None:
            return window_partition(_pad(self.unflatten(x_BLC), self.window), self.window)
        return x_BLC.reshape(-1, self.window**2 if self.window else self.num_tokens, x_BLC.shape[-1])

    def from_windows(self, windows: Tensor) -> Tensor:
        """(B * windows, A, C) -> (B, L, C), padded tokens dropped: the inverse of :meth:`to_windows`."""
        if self.window and self.real_keys is not None:
            height, width = (side + missing(side, self.window) for side in (self.height, self.width))
            x_BHWC = window_reverse(windows, height, width, self.window)[:, : self.height, : self.width]
            windows = x_BHWC.clone(memory_format=torch.contiguous_format)
        return windows.reshape(-1, self.num_tokens, windows.shape[-1])


def _pad(x_BHWC: Tensor, multiple: int) -> Tensor:
    """Zero-pad right and bottom to whole windows."""
    _, height, width, _ = x_BHWC.shape
    return F.pad(x_BHWC, (0, 0, 0, missing(width, multiple), 0, missing(height, multiple)))
