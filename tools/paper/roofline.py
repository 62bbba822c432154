# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The time that a machine needs at least for a forward pass, and the share of its rates that a model reaches."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from steps import DTYPES, Case, Timing
from torch import nn

from mmlightvit.cost.counting import count
from mmlightvit.cost.timing import time_of


@dataclass(frozen=True)
class Machine:
    """Rates of the machine, measured in the same run.

    Attributes:
        bytes_per_second: Of copying a large tensor, reads and writes counted.
        flops_per_second: Of a large matrix product, two per multiply-add.
    """

    bytes_per_second: float
    flops_per_second: float

    @classmethod
    @functools.cache
    def measure(cls, device: str, dtype: str, processor_time: bool = False) -> Machine:
        """Measure once with a device and type, named as in a case: the best of five."""
        case = Case(device=device, dtype=dtype)
        large = torch.device(device).type == 'cuda'
        source = torch.ones((1 << 28 if large else 1 << 25), device=device)
        target, side = torch.empty_like(source), 8192 if large else 1024
        a = torch.randn(side, side, device=device, dtype=DTYPES[dtype])
        copying, product = (
            min(time_of(step, sync=case.sync)[processor_time] for _ in range(5))
            for step in (lambda: target.copy_(source), lambda: a @ a)
        )
        return cls(2 * source.numel() * source.element_size() / copying, 2 * side**3 / product)

    def floor(self, macs: int, num_bytes: int) -> float:
        """Seconds that so many multiply-adds and bytes take at least."""
        return max(2 * macs / self.flops_per_second, num_bytes / self.bytes_per_second)


def floor_line(model: nn.Module, timing: Timing, machine: Machine) -> str:
    """The share of the roofline that a forward pass of a model reaches, in a sentence."""
    case = timing.case
    rates = f'copy {machine.bytes_per_second / 1e9:.1f} GB/s, matmul {machine.flops_per_second / 1e9:.0f} GFLOP/s'
    if case.mode == 'training':
        return f'{case}: {rates}; the roofline is counted for inference only'
    counted = count(model, (case.height, case.width), DTYPES[case.dtype])
    weights = sum(p.numel() for p in model.parameters()) * DTYPES[case.dtype].itemsize
    per_image = max(counted.bytes - weights, 0)
    floor = machine.floor(case.batch * counted.macs, weights + case.batch * per_image)
    return (
        f'{case}: {counted.macs / 1e9:.3f} G multiply-adds per image, {weights / 1e6:.0f} MB of weights, and '
        f'{per_image / 1e6:.0f} MB that our operators read and write per image; {rates}: '
        f'floor {1e3 * floor:.2f} ms, reached {100 * floor / timing.median:.0f} %'
    )
