# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Steps timed against each other so that the ratio can be believed on a machine that is not quiet.

They take turns, round by round and in both directions, so each round gives one ratio: what slows the machine down
slows all. Reported are the median ratio and a bootstrap interval of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mmlightvit.errors import UserError

Step = Callable[[], Any]


class Lap(NamedTuple):
    """Seconds of one step: by the clock, and of the processor, all threads of the process together."""

    wall: float
    processor: float


def time_of(step: Step, repeats: int = 1, sync: Step = lambda: None) -> Lap:
    """The time of a step, the mean of some in a row.

    Args:
        step: The step.
        repeats: Steps in a row, >= 1.
        sync: Waits until the device has done what it was given.
    """
    sync()
    start, processor_start = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        step()
    sync()
    return Lap((time.perf_counter() - start) / repeats, (time.process_time() - processor_start) / repeats)


def take_turns(
    steps: Mapping[str, Step],
    rounds: int,
    seconds: float = 0.0,
    rest: float = 0.0,
    sync: Step = lambda: None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, list[Lap]]:
    """Time steps in turns, one lap per round, each after a step that is not timed.

    Args:
        steps: Name to step.
        rounds: Rounds, >= 1.
        seconds: About how long a step is repeated in each round; 0: once.
        rest: Seconds of sleep before each turn.
        sync: Waits until the device has done what it was given.
        progress: Takes a line after each round.

    Raises:
        UserError: There is no round.
    """
    if rounds < 1:
        raise UserError(f'rounds: expected at least 1, got {rounds}')
    repeats = {}
    for name, step in steps.items():
        step()
        repeats[name] = max(1, int(seconds / time_of(step, sync=sync).wall)) if seconds else 1
    laps: dict[str, list[Lap]] = {name: [] for name in steps}
    for turn in range(rounds):
        for name in list(steps)[:: -1 if turn % 2 else 1]:
            time.sleep(rest)
            laps[name].append(time_of(steps[name], repeats[name], sync))
        progress(f'round {turn + 1} of {rounds}')
    return laps


def bootstrap_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the median, with a fixed seed; of ratios of a round, it pairs.

    Args:
        values: The sample, at least one value.
        level: Confidence level in (0, 1).
    """
    from scipy.stats import bootstrap

    if len(set(values)) == 1:
        return values[0], values[0]
    interval = bootstrap(
        (values,), np.median, confidence_level=level, n_resamples=2000, method='percentile', rng=0
    ).confidence_interval
    return float(interval.low), float(interval.high)


def environment(device: str) -> str:
    """Hardware, versions and threads, in one line."""
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        cpuinfo = Path('/proc/cpuinfo')
        lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
        models = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
        name = f'{models[0] if models else "CPU"}, {torch.get_num_threads()} threads'
    return f'{name}; torch {torch.__version__}, Python {sys.version.split()[0]}'
