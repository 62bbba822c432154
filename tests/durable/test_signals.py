# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Requests to stop, and the lock of the work directory."""

import errno
import fcntl
import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from mmlightvit.durable import signals, work_dir_lock
from mmlightvit.durable.find import find_newest
from mmlightvit.durable.launch import init_distributed
from mmlightvit.durable.work_dir_lock import WorkDirLock
from mmlightvit.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / 'reliability'))

import forks
import runs


def test_a_signal_is_a_request_and_the_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with signals.graceful_stop(world_size=1):
        assert signals.requested() is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested() == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # no more than the first
    assert signals.requested() is None
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_second_ctrl_c_interrupts_at_once():
    with signals.graceful_stop(world_size=1):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


def test_a_rank_that_hangs_leaves_after_the_grace(tmp_path):
    def hang():
        with signals.graceful_stop(world_size=2, grace=0.3):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)

    begin = time.monotonic()
    assert forks.run(hang, tmp_path / 'out') == 143
    assert time.monotonic() - begin < 10
    assert 'did not end within' in (tmp_path / 'out').read_text()


def test_a_checkpoint_being_written_is_not_cut_off(tmp_path):
    def write():
        with signals.graceful_stop(world_size=2, grace=0.2):
            os.kill(os.getpid(), signal.SIGTERM)
            with signals.writing():
                time.sleep(1)
                (tmp_path / 'written').touch()
            time.sleep(30)

    assert forks.run(write, seconds=20) == 143
    assert (tmp_path / 'written').exists()


def test_the_watch_ends_though_a_forked_worker_holds_the_pipe():
    def train():
        with signals.graceful_stop(world_size=2):
            train.worker = forks.start(lambda: time.sleep(60))
        forks.kill_group(train.worker)

    assert forks.run(train, seconds=20) == 0


def test_a_worker_stays_until_the_training_is_over(tmp_path):
    def worker():
        signals.init_worker(None, 0)
        (tmp_path / 'ready').touch()
        time.sleep(60)

    with signals.graceful_stop(world_size=1):
        pid = forks.start(worker)
        forks.wait_until((tmp_path / 'ready').exists)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        time.sleep(0.2)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.kill(pid, signal.SIGTERM)
    assert forks.wait(pid, 10) == 0


def test_the_lock_excludes_another_process_and_ends_with_its_holder(tmp_path):
    def hold():
        lock = WorkDirLock(tmp_path)
        lock.acquire()
        (tmp_path / 'held').touch()
        time.sleep(60)

    pid = forks.start(hold)
    forks.wait_until((tmp_path / 'held').exists)
    lock = WorkDirLock(tmp_path)
    with pytest.raises(UserError, match=f'in use by process {pid} on '):
        lock.acquire()
    os.kill(pid, signal.SIGKILL)
    forks.wait(pid)
    lock.acquire()
    lock.release()


def test_a_missing_work_directory_is_said(tmp_path):
    with pytest.raises(UserError, match='cannot write to the work directory'):
        WorkDirLock(tmp_path / 'absent').acquire()


@pytest.mark.parametrize('number', [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, number):
    told = []
    monkeypatch.setattr(fcntl, 'flock', _refusing(number))
    monkeypatch.setattr(work_dir_lock, 'print_log', lambda text, logger, level: told.append((level, text)))
    lock = WorkDirLock(tmp_path)
    lock.acquire()
    lock.release()
    [(level, text)] = told
    assert level == logging.WARNING
    assert f'{tmp_path} knows no locks' in text


@pytest.mark.parametrize(
    ('number', 'words'), [(errno.EACCES, 'in use by another process'), (errno.EIO, 'cannot lock the work directory')]
)
def test_other_refusals_of_the_lock_end_the_run(tmp_path, monkeypatch, number, words):
    monkeypatch.setattr(fcntl, 'flock', _refusing(number))
    with pytest.raises(UserError, match=words):
        WorkDirLock(tmp_path).acquire()


def _refusing(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


class _SignalInValidation(Hook):
    """Rank 1 alone gets the signal, after its second batch."""

    def after_val_iter(self, runner, batch_idx, *args, **kwargs):
        if runner.rank == 1 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def after_val_epoch(self, runner, *args, **kwargs):
        (Path(runner.work_dir) / 'validated').touch()


@pytest.mark.skipif(torch.cuda.is_available(), reason='gloo on the CPU is for machines without a GPU')
def test_ranks_leave_a_validation_together(tmp_path):
    work_dir = tmp_path / 'run'
    work_dir.mkdir()

    def work():
        init_distributed('pytorch', dict(backend='gloo'))
        # Thirteen samples: seven batches for rank 0 and six for rank 1.
        validation = dict(batch_size=1, dataset=dict(samples=13), sampler=dict(round_up=False))
        changes = dict(val_dataloader=validation, custom_hooks=[dict(type=_SignalInValidation)])
        runs.train(runs.config(work_dir, launcher='pytorch', train_dataloader__dataset__samples=12, **changes))

    pids = forks.start_ranks(work, 2, work_dir / 'out')
    codes = [forks.wait(pid, 120) for pid in pids]
    assert codes == [143, 143], (work_dir / 'out').read_text()[-3000:]
    assert not (work_dir / 'validated').exists()
    found = find_newest(work_dir)
    assert found.path is not None and found.path.name == 'interrupted_iter_2.pth'
