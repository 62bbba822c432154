# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The form of LightViT that is exported: the same layers, with the tokens of a stage kept in window order.

A graph for any image size has to pad the grid to whole windows, whether or not a size needs it. Done inside of each
block, as the model does it, that is a pad, two transposes of all tokens and a crop per block. Here the padded grid
is laid out window by window once per stage, by a table of places, and the blocks see windows as a plain reshape. What
padding must not change is kept apart by ``real``: padded tokens enter Eq. 1 as zeros, and neither Eq. 2 nor a mean.

Shape legend: B batch, H W token grid, h w windows down and across, S window side, A = S * S, P = h * w * A padded
image tokens, T global tokens, C channels, N heads, D head width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from mmlightvit.models.backbones import LightViT

#: The operator that a :class:`BlockCall` leaves in a graph.
CALL = 'mmlightvit::block'


class WindowGrid:
    """Where the tokens of a stage are, for a grid known only when the graph runs.

    Args:
        height: Rows H of the token grid.
        width: Columns W.
        window: Window side S.

    Attributes:
        rows, columns: Places in the padded grid of the tokens in window order, (h, 1, S, 1) and (1, w, 1, S).
        size: Padded tokens P.
        real: 1 where a token is in the grid and 0 where it pads, float (P, 1); None where it is known that none pads.
    """

    def __init__(self, height: int, width: int, window: int) -> None:
        self.height, self.width, self.window = height, width, window
        self.across = (width + window - 1) // window
        first_rows = torch.arange((height + window - 1) // window) * window
        self.rows = first_rows[:, None, None, None] + torch.arange(window)[:, None]
        self.columns = (torch.arange(self.across) * window)[:, None, None] + torch.arange(window)
        inside = self.contains(self.rows, self.columns).reshape(-1, 1)
        self.size = inside.shape[0]
        is_whole = isinstance(height, int) and isinstance(width, int) and not (height % window or width % window)
        self.real = None if is_whole else inside.float()

    def contains(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Whether places are inside of the grid, not in its padding."""
        return (rows < self.height) & (columns < self.width)

    def place(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Where in window order the tokens at places of the padded grid are."""
        S = self.window
        row, column = _div(rows, S), _div(columns, S)
        return row * (self.across * S * S) + (rows - row * S) * S + column * (S * S) + (columns - column * S)

    def order(self, x_BLC: Tensor) -> Tensor:
        """Raster order (B, H W, C) -> window order (B, P, C); what pads is any token."""
        place = self.rows * self.width + self.columns
        return x_BLC.index_select(1, (place * self.contains(self.rows, self.columns)).flatten())

    def raster(self, x_BPC: Tensor) -> Tensor:
        """Window order (B, P, C) -> raster order (B, H W, C)."""
        place = self.place(torch.arange(self.height)[:, None], torch.arange(self.width)[None])
        return x_BPC.index_select(1, place.flatten())

    def halved(self) -> WindowGrid:
        """The grid of the next stage."""
        return WindowGrid((self.height + 1) // 2, (self.width + 1) // 2, self.window)

    def cells(self, x_BPC: Tensor, halved: WindowGrid) -> Tensor:
        """The four cells of each token of the next stage, zero outside of the grid: (B, P', 4, C)."""
        rows = 2 * halved.rows[..., None] + torch.tensor([0, 1, 0, 1])
        columns = 2 * halved.columns[..., None] + torch.tensor([0, 0, 1, 1])
        inside = self.contains(rows, columns)
        cells = x_BPC.index_select(1, (self.place(rows, columns) * inside).flatten()).unflatten(1, (-1, 4))
        return cells if halved.real is None and self.real is None else cells * inside.reshape(-1, 4, 1).float()


def _div(numerator: Tensor, denominator: int) -> Tensor:
    """Of numbers that are not negative, for which ONNX's division is the floor."""
    return torch.div(numerator, denominator, rounding_mode='trunc')


class BlockCall(nn.Module):
    """Stands for a block over tokens in window order, global tokens last; ``block_graph`` puts the block there.

    Args:
        block: A :class:`~mmlightvit.models.backbones.lightvit.LightViTBlock`.
        num_tokens: Global tokens T.

    Shape:
        ``forward(x, real)``: x (B, P + T, C), real (P, 1) or None -> the same as x, or (B, P, C) where the block drops
        its global tokens.
    """

    def __init__(self, block: Any, num_tokens: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self._block = (block,)  # not a child, so that its weights are not inputs of the traced graph
        self.index = 0  # among the calls of a graph

    @property
    def block(self) -> Any:
        return self._block[0]

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        rows = x.shape[1] - (0 if self.block.keep_global else self.num_tokens)
        shape = [x.shape[0], rows, x.shape[2]]
        return torch.onnx.ops.symbolic(CALL, [x, real], {'index': self.index}, dtype=x.dtype, shape=shape, version=1)


def mean_of_real(x: Tensor, real: Tensor | None) -> Tensor:
    """Mean over the tokens that are in the grid and the global tokens behind them: (B, P + T, C) -> (B, 1, C)."""
    if real is None:
        return x.mean(dim=1, keepdim=True)
    weights = F.pad(real, (0, 0, 0, x.shape[1] - real.shape[0]), value=1.0)
    return (weights / weights.sum()).t() @ x


class OrderedLightViT(nn.Module):
    """A LightViT with window attention, in window order; it holds copies of the weights.

    Args:
        backbone: The model, in eval mode.

    Shape:
        as the backbone's.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.window, self.out_indices, self.out_type = backbone.window_size, backbone.out_indices, backbone.out_type
        self.patch_embed, self.global_token = backbone.patch_embed, backbone.global_token
        self.downsamples = nn.ModuleList(stage.downsample for stage in backbone.stages if stage.downsample is not None)
        self.stages = nn.ModuleList(
            nn.ModuleList(BlockCall(block, backbone.num_global_tokens) for block in stage.blocks)
            for stage in backbone.stages
        )
        self.norms = nn.ModuleDict(
            {str(i): getattr(backbone, f'norm{i}') for i in self.out_indices} if self.out_type == 'featmap' else {}
        )
        if self.patch_embed.overlapping:
            self.patch_embed = copy.deepcopy(self.patch_embed)
            self.patch_embed.stem = _fold_norms(self.patch_embed.stem)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._output(i, *found) for i, found in enumerate(self._run(image)) if i in self.out_indices)

    def last_tokens(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """The last stage's tokens (B, P + T, C) in window order, global tokens last, and ``real`` (P, 1) or None."""
        *_, (x, grid) = self._run(image)
        return x, grid.real

    def _run(self, image: Tensor) -> Iterator[tuple[Tensor, WindowGrid]]:
        """The tokens of each stage, in window order."""
        x_BHWC = self.patch_embed(image)
        grid = WindowGrid(x_BHWC.shape[1], x_BHWC.shape[2], self.window)
        x = grid.order(x_BHWC.flatten(1, 2))
        tokens = None if self.global_token is None else self.global_token.expand(image.shape[0], -1, -1)
        for i, blocks in enumerate(self.stages):
            if i:
                halved = grid.halved()
                x, tokens = merge(self.downsamples[i - 1], grid.cells(x, halved), tokens)
                grid = halved
            x = x if tokens is None else torch.cat([x, tokens], dim=1)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, grid.real)
            yield x, grid
            x, tokens = x[:, : grid.size], None if tokens is None else x[:, grid.size :]

    def _output(self, i: int, x: Tensor, grid: WindowGrid) -> Tensor:
        image = grid.raster(x[:, : grid.size])
        if self.out_type == 'featmap':
            return self.norms[str(i)](image).transpose(1, 2).unflatten(2, (grid.height, grid.width))
        return torch.cat([x[:, grid.size :], image], dim=1)


def merge(layer: Any, cells: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A ``ResidualPatchMerging`` on cells (B, P, 4, C) and global tokens."""
    merged = layer.reduction(layer.norm(cells.flatten(2)))
    if layer.residual_proj is not None:
        merged = merged + layer.residual_proj(cells.amax(dim=2))
    return merged, None if tokens is None else layer.global_proj(layer.global_norm(tokens))


def _fold_norms(stem: nn.Sequential) -> nn.Sequential:
    """Convolution, BatchNorm and GELU, again and again, without the BatchNorms."""
    layers: list[Any] = list(stem)
    folded = [fuse_conv_bn_eval(conv, norm) for conv, norm in zip(layers[0::3], layers[1::3])]
    return nn.Sequential(*(layer for conv in folded for layer in (conv, nn.GELU())))


def in_window_order(model: nn.Module) -> nn.Module:
    """The same model with each LightViT in it in window order; the model given stays as it is."""
    memo = {
        id(module): OrderedLightViT(module)
        for module in model.modules()
        if isinstance(module, LightViT) and module.window_size is not None
    }
    return copy.deepcopy(model, memo)
