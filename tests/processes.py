# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Running a function in forked processes: the toolboxes, imported once, need not be imported again."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

from mmlightvit.engine import launch


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


def run_forked(processes: int, function: Callable, *args: Any) -> list[Any]:
    """``function(*args)`` in each of some processes, with torchrun's environment; returns what each returned."""
    with tempfile.TemporaryDirectory() as results:
        torch.multiprocessing.start_processes(
            _in_rank,
            (processes, launch.free_port(), results, function, args),
            nprocs=processes,
            start_method='fork',
        )
        return [torch.load(Path(results) / f'{rank}.pt', weights_only=True) for rank in range(processes)]
