# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Running a function in forked processes: the toolboxes, imported once, need not be imported again."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
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


def _program(path: str, arguments: tuple[str, ...], cwd: str) -> list[Any]:
    os.environ['CUDA_VISIBLE_DEVICES'] = ''  # no forked process can use a GPU
    os.chdir(cwd)
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(Path(path).resolve().parent))
    code: Any = 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as end:
            code = end.code or 0
            if isinstance(code, str):  # as the interpreter does
                print(code, file=sys.stderr)
                code = 1
        except Exception:
            traceback.print_exc()
            code = 1
    return [code, out.getvalue(), err.getvalue()]


def run_program(path: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    """A Python program as a process runs it, but forked: torch and the toolboxes are not imported again."""
    ((code, out, err),) = run_forked(1, _program, path, tuple(map(str, arguments)), str(cwd), seconds=280)
    return subprocess.CompletedProcess([path, *arguments], code, out, err)
