# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Running a function in forked processes: the toolboxes, imported once, need not be imported again."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

from mmlightvit.durable import launch


def _in_rank(rank: int, world_size: int, port: int, results: str, function: Callable, args: tuple) -> None:
    # What third parties warn of at run time is not this test's matter; a warning would stop one rank only.
    warnings.simplefilter('ignore')
    if world_size > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(world_size),
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=str(port),
        )
    torch.save(function(*args), Path(results) / f'{rank}.pt')


def run_forked(processes: int, function: Callable, *args: Any, seconds: float = 120) -> list[Any]:
    """``function(*args)`` in each of some processes, with torchrun's environment.

    Returns:
        What each returned.

    Raises:
        TimeoutError: One has not ended in time; all are killed.
    """
    with tempfile.TemporaryDirectory() as results:
        ranks = torch.multiprocessing.start_processes(
            _in_rank,
            (processes, launch.free_port(), results, function, args),
            nprocs=processes,
            join=False,
            start_method='fork',
        )
        end = time.monotonic() + seconds
        while not ranks.join(1):
            if time.monotonic() > end:
                alive = [rank for rank, process in enumerate(ranks.processes) if process.is_alive()]
                for process in ranks.processes:
                    process.kill()
                raise TimeoutError(f'ranks {alive} of {processes} did not end within {seconds} s')
        return [torch.load(Path(results) / f'{rank}.pt', weights_only=True) for rank in range(processes)]
