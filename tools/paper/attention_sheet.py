# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""One sheet per image: attention of the global tokens and gates of the FFN over the picture (paper Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mmlightvit.errors import UserError
from mmlightvit.explain.attention import BlockMaps, to_pixels
from mmlightvit.explain.tokens import COLOUR_MAP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 110
_TOKENS_PER_LINE = 8
# Inches.
_TILE_AREA = 2.6  # square
_GAP, _TITLE, _LABEL, _LEFT, _GATE_WIDTH = 0.08, 0.22, 0.28, 0.25, 1.5


class _Tile(NamedTuple):
    """One picture of the sheet, in inches."""

    height: float
    width: float

    def pixels(self, size: Sequence[int]) -> tuple[int, int]:
        """(height, width) in pixels: twice the resolution of the sheet, but no more than the image has."""
        return min(round(2 * _DPI * self.height), size[0]), min(round(2 * _DPI * self.width), size[1])


def choose(
    maps: Sequence[BlockMaps],
    stages: Sequence[int] | None = None,
    blocks: str = 'last',
    heads: str = 'mean',
) -> list[tuple[str, BlockMaps]]:
    """Pick blocks and heads.

    Args:
        maps: All blocks of a model.
        stages: Stages counted from 1; None for all.
        blocks: ``'last'`` of each stage, ``'all'``, ``'mean'`` over the stage, or a number counted from 1.
        heads: ``'mean'``, ``'all'``, or a number counted from 1.

    Returns:
        (label, maps with a single head) for each row of the sheet

    Raises:
        UserError: There is no such stage, block or head.
    """
    present = sorted({m.stage for m in maps})
    for stage in stages or ():
        if stage not in present:
            raise UserError(f'stages: expected numbers among {present}, got {stage}')
    chosen: list[tuple[str, BlockMaps]] = []
    for stage in stages or present:
        of_stage = [m for m in maps if m.stage == stage]
        if blocks == 'mean':
            chosen.append((f'stage {stage}, mean of blocks', _mean(of_stage)))
            continue
        if blocks == 'last':
            picked = of_stage[-1:]
        elif blocks == 'all':
            picked = of_stage
        else:
            number = _number('blocks', blocks, ('last', 'all', 'mean'), len(of_stage))
            picked = of_stage[number - 1 : number]
        chosen += [(f'stage {m.stage}, block {m.block}', m) for m in picked]
    rows = []
    for label, m in chosen:
        count = m.aggregation.shape[0]
        if heads == 'mean':
            rows.append((label, _with_heads(m, slice(None))))
        elif heads == 'all':
            rows += [(f'{label}, head {i + 1}', _with_heads(m, slice(i, i + 1))) for i in range(count)]
        else:
            number = _number('heads', heads, ('mean', 'all'), count)
            rows.append((f'{label}, head {number}', _with_heads(m, slice(number - 1, number))))
    return rows


def draw_sheet(
    pixels: NDArray[np.uint8],
    rows: Sequence[tuple[str, BlockMaps]],
    path: str | Path,
    title: str = '',
    tokens: Sequence[int] | None = None,
) -> None:
    """Draw the sheet. Per row: the image above the spatial gate; a column per global token, its aggregation above its
    broadcast; the channel gate at the end. Tokens beyond eight continue below.

    Args:
        pixels: (height, width, 3), uint8, without padding.
        rows: What :func:`choose` returned.
        path: The picture; its ending says the format.
        title: Heading.
        tokens: Global tokens to show, counted from 1; None for all.

    Raises:
        UserError: There is no such token.
    """
    from matplotlib.figure import Figure

    size = (pixels.shape[0], pixels.shape[1])
    count = rows[0][1].aggregation.shape[1]
    shown = [token - 1 for token in tokens] if tokens else list(range(count))
    if any(not 0 <= token < count for token in shown):
        raise UserError(f'tokens: expected numbers from 1 to {count}, got {list(tokens or ())}')
    aspect = min(max(size[1] / size[0], 1 / 3), 3)
    tile = _Tile(height=(_TILE_AREA / aspect) ** 0.5, width=(_TILE_AREA * aspect) ** 0.5)
    groups = [shown[i : i + _TOKENS_PER_LINE] for i in range(0, len(shown), _TOKENS_PER_LINE)]
    group_height = 2 * (tile.height + _TITLE)
    row_height = _LABEL + len(groups) * group_height + _GAP
    width = _LEFT + (len(groups[0]) + 1) * (tile.width + _GAP) + _LEFT + _GATE_WIDTH + 6 * _GAP
    height = _LABEL + 2 * _GAP + len(rows) * row_height
    figure = Figure(figsize=(width, height))

    def place(left: float, top: float, across: float, down: float) -> Axes:
        """Axes by their upper left corner and size, in inches."""
        return figure.add_axes((left / width, 1 - (top + down) / height, across / width, down / height))

    figure.text(_GAP / width, 1 - _GAP / height, title, fontsize=12, fontweight='bold', va='top')
    for i, (label, m) in enumerate(rows):
        top = _LABEL + 2 * _GAP + i * row_height
        figure.text(_GAP / width, 1 - top / height, label, fontsize=11, va='top')
        top += _LABEL
        picture = place(_GAP, top + _TITLE, tile.width, tile.height)
        picture.imshow(_shrink(pixels, tile))
        picture.set_title('image', fontsize=9, pad=3)
        picture.axis('off')
        _spatial_gate(place(_GAP, top + 2 * _TITLE + tile.height, tile.width, tile.height), pixels, m, tile)
        gathered = {token: to_pixels(m.aggregation[0, token], m.stride, size) for token in shown}
        delivered = {token: to_pixels(m.broadcast[0, token], m.stride, size) for token in shown}
        low, high = (float(f(torch.stack(list(delivered.values())))) for f in (torch.min, torch.max))
        for g, group in enumerate(groups):
            upper = top + g * group_height + _TITLE
            lower = upper + tile.height + _TITLE
            for column, token in enumerate(group):
                left = _GAP + tile.width + _LEFT + _GAP + column * (tile.width + _GAP)
                # What matters of a token's aggregation is where it is highest, so each map has a scale of its own.
                above = place(left, upper, tile.width, tile.height)
                _overlay(above, pixels, gathered[token], 0.0, float(gathered[token].max()), tile)
                above.set_title(f'token {token + 1}', fontsize=9, pad=3)
                below = place(left, lower, tile.width, tile.height)
                _overlay(below, pixels, delivered[token], low, high, tile)
                if not column:
                    above.set_ylabel('aggregation', fontsize=9)
                    below.set_ylabel('broadcast', fontsize=9)
        left = _GAP + (len(groups[0]) + 1) * (tile.width + _GAP) + _LEFT + 2 * _LEFT - _GAP
        _channel_gate(place(left, top + _TITLE, _GATE_WIDTH, tile.height * 0.75), m)
        _scale(place(left, top + _TITLE + tile.height + _GAP + 0.25, 0.14, tile.height - 0.3), low, high)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)


def _shrink(pixels: NDArray[np.uint8], tile: _Tile) -> NDArray[np.float64]:
    """The image at the resolution of the sheet: drawing each tile at full size would take minutes."""
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    small = F.interpolate(image, size=tile.pixels(pixels.shape[:2]), mode='bilinear', antialias=True)
    return small[0].permute(1, 2, 0).clamp(0, 1).double().numpy()


def _overlay(axes: Axes, pixels: NDArray[np.uint8], values: Tensor, low: float, high: float, tile: _Tile) -> None:
    """The image in grey under colours that are opaque where the map is high."""
    from matplotlib import colormaps

    size = tile.pixels(pixels.shape[:2])
    small = F.interpolate(values[None, None], size=size, mode='bilinear', antialias=True)[0, 0].double().numpy()
    level = np.clip((small - low) / max(high - low, 1e-9), 0, 1)[..., None]
    grey = _shrink(pixels, tile).mean(axis=2, keepdims=True)
    opacity = 0.3 + 0.55 * level
    axes.imshow(grey * (1 - opacity) + colormaps[COLOUR_MAP](level[..., 0])[..., :3] * opacity)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _spatial_gate(axes: Axes, pixels: NDArray[np.uint8], m: BlockMaps, tile: _Tile) -> None:
    if m.spatial_gate is None:
        axes.axis('off')
        axes.set_title('no spatial gate', fontsize=9, pad=3)
        return
    values = to_pixels(m.spatial_gate, m.stride, (pixels.shape[0], pixels.shape[1]))
    low, high = float(values.min()), float(values.max())
    _overlay(axes, pixels, values, low, high, tile)
    axes.set_title(f'spatial gate, {low:.2f} to {high:.2f}', fontsize=8, pad=3)


def _channel_gate(axes: Axes, m: BlockMaps) -> None:
    if m.channel_gate is None:
        axes.axis('off')
        axes.set_title('no channel gate', fontsize=9, pad=3)
        return
    values = m.channel_gate.sort(descending=True).values.numpy()
    axes.fill_between(range(1, len(values) + 1), values, color='#0072B2', linewidth=0)
    axes.set(xlim=(1, len(values)), ylim=(0, 1), yticks=[0, 0.5, 1], xticks=[1, len(values)])
    axes.set_title('channel gate, sorted', fontsize=9, pad=3)
    axes.tick_params(labelsize=7)


def _scale(axes: Axes, low: float, high: float) -> None:
    """The scale that the broadcast maps of a row share."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = axes.figure.colorbar(ScalarMappable(Normalize(low, max(high, low + 1e-9)), COLOUR_MAP), cax=axes)
    bar.set_ticks([low, high], labels=[f'{low:.3f}', f'{high:.3f}'])
    bar.ax.tick_params(labelsize=7)
    axes.set_title('broadcast', fontsize=9, pad=4, loc='left')


def _with_heads(m: BlockMaps, heads: slice) -> BlockMaps:
    """The mean over some heads as the only one."""
    return replace(
        m, aggregation=m.aggregation[heads].mean(0, keepdim=True), broadcast=m.broadcast[heads].mean(0, keepdim=True)
    )


def _mean(maps: Sequence[BlockMaps]) -> BlockMaps:
    def mean(values: list[Tensor | None]) -> Tensor | None:
        present = [value for value in values if value is not None]
        return torch.stack(present).mean(0) if present else None

    return replace(
        maps[-1],
        aggregation=torch.stack([m.aggregation for m in maps]).mean(0),
        broadcast=torch.stack([m.broadcast for m in maps]).mean(0),
        spatial_gate=mean([m.spatial_gate for m in maps]),
        channel_gate=mean([m.channel_gate for m in maps]),
    )


def _number(name: str, value: str, words: Sequence[str], count: int) -> int:
    if not value.isdigit() or not 1 <= int(value) <= count:
        raise UserError(f'{name}: expected {", ".join(words)} or a number from 1 to {count}, got {value!r}')
    return int(value)
