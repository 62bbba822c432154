# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Early stopping: what counts as progress, and that a run that was killed inside the patience ends as the other."""

from __future__ import annotations

import csv
import math
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub

from mmlightvit.durable.early_stopping import EarlyStoppingHook
from mmlightvit.durable.find import find_newest
from mmlightvit.durable.launch import init_distributed
from mmlightvit.durable.safe_loading.read import read_checkpoint
from mmlightvit.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / 'reliability'))

import forks
import runs

SCORES = (0.1, 0.3, 0.3004, 0.29, 0.3001, 0.9)


class _Scripted(BaseMetric):
    """The scores above, one for each epoch of ``batches``; in validation ``killed_at`` the process dies."""

    def __init__(self, batches: int, killed_at: int = 0) -> None:
        super().__init__()
        self.batches, self.killed_at = batches, killed_at

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict[str, float]:
        number = (MessageHub.get_current_instance().get_info('iter') + 1) // self.batches
        if number == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return dict(score=SCORES[number - 1])


def _run(folder: Path, ranks: int = 1, killed_at: int = 0, monitor: str = 'score', **changes: Any) -> list[int]:
    def work() -> None:
        if ranks > 1:
            init_distributed('pytorch', dict(backend='gloo'))
        cfg = runs.config(
            folder,
            train_cfg__max_epochs=6,
            val_evaluator=dict(type=_Scripted, batches=5 if ranks == 1 else 2, killed_at=killed_at),
            train_dataloader__dataset__samples=14 if ranks == 1 else 12,
            custom_hooks=[dict(type='mmlightvit.EarlyStoppingHook', monitor=monitor, patience=3, min_delta=0.0005)],
            default_hooks__results=dict(type='mmlightvit.ResultsHook'),
            launcher='none' if ranks == 1 else 'pytorch',
            log_level='INFO',
            **changes,
        )
        runner = runs.train(cfg)
        (folder / f'stopped_{runner.rank}').write_text(str(runner.epoch))

    folder.mkdir(exist_ok=True)
    if ranks == 1:
        return [forks.run(work, folder / 'out')]
    return [forks.wait(pid) for pid in forks.start_ranks(work, ranks, folder / 'out')]


@pytest.mark.parametrize('killed_at', [3, 4])
def test_a_run_killed_inside_the_patience_stops_at_the_same_validation(tmp_path: Path, killed_at: int) -> None:
    assert _run(tmp_path / 'cut', killed_at=killed_at) == [-9]
    assert _run(tmp_path / 'cut', resume=True) == [0], (tmp_path / 'cut' / 'out').read_text()[-2000:]
    assert (tmp_path / 'cut' / 'stopped_0').read_text() == '5'
    told = (tmp_path / 'cut' / 'out').read_text()
    assert 'no better score than 0.3 (epoch 2) in 3 validations: stopped' in told
    # The score rose once more by less than min_delta: the best checkpoint is by the score, the end by progress.
    assert os.readlink(tmp_path / 'cut' / 'best.pth') == 'best_score_epoch_3.pth'
    assert os.readlink(tmp_path / 'cut' / 'last.pth') == 'epoch_5.pth'
    assert find_newest(tmp_path / 'cut').path == tmp_path / 'cut' / 'epoch_5.pth'
    assert read_checkpoint(tmp_path / 'cut' / 'last.pth')['meta']['epoch'] == 5
    # A row for each validation, none twice.
    rows = list(csv.DictReader((tmp_path / 'cut' / 'results.csv').read_text().splitlines()))
    assert [int(row['iter']) for row in rows] == [5, 10, 15, 20, 25]
    assert [float(row['score']) for row in rows] == list(SCORES[:5])
    assert all(float(row['loss']) > 0 and float(row['lr']) > 0 for row in rows)
    # Resumed once more, it has ended.
    (tmp_path / 'cut' / 'stopped_0').unlink()
    assert _run(tmp_path / 'cut', resume=True) == [0]
    assert (tmp_path / 'cut' / 'stopped_0').read_text() == '5'


def test_all_ranks_stop_at_once(tmp_path: Path) -> None:
    assert _run(tmp_path / 'run', ranks=2) == [0, 0], (tmp_path / 'run' / 'out').read_text()[-2000:]
    assert [(tmp_path / 'run' / f'stopped_{rank}').read_text() for rank in (0, 1)] == ['5', '5']


def test_a_metric_that_is_missing_is_an_error_at_the_first_validation(tmp_path: Path) -> None:
    assert _run(tmp_path / 'run', monitor='scores') == [1]
    told = (tmp_path / 'run' / 'out').read_text()
    assert "monitor='scores': the validation has no such metric; nearest: score; it has score" in told
    assert not (tmp_path / 'run' / 'epoch_2.pth').exists()


def test_save_best_of_a_metric_that_is_missing_is_a_warning_and_the_run_goes_on(tmp_path: Path) -> None:
    changes = dict(default_hooks__checkpoint__save_best='mean_score')
    assert _run(tmp_path / 'run', **changes) == [0]
    told = (tmp_path / 'run' / 'out').read_text()
    assert told.count("save_best='mean_score': the validation has no such metric; nearest: score; it has score") == 1
    assert not list((tmp_path / 'run').glob('best*'))


def _stopped_after(scores: list[float], monitor: str = 'coco/bbox_mAP', **kwargs: Any) -> int | None:
    hook = EarlyStoppingHook(monitor, **kwargs)
    loop = SimpleNamespace(stop_training=False)
    hub = MessageHub('early_stopping_test')
    runner: Any = SimpleNamespace(
        message_hub=hub, train_loop=loop, epoch=1, iter=1, logger=SimpleNamespace(info=lambda text: None)
    )
    for number, score in enumerate(scores, 1):
        hook.after_val_epoch(runner, {monitor: score})
        if loop.stop_training:
            return number
    return None


@pytest.mark.parametrize(
    ('scores', 'rule', 'expected'),
    [
        ([0.1, 0.2, 0.3, 0.4], 'greater', None),
        ([0.4, 0.3, 0.2], 'greater', 3),
        ([0.4, 0.3, 0.2], 'less', None),
        ([0.4, 0.41, 0.41, 0.41], 'greater', 3),  # steps of min_delta are no progress
        ([-1, -1, 0.2], 'greater', 2),  # undefined
        ([-1, 0.0, 0.0, 0.0], 'greater', 4),
        ([math.nan, math.nan], 'greater', 2),
    ],
)
def test_progress(scores: list[float], rule: str, expected: int | None) -> None:
    assert _stopped_after(scores, patience=2, min_delta=0.01, rule=rule) == expected


def test_a_loss_may_be_negative() -> None:
    assert _stopped_after([-1, -2, -3], monitor='nll', patience=2, rule='less') is None


@pytest.mark.parametrize('wrong', [dict(patience=0), dict(patience=1, min_delta=-1), dict(patience=1, rule='more')])
def test_arguments_out_of_range(wrong: dict) -> None:
    with pytest.raises(UserError, match='EarlyStoppingHook expects'):
        EarlyStoppingHook('score', **wrong)
