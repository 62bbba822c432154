# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Which global token serves which object: what the tokens gather, and to whom they deliver it, beside what was found.

A token serves an object where the object's pixels take more of their answer from it than the picture's pixels do on
average (the ratio is the *lift*). Shown is the block whose tokens tell the objects apart best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mmlightvit.errors import UserError
from mmlightvit.inference.convert import shares, write_picture
from mmlightvit.inference.draw import COLOURS, Canvas, Colour, colour_of, draw, enlargement, eroded
from mmlightvit.inference.model import Model
from mmlightvit.inference.outputs import Writer
from mmlightvit.inference.preprocess import prepare
from mmlightvit.inference.result import Result
from mmlightvit.visualization.attention import BlockMaps, collect_maps, find_backbone
from mmlightvit.visualization.attention_sheet import COLOUR_MAP, to_pixels

_OBJECTS, _TOKENS = 6, 4
_GAP, _PANEL = 16, 720
#: A map that varies by less than this share of its mean is as good as even, and is not stretched to look uneven.
_FLAT = 0.02
_PAPER, _INK, _PALE = (255, 255, 255), (25, 25, 25), (120, 120, 120)


Outline = tuple[NDArray[np.bool_], NDArray[np.bool_], Colour]


@dataclass(frozen=True)
class Thing:
    """An object, or a class's region: its name and score, its colour, its mask (H, W) in the picture."""

    name: str
    colour: Colour
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Service:
    """One block's tokens and the things of a picture.

    Attributes:
        maps: The block.
        lift: (things, T); above 1 the token serves the thing more than the picture.
        gathered: (things, T), the share of what the token gathers that comes from the thing.
        tokens: The tokens to show, counted from 0, the best of each thing first.
    """

    maps: BlockMaps
    lift: NDArray[np.float64]
    gathered: NDArray[np.float64]
    tokens: list[int]


class ExplainWriter(Writer):
    """``explain/STEM.jpg``."""

    def __init__(self, folder: Path, model: Model) -> None:
        super().__init__(folder, model.info)
        module = getattr(model, 'module', None)
        if module is None:
            raise UserError('--explain needs a torch model; an exported file does not give its attention away')
        self._model, self._backbone = model, find_backbone(module)

    def add(self, result: Result, place: PurePath, rate: float | None) -> None:
        write_picture(self._path('explain', place, result, '.jpg'), explain(self._model, result))


def explain(model: Any, result: Result) -> NDArray[np.uint8]:
    """The picture of a result beside its tokens' attention.

    Args:
        model: The torch model that gave the result.
        result: With its image.

    Raises:
        UserError: The model has no LightViT with global tokens.
    """
    if result.image is None:
        raise UserError('there is no picture to explain: predict with keep_image=True')
    backbone = find_backbone(model.module)
    prepared = prepare(result.image, model.input)
    maps = collect_maps(backbone, torch.from_numpy(prepared.array)[None].to(model.device))
    last = [block for block, after in zip(maps, [*maps[1:], None]) if after is None or after.stage != block.stage]
    things = find_things(result)
    service = max((serve(block, things, prepared.size) for block in last), key=_telling)
    return _compose(result, things, service, prepared.size)


def find_things(result: Result) -> list[Thing]:
    """The surest objects, or the largest regions; none where a picture is classified as a whole."""
    if result.label_map is not None:
        found = [name for name, _, _ in shares(result)[:_OBJECTS]]
        places = [result.classes.index(name) for name in found]
        return [
            Thing(name, colour_of(place, result.palette), result.label_map == place)
            for name, place in zip(found, places)
        ]
    things = []
    for index in range(min(len(result), _OBJECTS) if result.boxes is not None else 0):
        assert result.boxes is not None and result.labels is not None and result.scores is not None
        if result.masks is not None:
            mask = result.masks[index]
        else:
            x1, y1, x2, y2 = result.boxes[index]
            mask = np.zeros((result.height, result.width), bool)
            mask[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
        label = int(result.labels[index])
        name = f'{result.classes[label]} {result.scores[index]:.2f}'
        things.append(Thing(name, colour_of(label, result.palette), mask))
    return [thing for thing in things if thing.mask.any()]


def serve(maps: BlockMaps, things: Sequence[Thing], size: tuple[int, int]) -> Service:
    """How a block's tokens serve things.

    Args:
        maps: The block.
        things: Of the picture.
        size: (h, w) of the picture in the network's input; beyond it is padding.
    """
    broadcast, aggregation = (values.mean(0).double().cpu() for values in (maps.broadcast, maps.aggregation))
    grid = (broadcast.shape[-2], broadcast.shape[-1])
    whole = _on_grid(np.ones(size, bool), size, maps.stride, grid)
    average = _mean_over(broadcast, whole)
    lift = np.ones((len(things), len(broadcast)))
    gathered = np.zeros_like(lift)
    for index, thing in enumerate(things):
        weight = _on_grid(thing.mask, size, maps.stride, grid)
        lift[index] = (_mean_over(broadcast, weight) / average).numpy()
        gathered[index] = ((aggregation * weight).sum((1, 2)) / (aggregation * whole).sum((1, 2))).numpy()
    best = lift.argmax(axis=1).tolist()
    # After the best token of each thing come those that gather from the fewest places.
    spread = -(aggregation * (aggregation + 1e-12).log()).sum((1, 2))
    tokens = list(dict.fromkeys([*best, *spread.argsort().tolist()]))[:_TOKENS]
    return Service(maps, lift, gathered, tokens)


def _telling(service: Service) -> float:
    return float(service.lift.max(axis=1).mean()) if len(service.lift) else service.maps.stage


def _on_grid(mask: NDArray[np.bool_], size: tuple[int, int], stride: int, grid: tuple[int, int]) -> Tensor:
    """(H, W): how much of each token's square is mask, for a mask of the picture brought to ``size``."""
    values = F.interpolate(torch.from_numpy(mask)[None, None].double(), size=size, mode='area')[0, 0]
    padded = F.pad(values, (0, grid[1] * stride - size[1], 0, grid[0] * stride - size[0]))
    return F.avg_pool2d(padded[None], stride)[0]


def _mean_over(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum((1, 2)) / weight.sum().clamp(min=1e-9)


# -- the picture ------------------------------------------------------------------------------------------------------
def _compose(result: Result, things: Sequence[Thing], service: Service, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Above, what was found and which token serves which pixel; below, each token's sources and customers."""
    assert result.image is not None
    ratio = result.height / result.width
    panel = _PANEL if ratio <= 1 else round(_PANEL / ratio)
    large = panel, round(panel * ratio)
    width = 2 * panel + 3 * _GAP
    small_width = (width - (len(service.tokens) + 1) * _GAP) // max(len(service.tokens), 1)
    small = small_width, round(small_width * ratio)
    line, head = 34, 48
    rows = max(len(things), 0)
    top_maps = head + 2 * line + large[1]
    height = top_maps + 2 * (small[1] + line) + line + (rows + 1) * line * bool(rows) + _GAP
    page = Canvas(np.full((height, width, 3), _PAPER, np.uint8))
    m = service.maps
    outlines = _outlines(things, max(1, round(max(result.height, result.width) / 300)))
    page.text('Which global token serves which object', (_GAP, 10), _INK, 26)
    page.text(f'stage {m.stage}, block {m.block} of {result.path or "a picture"}', (_GAP + panel + _GAP, 16), _PALE, 18)
    found = draw(result, enlargement(result.height, result.width))
    page.paste(found, (_GAP, head + line), large)
    page.text('found', (_GAP, head + 6), _INK, 20)
    page.paste(_served(result, outlines, service, size), (2 * _GAP + panel, head + line), large)
    page.text('served most by', (2 * _GAP + panel, head + 6), _INK, 20)
    left: float = 2 * _GAP + panel + 150
    for rank, token in enumerate(service.tokens):
        left = page.chip(f'token {token + 1}', (left, head + 4), _token_colour(rank), 18) + 8
    for rank, token in enumerate(service.tokens):
        left = _GAP + rank * (small_width + _GAP)
        top = top_maps + 4
        end = page.chip(f'token {token + 1}', (left, top), _token_colour(rank), 18)
        page.text('gathers from', (end + 8, top + 2), _INK, 18)
        gathers = _heat(result, m.aggregation.mean(0)[token], m.stride, size, outlines)
        page.paste(gathers, (left, top + line - 4), small)
        top += line + small[1]
        page.text('and delivers to', (left, top + 4), _INK, 18)
        delivers = _heat(result, m.broadcast.mean(0)[token], m.stride, size, outlines)
        page.paste(delivers, (left, top + line - 4), small)
    top = top_maps + 2 * (small[1] + line) + line // 2
    if things:
        legend = 'takes x times as much from the token as an average pixel; % of what the token gathers is from there'
        page.text(legend, (_GAP, top), _PALE, 18)
    for index, thing in enumerate(things):
        top += line
        left = page.chip(thing.name, (_GAP, top), thing.colour, 18)
        left = max(left + 20, _GAP + 260)
        for rank in sorted(range(len(service.tokens)), key=lambda r: -service.lift[index, service.tokens[r]]):
            token = service.tokens[rank]
            lift, share = service.lift[index, token], service.gathered[index, token]
            left = page.chip(f'token {token + 1}', (left, top), _token_colour(rank), 18) + 8
            left = page.text(f'{lift:.2f} x   {share:.0%}', (left, top + 2), _INK, 18) + 28
    return page.pixels()


def _token_colour(rank: int) -> Colour:
    return COLOURS[(1, 0, 3, 5)[rank % 4]]


def _grey(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    return image.mean(axis=2, keepdims=True).repeat(3, axis=2)


def _at_picture(values: Tensor, stride: int, size: tuple[int, int], result: Result) -> NDArray[np.float64]:
    """A map of tokens at the size of the picture."""
    grown = to_pixels(values.float().cpu(), stride, size)
    return F.interpolate(grown[None, None], (result.height, result.width), mode='bilinear')[0, 0].double().numpy()


def _served(result: Result, outlines: Sequence[Outline], service: Service, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Each pixel in the colour of the shown token that serves it most, the stronger the more."""
    assert result.image is not None
    broadcast = service.maps.broadcast.mean(0)
    values = np.stack([_at_picture(broadcast[token], service.maps.stride, size, result) for token in service.tokens])
    lift = values / values.mean(axis=(1, 2), keepdims=True)
    best = lift.argmax(axis=0)
    colours = np.array([_token_colour(rank) for rank in range(len(service.tokens))], np.float64)[best]
    strength = np.clip((lift.max(axis=0) - 1) / max(np.quantile(lift.max(axis=0), 0.98) - 1, _FLAT), 0, 1)[..., None]
    pixels = _grey(result.image) * (1 - 0.75 * strength) + colours * 0.75 * strength
    return _outlined(pixels.round().astype(np.uint8), outlines)


def _heat(
    result: Result, values: Tensor, stride: int, size: tuple[int, int], outlines: Sequence[Outline]
) -> NDArray[np.uint8]:
    """The picture in grey under colours that are opaque where the map is high."""
    from matplotlib import colormaps

    assert result.image is not None
    level = _at_picture(values, stride, size, result)
    low, high = np.quantile(level, [0.02, 0.995])
    level = np.clip((level - low) / max(high - low, _FLAT * level.mean()), 0, 1)
    opacity = (0.25 + 0.6 * level)[..., None]
    pixels = _grey(result.image) * (1 - opacity) + colormaps[COLOUR_MAP](level)[..., :3] * 255 * opacity
    return _outlined(pixels.round().astype(np.uint8), outlines)


def _outlines(things: Sequence[Thing], line: int) -> list[Outline]:
    """The outline of each thing, the surest last: its white rim, the coloured rim inside, and the colour."""
    found = []
    for thing in reversed(things):
        edge = eroded(thing.mask, line)
        found.append((thing.mask & ~edge, edge & ~eroded(edge, line), thing.colour))
    return found


def _outlined(pixels: NDArray[np.uint8], outlines: Sequence[Outline]) -> NDArray[np.uint8]:
    for rim, inside, colour in outlines:
        pixels[rim] = 255
        pixels[inside] = colour
    return pixels
