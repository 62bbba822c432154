# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Trainings of the three tasks, killed anywhere and resumed: the final weights, losses and metrics are the same."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import forks
import pytest
import runs
import tasks
from mmengine.runner import find_latest_checkpoint

from mmlightvit.durable.launch import init_distributed

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')
pytest.importorskip('mmseg')

#: (task, workers, processes, signal); at a random moment each.
MATRIX = [
    (task, workers, processes, number)
    for task in tasks.TASKS
    for workers, processes, number in (
        (0, 1, signal.SIGKILL),
        (2, 1, signal.SIGKILL),
        (0, 1, signal.SIGTERM),
        (2, 1, signal.SIGINT),
        (0, 2, signal.SIGKILL),
        (2, 2, signal.SIGTERM),
    )
] + [('classification', 2, 2, signal.SIGKILL), ('segmentation', 0, 2, signal.SIGTERM)]


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    import mmdet.datasets
    import mmdet.models
    import mmpretrain.datasets
    import mmpretrain.models
    import mmseg.datasets
    import mmseg.models

    # Imported here, so that each forked run finds them.
    assert mmdet.models and mmdet.datasets and mmpretrain.models and mmpretrain.datasets
    assert mmseg.models and mmseg.datasets
    folder = tmp_path_factory.mktemp('digits')
    tasks.prepare_data(folder)
    return folder


def _start(task: str, data: Path, work_dir: Path, workers: int, processes: int, stock: bool, **changes: Any) -> list:
    work_dir.mkdir(exist_ok=True)
    launcher = 'pytorch' if processes > 1 else 'none'

    def work() -> None:
        init_distributed(launcher, dict(backend='gloo'))
        runner = runs.train(tasks.config(task, data, work_dir, workers, launcher=launcher, **changes), stock)
        (work_dir / f'fingerprint{runner.rank}').write_text(runs.fingerprint(runner))

    if processes == 1:
        return [forks.start(work, work_dir / 'out')]
    return forks.start_ranks(work, processes, work_dir / 'out')


def _fingerprints(work_dir: Path) -> list[str]:
    return [path.read_text() for path in sorted(work_dir.glob('fingerprint*'))]


@pytest.fixture(scope='module')
def whole(data, tmp_path_factory):
    """Fingerprints and seconds of uninterrupted runs, made when first asked for; workers do not matter for them."""
    known: dict[tuple, tuple[list[str], float]] = {}

    def get(task: str, processes: int, stock: bool = False) -> tuple[list[str], float]:
        key = (task, processes, stock)
        if key not in known:
            work_dir = tmp_path_factory.mktemp('whole')
            begin = time.monotonic()
            codes = [forks.wait(pid, 600) for pid in _start(task, data, work_dir, 0, processes, stock)]
            assert codes == [0] * processes, (work_dir / 'out').read_text()[-3000:]
            known[key] = (_fingerprints(work_dir), time.monotonic() - begin)
        return known[key]

    return get


def _kill_and_resume(work_dir: Path, case: tuple, data: Path, seconds: float, stock: bool = False) -> list[str]:
    task, workers, processes, number = case
    pids = _start(task, data, work_dir, workers, processes, stock)
    # From the building of the model to the last epoch.
    time.sleep(seconds * random.Random(str(case)).uniform(0.2, 0.95))
    for pid in pids if number != signal.SIGKILL else pids[-1:]:
        forks.os.kill(pid, number)
    codes = [forks.wait(pid, 600) for pid in pids]
    assert all(forks.group_is_empty(pid) for pid in pids)
    if all(code == 0 for code in codes):
        assert _fingerprints(work_dir)  # it was faster than its end
    for path in work_dir.glob('fingerprint*'):
        path.unlink()
    if stock and find_latest_checkpoint(str(work_dir)) is None:
        return []
    resumed = _start(task, data, work_dir, workers, processes, stock, resume=True)
    codes = [forks.wait(pid, 600) for pid in resumed]
    assert codes == [0] * processes, (work_dir / 'out').read_text()[-3000:]
    return _fingerprints(work_dir)


@pytest.mark.slow
@pytest.mark.parametrize('case', MATRIX, ids=lambda case: '-'.join(map(str, case[:3])) + f'-{case[3].name}')
def test_the_resumed_run_ends_as_the_whole_one(tmp_path, data, whole, case, report):
    fingerprints, seconds = whole(case[0], case[2])
    assert _kill_and_resume(tmp_path / 'run', case, data, seconds) == fingerprints


@pytest.mark.slow
@pytest.mark.parametrize('task', tasks.TASKS)
def test_the_stock_run_does_not(tmp_path, data, whole, task):
    fingerprints, seconds = whole(task, 1, stock=True)
    # Late enough for a checkpoint, whose resumed run then differs.
    case = (task, 0, 1, signal.SIGKILL)
    pids = _start(task, data, tmp_path / 'run', 0, 1, True)
    while find_latest_checkpoint(str(tmp_path / 'run')) is None:
        time.sleep(0.05)
    time.sleep(seconds * 0.1)
    forks.os.kill(pids[0], case[3])
    forks.wait(pids[0])
    resumed = _start(task, data, tmp_path / 'run', 0, 1, True, resume=True)
    assert forks.wait(resumed[0], 600) == 0
    assert _fingerprints(tmp_path / 'run') != fingerprints
