# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Token grids for compiled graphs: every move of tokens is a lookup in a table.

A graph for any image size cannot take the moves of :class:`~.windows.TokenGrid` as they are: sizes are symbols there,
each stage nests another rounded division into them, and the compiler's reasoning about these takes many minutes and
ends in integer divisions for each element. A table is computed once per image size, outside the graph, by the very
functions of :class:`TokenGrid`, and its length is a symbol of its own.

Shape legend: B batch, H W grid height and width, L image tokens, A tokens of a window, C channels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmlightvit.models.layers.patch_merging import merging_cells
from mmlightvit.models.layers.windows import TokenGrid

_ABSENT = -1  # in a table: there is no such token, take zeros


class TabledGrid(NamedTuple):
    """The image tokens of one stage, in the role of a :class:`TokenGrid` inside the blocks.

    Attributes:
        in_windows: Whether tokens are stored window by window; in raster order otherwise.
        enter: Which tokens of the stage before make up each token of this one: (windows, A, cells) with windows,
            else (L, 1, cells); one cell in the first stage, four in the others.
        enter_back: For each token of the stage before, where ``enter`` names it.
        leave: (H, W), the token at each place of the map.
        leave_back: (L,), the place of each token.
        padded: (windows, A), the token at each place of the padded windows; None where tokens are in windows, or
            there are no windows.
        padded_back: (L,), where ``padded`` names each token, or None.
    """

    in_windows: bool
    enter: Tensor
    enter_back: Tensor
    leave: Tensor
    leave_back: Tensor
    padded: Tensor | None
    padded_back: Tensor | None

    @property
    def num_tokens(self) -> int:
        """Number of image tokens L."""
        return self.enter.shape[0] * self.enter.shape[1]

    @property
    def real_keys(self) -> Tensor | None:
        """(1, 1, 1, padded length) booleans, true where a token is real; None where no padding is needed."""
        return None if self.padded is None else (self.padded != _ABSENT).view(1, 1, 1, -1)

    def cells(self, x_BLC: Tensor) -> Tensor:
        """Tokens of the stage before, in its order -> (B, L, cells, C), in the order of this stage."""
        return _Take.apply(x_BLC, self.enter, self.enter_back).unflatten(1, (self.num_tokens, -1))

    def to_map(self, x_BLC: Tensor) -> Tensor:
        """(B, L, C) -> (B, H, W, C)."""
        return _Take.apply(x_BLC, self.leave, self.leave_back).unflatten(1, self.leave.shape)

    def to_windows(self, x_BLC: Tensor) -> Tensor:
        """(B, L, C) -> (B * windows, A, C)."""
        if self.padded is None:
            return x_BLC.reshape(-1, self.enter.shape[1], x_BLC.shape[-1])
        return _Take.apply(x_BLC, self.padded, self.padded_back).reshape(-1, self.padded.shape[1], x_BLC.shape[-1])

    def from_windows(self, windows: Tensor) -> Tensor:
        """(B * windows, A, C) -> (B, L, C): the inverse of :meth:`to_windows`."""
        if self.padded is None:
            return windows.reshape(-1, self.num_tokens, windows.shape[-1])
        windows = windows.reshape(-1, self.padded.shape[0] * self.padded.shape[1], windows.shape[-1])
        return _Take.apply(windows, self.padded_back, self.padded)


class _Take(torch.autograd.Function):
    """Rows by a table that names each row once at most; the table back gives the gradient without any addition."""

    @staticmethod
    def forward(ctx: Any, x_BLC: Tensor, table: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(table, back)
        return _take(x_BLC, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        _, back = ctx.saved_tensors
        return _take(grad, back), None, None


def _take(x_BLC: Tensor, table: Tensor) -> Tensor:
    table = table.flatten()
    rows = x_BLC.index_select(1, table.clamp(min=0))
    return torch.where((table != _ABSENT).unsqueeze(-1), rows, 0)


@lru_cache(maxsize=64)
def tabled_grids(
    height: int, width: int, num_stages: int, window: int | None, device: torch.device
) -> tuple[TabledGrid, ...]:
    """The grids of all stages.

    Stages are kept in windows where the grids of all of them are multiples of the window, and all are padded
    otherwise, so that two graphs serve every size.

    Args:
        height: Rows of the first stage's grid, in tokens.
        width: Columns of the first stage's grid, in tokens.
        num_stages: Number of stages.
        window: Window side in tokens, or None.
        device: Where the tables are needed.
    """
    sizes = [(height, width)]
    for _ in range(1, num_stages):
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    in_windows = window is not None and all(side % window == 0 for size in sizes for side in size)
    with torch.inference_mode(False):  # a table serves training too
        # Places are counted from 1 while they are moved, since a move pads with zeros.
        before = torch.arange(1, sizes[0][0] * sizes[0][1] + 1).view(1, *sizes[0], 1)
        cells = before  # the stem's tokens, in raster order
        grids = []
        for i, size in enumerate(sizes):
            if i:
                cells = merging_cells(before).squeeze(-1)
            grid = TokenGrid.of(cells, window, in_windows)
            places = torch.arange(1, grid.num_tokens + 1).view(1, -1, 1)
            leave = grid.unflatten(places)
            group = window**2 if in_windows and window else 1
            enter = grid.flatten(cells).view(-1, group, cells.shape[-1])
            padded = None if window is None or in_windows else grid.to_windows(places).squeeze(-1)
            grids.append(
                TabledGrid(
                    in_windows,
                    *_table(enter, device),
                    *_table(leave.view(size), device),
                    *((None, None) if padded is None else _table(padded, device)),
                )
            )
            before = leave
    return tuple(grids)


def _table(places: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Places counted from 1, 0 where there is none, each once -> the table and the table back."""
    flat = places.flatten()
    (real,) = flat.nonzero(as_tuple=True)
    back = real[flat[real].argsort()]
    return (places - 1).to(device), back.to(device)
