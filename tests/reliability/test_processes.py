# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Ranks, workers, signals and the lock of the work directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forks
import pytest
import runs

from mmlightvit.durable.find import find_newest
from mmlightvit.durable.launch import init_distributed

LONG = dict(train_cfg__max_epochs=2000, default_hooks__checkpoint__interval=1000)


def _start(work_dir: Path, **changes):
    work_dir.mkdir(exist_ok=True)
    return forks.start(lambda: runs.train(runs.config(work_dir, **changes)), work_dir / 'out')


def _wait_for_iterations(work_dir: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not runs.logged(work_dir):
        assert time.monotonic() < end, (work_dir / 'out').read_text()[-3000:]
        time.sleep(0.02)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_saves_and_leaves_nobody(tmp_path, number):
    pid = _start(tmp_path / 'run', workers=2, **LONG)
    _wait_for_iterations(tmp_path / 'run')
    os.killpg(pid, number)  # as a terminal's Ctrl-C and batch systems do: workers included
    assert forks.wait(pid, 60) == 128 + number
    assert forks.group_is_empty(pid)
    found = find_newest(tmp_path / 'run')
    assert found.path is not None and found.path.name.startswith('interrupted_iter_')
    assert found.skipped == []


def test_the_workers_of_a_killed_run_end(tmp_path):
    pid = _start(tmp_path / 'run', workers=2, **LONG)
    _wait_for_iterations(tmp_path / 'run')
    os.kill(pid, signal.SIGKILL)
    assert forks.wait(pid) == -9
    assert forks.group_is_empty(pid, 15)


def test_the_second_run_in_a_work_directory_is_refused(tmp_path):
    pid = _start(tmp_path / 'run', **LONG)
    _wait_for_iterations(tmp_path / 'run')
    stray = tmp_path / 'run' / '.epoch_1.pth.x.incomplete'
    stray.write_bytes(b'being written by the first run')
    second = _start(tmp_path / 'run', **LONG)
    assert forks.wait(second, 60) == 1
    assert f'is in use by process {pid}' in (tmp_path / 'run' / 'out').read_text()
    assert stray.exists()
    os.kill(pid, signal.SIGKILL)
    forks.wait(pid)
    # The kernel has released the lock, and what the killed run left half-written is cleared.
    third = _start(tmp_path / 'run', train_cfg__max_epochs=1)
    assert forks.wait(third, 60) == 0, (tmp_path / 'run' / 'out').read_text()[-3000:]
    assert not stray.exists()


def test_all_ranks_skip_the_bad_step_of_one_and_stop_with_its_files(tmp_path):
    work_dir = tmp_path / 'run'
    work_dir.mkdir()

    def work() -> None:
        init_distributed('pytorch', dict(backend='gloo'))
        # Of 12 samples in order, rank 1 has the odd ones: it alone meets the bad ones, one in each of its two batches.
        cfg = runs.config(
            work_dir,
            launcher='pytorch',
            log_level='WARNING',
            train_dataloader__dataset__samples=12,
            train_dataloader__dataset__bad=(3, 9),
            train_dataloader__sampler__shuffle=False,
            optim_wrapper__max_skipped=2,
        )
        runs.train(cfg)

    pids = forks.start_ranks(work, 2, work_dir / 'out')
    codes = [forks.wait(pid, 120) for pid in pids]
    output = (work_dir / 'out').read_text()
    assert codes == [1, 1], output
    assert '1 in a row, 2 end the run); files of the batch: images/001.png, images/003.png' in output
    assert 'NonFiniteError' in output and '2 in a row, 2 end the run); files of the batch: ' in output
    assert 'images/009.png' in output


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_within_thirty_seconds(tmp_path, report, repo):
    script = tmp_path / 'train.py'
    script.write_text(
        f"""
import os, sys
sys.path[:0] = [{str(repo)!r}, {str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
import runs
from mmlightvit.durable.launch import init_distributed
init_distributed('pytorch', dict(backend='gloo'))
open(f'{tmp_path}/pid' + os.environ['RANK'], 'w').write(str(os.getpid()))
runs.train(runs.config({str(tmp_path / 'run')!r}, launcher='pytorch', workers=2, train_cfg__max_epochs=2000))
"""
    )
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', str(script)]
    with open(tmp_path / 'out', 'w') as output:
        job = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=output)
    try:
        (tmp_path / 'run').mkdir()
        _wait_for_iterations_of_job(tmp_path)
        os.kill(int((tmp_path / 'pid1').read_text()), signal.SIGKILL)
        begin = time.monotonic()
        code = job.wait(60)
        seconds = time.monotonic() - begin
        assert code != 0
        assert forks.group_is_empty(job.pid, 15)
        total = time.monotonic() - begin
        report(killed_rank_job_seconds=round(seconds, 1), killed_rank_last_process_seconds=round(total, 1))
        assert seconds < 30
    finally:
        forks.kill_group(job.pid)


def _wait_for_iterations_of_job(folder: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not runs.logged(folder / 'run'):
        assert time.monotonic() < end, (folder / 'out').read_text()[-3000:]
        time.sleep(0.1)


def test_a_failing_run_with_workers_exits(tmp_path, repo):
    """The interpreter waits for its workers at the end, so they must not ignore it then."""
    script = tmp_path / 'train.py'
    script.write_text(
        f"""
import sys
sys.path[:0] = [{str(repo)!r}, {str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
import runs
runs.train(runs.config({str(tmp_path / 'run')!r}, workers=2, train_dataloader__dataset__bad=(0, 1, 2, 3, 4, 5, 6, 7),
                       optim_wrapper__max_skipped=1))
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert 'NonFiniteError' in done.stderr
