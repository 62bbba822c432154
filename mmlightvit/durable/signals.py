# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM end a run between two iterations, with a checkpoint."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

#: Seconds after the signal in which an iteration has to end if there are other ranks, one of which may be dead.
#: Well below torchrun's 30, after which it kills.
GRACE_SECONDS = 15.0
_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
_END = b'\0'  # no signal has this number

_signal: int | None = None
_boundary = threading.Event()
_writing = threading.Event()
#: One byte shared with forked workers: whether the training is over, and SIGTERM comes from the main process's exit.
_over: mmap.mmap | None = None


class Stopped(SystemExit):
    """The run ended on a signal after saving; the exit code is the shell's for it, 130 or 143."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class ValidationStopped(Exception):
    """Leaves the validation loop when a stop is asked for."""


def requested() -> int | None:
    """The signal that asked this process to stop, if one did."""
    return _signal


def reached_boundary() -> None:
    """Say that the iteration has ended in time: the run is not cut off any more."""
    _boundary.set()


@contextmanager
def writing() -> Iterator[None]:
    """A ``with`` block that writes a checkpoint: the run is not cut off in it, however long it takes."""
    _writing.set()
    try:
        yield
    finally:
        _writing.clear()


@contextmanager
def graceful_stop(world_size: int, grace: float = GRACE_SECONDS) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into requests, for the time of a ``with`` block in the main thread.

    A second Ctrl-C interrupts at once. With several ranks, one that does not get to the end of its step (it may wait
    for a dead one) leaves after ``grace`` seconds, without saving; not while it writes a checkpoint.

    Args:
        world_size: Number of ranks.
        grace: Seconds.
    """
    global _signal, _over  # noqa: PLW0603 - signals belong to the process
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        global _signal  # noqa: PLW0603
        if os.getpid() != owner:  # forked, and about to say itself what it does with signals
            return
        if _signal is not None:
            if number == signal.SIGINT and _signal == signal.SIGINT:
                signal.default_int_handler(number, frame)
            return
        _signal = number
        name = signal.Signals(number).name
        again = '; press Ctrl-C again to stop at once' if number == signal.SIGINT else ''
        # Not through logging or print, in the middle of which the signal may have come.
        os.write(2, f'{name}: saving a checkpoint at the end of this iteration{again}\n'.encode())

    _boundary.clear()
    over = _over = mmap.mmap(-1, 1)
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _watch(grace) if world_size > 1 else nullcontext():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _signal = None
        # From here on workers may be ended; multiprocessing waits for them when the interpreter exits.
        over[0] = 1


@contextmanager
def _watch(grace: float) -> Iterator[None]:
    """Leave the process if the iteration does not end in time after a signal.

    Python's handlers run in the main thread alone, which a collective call with a dead rank never gives back. What the
    interpreter does at once is to write the signal's number to a file descriptor, on which a thread waits.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        while (byte := os.read(reading, 1)) != _END:
            if byte[0] in (signal.SIGINT, signal.SIGTERM):
                while not _boundary.wait(grace):
                    if _writing.is_set():
                        continue
                    told = f'the iteration did not end within {grace:.0f} s of the signal: leaving without saving\n'
                    os.write(2, told.encode())
                    os._exit(128 + byte[0])
                return

    watcher = threading.Thread(target=watch, name='grace', daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        _boundary.set()
        # Closing would not wake the watcher: forked workers hold the writing end as well.
        os.write(writing, _END)
        watcher.join()
        os.close(writing)
        os.close(reading)


def init_worker(inner: Callable[[int], None] | None, worker_id: int) -> None:
    """Start of a data loader's worker: the main process decides when it ends.

    Ctrl-C, and the signals of batch systems, go to all processes of a group; a worker that obeyed would fail the
    iteration that is being finished. A worker ends with its main process: left alone, it would keep the connections
    to other ranks open, which then would not notice that their partner is gone.

    Args:
        inner: The configured ``worker_init_fn``.
        worker_id: Number of the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    over = _over
    if over is not None:  # in a forked worker of a training

        def terminate(number: int, frame: FrameType | None) -> None:
            if over[0]:
                os._exit(0)

        signal.signal(signal.SIGTERM, terminate)
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if inner is not None:
        inner(worker_id)
