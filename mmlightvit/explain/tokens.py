# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Which global token serves which object: what the tokens gather, and to whom they deliver it, beside what was found.

A token serves an object where the object's pixels take more of their answer from it than the picture's pixels do on
average (the ratio is the *lift*). Shown is the block whose tokens tell objects from the rest best, and of its tokens
those that differ; several often do the same work.
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
from mmlightvit.explain.attention import BlockMaps, collect_maps, find_backbone, to_pixels
from mmlightvit.inference.model import Model
from mmlightvit.inference.outputs import Writer
from mmlightvit.inference.preprocess import prepare
from mmlightvit.pictures.colours import AMBER, BLUE, PINK, VERMILION, Colour, colour_of
from mmlightvit.pictures.drawing import Canvas, eroded, write_picture
from mmlightvit.pictures.result import Result

#: Sequential, legible in print and for every kind of colour vision.
COLOUR_MAP = 'inferno'
_OBJECTS, _TOKENS = 6, 3
_GAP, _LINE, _HEAD = 16, 34, 56
#: Pixels of the longer side of the two large pictures.
_PANEL = 560
#: Two tokens whose maps correlate so much are alike, and one is shown.
_ALIKE = 0.95
#: A map that varies by less than this share of its mean is as good as even, and is not stretched to look uneven.
_FLAT = 0.02
_PAPER, _INK, _PALE = (255, 255, 255), (25, 25, 25), (100, 100, 100)


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
        tokens: The tokens to show, counted from 0: that of the surest thing first, then those that differ most.
        alike: Of each of these, the others that do the same.
    """

    maps: BlockMaps
    lift: NDArray[np.float64]
    gathered: NDArray[np.float64]
    tokens: list[int]
    alike: list[list[int]]


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
        found = [name for name, _, _ in result.shares()[:_OBJECTS]]
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
    # Without things, the token that gathers from the fewest places.
    spread = -(aggregation * (aggregation + 1e-12).log()).sum((1, 2))
    tokens, alike = _different(broadcast, int(lift[0].argmax()) if len(things) else int(spread.argmin()))
    return Service(maps, lift, gathered, tokens, alike)


def _different(broadcast: Tensor, first: int) -> tuple[list[int], list[list[int]]]:
    """A token and those that deliver elsewhere, each the least like those before it; and which others are like each."""
    varied = broadcast.flatten(1) - broadcast.flatten(1).mean(1, keepdim=True)
    varied = F.normalize(varied, dim=1, eps=1e-9)  # a token that delivers to all alike is like no other
    likeness = (varied @ varied.T).fill_diagonal_(1).numpy()
    tokens = [first]
    while len(tokens) < _TOKENS:
        most = likeness[tokens].max(axis=0)
        if most.min() > _ALIKE:
            break
        tokens.append(int(most.argmin()))
    nearest = likeness[tokens].argmax(axis=0)
    others = [token for token in range(len(broadcast)) if token not in tokens]
    return tokens, [
        [token for token in others if nearest[token] == rank and likeness[tokens[rank], token] > _ALIKE]
        for rank in range(len(tokens))
    ]


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
    """What was found, who is served by which token, each token's sources and customers; below, the numbers."""
    ratio = result.height / result.width
    large = min(_PANEL, round(_PANEL / ratio)), min(_PANEL, round(_PANEL * ratio))
    small_height = (large[1] - _LINE) // 2
    small = max(190, round(small_height / ratio)), small_height
    tokens, top = len(service.tokens), _HEAD + _LINE
    width = 2 * large[0] + tokens * small[0] + (tokens + 3) * _GAP
    height = top + large[1] + (len(things) + 1) * _LINE * bool(things) + 2 * _GAP
    page = Canvas(np.full((height, width, 3), _PAPER, np.uint8))
    m, rim = service.maps, _rims(things, max(1, round(max(result.height, result.width) / 250)))
    page.text(_headline(things, service), (_GAP, 12), _INK, 28)
    page.text('found', (_GAP, _HEAD + 4), _INK, 20)
    page.paste(result.draw(legible=True), (_GAP, top), large)
    left = 2 * _GAP + large[0]
    where = f'{PurePath(result.path).name}, ' if result.path else ''
    page.text(f'served most by   ({where}stage {m.stage}, block {m.block})', (left, _HEAD + 4), _INK, 20)
    page.paste(_served(result, rim, service, size), (left, top), large)
    for rank, (token, alike) in enumerate(zip(service.tokens, service.alike)):
        left = 3 * _GAP + 2 * large[0] + rank * (small[0] + _GAP)
        end = page.chip(f'token {token + 1}', (left, _HEAD + 2), _token_colour(rank), 20)
        if alike:
            page.text(f'  like {", ".join(str(other + 1) for other in alike)}', (end, _HEAD + 4), _PALE, 18)
        shape = min(small[0], round(small_height / ratio)), small_height
        for values, above in ((m.aggregation, top), (m.broadcast, top + small_height + _LINE)):
            page.paste(_heat(result, values.mean(0)[token], m.stride, size, rim), (left, above), shape)
        page.text('gathers above, delivers below', (left, top + small_height + 7), _PALE, 16)
    top += large[1] + _GAP // 2
    if things:
        text = 'times as much from the token as an average pixel; in brackets the share of what the token gathers'
        page.text(f'Each object takes so many {text} that comes from it.', (_GAP, top + 4), _PALE, 18)
    for index, thing in enumerate(things):
        top += _LINE
        end = max(page.chip(thing.name, (_GAP, top), thing.colour, 20) + 20, _GAP + 230)
        for rank, token in enumerate(service.tokens):
            end = page.chip(f'token {token + 1}', (end, top), _token_colour(rank), 20) + 8
            numbers = f'{service.lift[index, token]:.1f} x ({service.gathered[index, token]:.0%})'
            end = page.text(numbers, (end, top + 2), _INK, 20) + 30
    return page.pixels()


def _headline(things: Sequence[Thing], service: Service) -> str:
    if not things:
        return 'What the global tokens gather, and to whom they deliver it'
    token = service.tokens[0]
    return (
        f'Token {token + 1} serves the {things[0].name.rpartition(" ")[0] or things[0].name}: it takes '
        f'{service.lift[0, token]:.1f} times as much from it as an average pixel'
    )


def _token_colour(rank: int) -> Colour:
    return (VERMILION, BLUE, AMBER, PINK)[rank % 4]


def _grey(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    return image.mean(axis=2, keepdims=True).repeat(3, axis=2)


def _at_picture(values: Tensor, stride: int, size: tuple[int, int], result: Result) -> NDArray[np.float64]:
    """A map of tokens at the size of the picture."""
    grown = to_pixels(values.float().cpu(), stride, size)
    return F.interpolate(grown[None, None], (result.height, result.width), mode='bilinear')[0, 0].double().numpy()


def _served(result: Result, rim: NDArray[np.bool_], service: Service, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Each pixel in the colour of the shown token that serves it most, the stronger the more."""
    assert result.image is not None
    broadcast = service.maps.broadcast.mean(0)
    values = np.stack([_at_picture(broadcast[token], service.maps.stride, size, result) for token in service.tokens])
    lift = values / values.mean(axis=(1, 2), keepdims=True)
    # Each token against its own best, since a token of the background is everywhere a little stronger than average.
    most = np.maximum(np.quantile(lift, 0.95, axis=(1, 2), keepdims=True) - 1, _FLAT)
    strength = ((lift - 1) / most).clip(0, 1)
    colours = np.array([_token_colour(rank) for rank in range(len(service.tokens))], np.float64)
    opacity = 0.7 * strength.max(axis=0)[..., None]
    pixels = _grey(result.image) * (1 - opacity) + colours[strength.argmax(axis=0)] * opacity
    return _rimmed(pixels, rim)


def _heat(
    result: Result, values: Tensor, stride: int, size: tuple[int, int], rim: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """The picture in grey under colours that are opaque where the map is high."""
    from matplotlib import colormaps

    assert result.image is not None
    level = _at_picture(values, stride, size, result)
    low, high = np.quantile(level, [0.02, 0.995])
    level = np.clip((level - low) / max(high - low, _FLAT * level.mean()), 0, 1)
    opacity = (0.25 + 0.6 * level)[..., None]
    pixels = _grey(result.image) * (1 - opacity) + colormaps[COLOUR_MAP](level)[..., :3] * 255 * opacity
    return _rimmed(pixels, rim)


def _rims(things: Sequence[Thing], line: int) -> NDArray[np.bool_]:
    """The outlines of all things; (0, 0) large where there is none."""
    rims = [thing.mask & ~eroded(thing.mask, line) for thing in things]
    return np.any(rims, axis=0) if rims else np.zeros((0, 0), bool)


def _rimmed(pixels: NDArray[np.float64], rim: NDArray[np.bool_]) -> NDArray[np.uint8]:
    out = pixels.round().astype(np.uint8)
    if rim.size:
        out[rim] = 255
    return out
