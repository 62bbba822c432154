# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""How fast the stem and each stage of a LightViT are, inside the running model (paper Figure 5a)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from steps import Case, make_step
from torch import nn

from mmlightvit.cost.counting import count
from mmlightvit.errors import UserError
from mmlightvit.models.backbones import LightViT


@dataclass(frozen=True)
class StageSpeed:
    """One part of a backbone.

    Attributes:
        name: ``'stem'`` or ``'stage 1'`` and so on.
        macs: Multiply-adds per image.
        seconds: Median time per image.
    """

    name: str
    macs: int
    seconds: float

    @property
    def throughput(self) -> float:
        """Images per second through this part alone."""
        return 1 / self.seconds

    @property
    def efficiency(self) -> float:
        """Multiply-adds per second."""
        return self.macs / self.seconds


def measure_stages(backbone: nn.Module, case: Case, rounds: int = 15) -> list[StageSpeed]:
    """Speed of the stem and of each stage inside an eager forward pass.

    Args:
        backbone: A ``LightViT`` that is not compiled; it is moved and cast in place.
        case: Its device, dtype, batch and size are used.
        rounds: Forward passes that are timed, >= 1, after two that are not; the median counts.

    Raises:
        UserError: The model is another one.
    """
    if not isinstance(backbone, LightViT):
        raise UserError(f'stages: expected a LightViT, got a {type(backbone).__name__}')
    case = replace(case, form='eager', mode='inference')
    counted = count(backbone, (case.height, case.width))
    names = {'patch_embed': 'stem'} | {f'stages.{i}': f'stage {i + 1}' for i in range(len(backbone.stages))}
    starts: dict[str, float] = {}
    times: dict[str, list[float]] = {name: [] for name in names}

    def enter(name: str) -> None:
        case.sync()
        starts[name] = time.perf_counter()

    def leave(name: str) -> None:
        case.sync()
        times[name].append(time.perf_counter() - starts[name])

    handles = []
    for name in names:
        part = backbone.get_submodule(name)
        handles.append(part.register_forward_pre_hook(lambda *_, name=name: enter(name)))
        handles.append(part.register_forward_hook(lambda *_, name=name: leave(name)))
    try:
        step = make_step(backbone, case)
        for _ in range(rounds + 2):
            step()
    finally:
        for handle in handles:
            handle.remove()
    return [
        StageSpeed(label, counted.module(name).macs, statistics.median(times[name][2:]) / case.batch)
        for name, label in names.items()
    ]


def stage_cells(parts: Sequence[StageSpeed]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Headers and rows of their table."""
    headers = ('part', 'multiply_adds', 'seconds_per_image', 'images_per_second', 'multiply_adds_per_second')
    return headers, [
        [p.name, str(p.macs), f'{p.seconds:.6g}', f'{p.throughput:.6g}', f'{p.efficiency:.6g}'] for p in parts
    ]
