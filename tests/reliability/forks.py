# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Runs in forked processes, so that the toolboxes are imported once and a run can be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path


def start(work: Callable[[], object], output: Path | None = None) -> int:
    """Fork a process in its own group that does ``work``; its exit code is 1 after an exception.

    Args:
        work: What to do.
        output: File for what it prints; None for nowhere.

    Returns:
        Its process id.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        target = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, 1)
        os.dup2(target, 2)
        # pytest has put objects of its own in the place of these two.
        sys.stdout = os.fdopen(1, 'w', closefd=False)
        sys.stderr = os.fdopen(2, 'w', closefd=False)
        # A run's third-party warnings (DDP's about strides) are not the tests'.
        warnings.simplefilter('ignore')
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Look every few milliseconds, until ``condition()`` holds or the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f'still waiting after {seconds} s')
        time.sleep(0.002)


def wait(pid: int, seconds: float = 120) -> int:
    """The exit code of a process; minus the signal that ended it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    kill_group(pid)
    os.waitpid(pid, 0)
    raise TimeoutError(f'process {pid} did not end within {seconds} s')


def kill_group(pid: int) -> None:
    """Kill a process and its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def group_is_empty(pid: int, seconds: float = 10) -> bool:
    """Whether no process of the group is left, zombies that nobody reaps aside, or none is after some time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(_group_of(entry) == pid for entry in Path('/proc').iterdir() if entry.name.isdigit()):
            return True
        time.sleep(0.1)
    return False


def _group_of(process: Path) -> int | None:
    try:
        fields = (process / 'stat').read_text().rpartition(')')[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[2]) if fields[0] != 'Z' else None


def run(work: Callable[[], object], output: Path | None = None, seconds: float = 120) -> int:
    """Fork, do ``work``, and give the exit code."""
    return wait(start(work, output), seconds)


def start_ranks(work: Callable[[], object], processes: int, output: Path | None = None) -> list[int]:
    """Fork the ranks of one job; ``work`` finds torchrun's variables in its environment."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]

    def rank_work(rank: int) -> None:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(processes),
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=str(port),
            MKL_NUM_THREADS='1',
        )
        work()

    return [start(lambda rank=rank: rank_work(rank), output) for rank in range(processes)]
