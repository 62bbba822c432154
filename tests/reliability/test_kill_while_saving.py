# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Processes killed while they save: how many leave a work directory without a checkpoint that loads."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import time
import zipfile
from pathlib import Path
from typing import Any

import forks
import pytest
import runs
import torch
from mmengine.hooks import CheckpointHook as StockCheckpointHook
from mmengine.runner import Runner as StockRunner
from mmengine.runner import find_latest_checkpoint

from mmlightvit.durable.find import find_newest
from mmlightvit.durable.runner import Runner
from mmlightvit.durable.safe_loading.read import read_checkpoint

BALLAST = 2_000_000  # parameters: a checkpoint of 8 MB, in the making for tens of milliseconds


def _runner(work_dir: Path, stock: bool) -> tuple[Any, StockCheckpointHook]:
    cfg = runs.config(
        work_dir,
        default_hooks__checkpoint__max_keep_ckpts=1,
        default_hooks__checkpoint__save_best=None,
        default_hooks__checkpoint__rule=None,
    )
    cfg.model.width = BALLAST
    cfg.custom_hooks = []
    runner = (StockRunner if stock else Runner).from_cfg(cfg)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    hook = next(hook for hook in runner.hooks if isinstance(hook, StockCheckpointHook))
    hook.before_train(runner)
    return runner, hook


def _save_forever(runner: Any, hook: StockCheckpointHook) -> None:
    for step in range(1, 10_000):
        runner.train_loop._epoch = step - 1
        runner.train_loop._iter = step * 5
        with torch.no_grad():
            runner.model.ballast.fill_(step)
        hook._save_checkpoint_with_step(runner, step, dict(epoch=step, iter=step * 5))


def _loads(path: str | Path) -> bool:
    try:
        checkpoint = torch.load(path, weights_only=False)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, KeyError):
        return False
    return bool((checkpoint['state_dict']['ballast'] == checkpoint['meta']['epoch']).all())


def _lost(work_dir: Path, kills: int, stock: bool) -> int:
    """Runs, of ``kills``, that ``--resume`` could not go on from."""
    work_dir.mkdir()
    runner, hook = _runner(work_dir, stock)
    rng = random.Random(1)
    lost = 0
    for _ in range(kills):
        for path in work_dir.glob('*.pth'):
            path.unlink()
        (work_dir / 'last_checkpoint').unlink(missing_ok=True)
        shutil.rmtree(work_dir / 'never', ignore_errors=True)
        pid = forks.start(lambda: _save_forever(runner, hook))
        forks.wait_until((work_dir / 'last_checkpoint').exists)  # one save is complete
        time.sleep(rng.random() * 0.2)
        os.kill(pid, signal.SIGKILL)
        assert forks.wait(pid) == -9
        if stock:
            latest = find_latest_checkpoint(str(work_dir))
            lost += not (latest and _loads(latest))
        else:
            found = find_newest(work_dir).path
            lost += not (found and _loads(found) and read_checkpoint(found)['meta']['epoch'] > 0)
    return lost


@pytest.mark.slow
def test_two_hundred_kills_lose_nothing(tmp_path, report):
    lost = _lost(tmp_path / 'run', 200, stock=False)
    report(kills_while_saving=200, without_checkpoint=lost)
    assert lost == 0


def test_some_kills_lose_nothing(tmp_path):
    assert _lost(tmp_path / 'run', 6, stock=False) == 0


@pytest.mark.slow
def test_stock_loses_checkpoints(tmp_path, report):
    lost = _lost(tmp_path / 'run', 60, stock=True)
    report(stock_kills_while_saving=60, stock_without_checkpoint=lost)
    assert lost > 0
