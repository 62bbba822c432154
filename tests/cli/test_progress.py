# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The line of progress, ``curves.png``, and ``--time``, on a training of a second."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toy_run
from mmengine.config import Config
from mmengine.logging import MessageHub
from PIL import Image
from small_runs import forget

from mmlightvit.cli import main, time_budget
from mmlightvit.cli.time_budget import Speed, seconds_of
from mmlightvit.durable.time_budget import TimeBudgetHook
from mmlightvit.errors import UserError

SCHEDULE = """
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=epochs)]
default_hooks['checkpoint'].update(save_best='mean', rule='greater')
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
"""
BY_ITERATION = """
train_cfg = dict(type='IterBasedTrainLoop', max_iters=6, val_interval=3)
default_hooks['checkpoint'].update(by_epoch=False, interval=3)
log_processor = dict(by_epoch=False)
"""


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    forget()


def _train(*arguments: str, more: str = '', code: int = 0) -> None:
    toy_run.write_config(Path.cwd(), SCHEDULE + more)
    assert main(['train', 'toy.py', '--work-dir', 'run', *arguments]) == code
    forget()


def test_without_a_terminal_there_is_a_line_per_epoch(capsys: pytest.CaptureFixture) -> None:
    _train()
    told = capsys.readouterr()
    number = r'[\d.e+-]+'
    pattern = rf'epoch N/2  2/2  {number} pictures/s  loss {number}  mean {number} \(best {number}\)'
    lines = told.err.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(pattern.replace('N', '1') + r'  \d:\d\d:\d\d left', lines[0])
    assert re.fullmatch(pattern.replace('N', '2'), lines[1])
    assert 'Epoch(' not in told.out
    (log,) = Path('run').glob('*/*.log')
    assert log.read_text().count('Epoch(train)') == 4  # everything is in the file


def test_iterations_have_a_line_per_validation(capsys: pytest.CaptureFixture) -> None:
    _train(more=BY_ITERATION)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split('  ')[0] for line in lines] == ['iteration 3/6', 'iteration 6/6']


def test_a_terminal_has_one_line_that_changes_and_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, 'stderr', terminal)
    monkeypatch.setattr('mmlightvit.cli.progress._EVERY_S', 0)
    monkeypatch.setenv('COLUMNS', '40')
    _train()
    text = terminal.getvalue()
    assert text.count('\n') == 2
    shown = [part.rstrip('\n') for part in text.split('\r\x1b[K')]
    assert all(len(part) < 40 for part in shown)
    heads = [' '.join(part.split('  ')[:2]) for part in shown if part]
    one = ['1/2', '2/2', 'validation 1/2', 'validation 2/2', '2/2']
    assert heads == [f'epoch {epoch}/2 {part}' for epoch in (1, 2) for part in one]


def test_curves_show_the_whole_of_a_resumed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('matplotlib')
    drawn: list[Any] = []
    from mmlightvit.explain.curves import plot_logs

    def plot(runs: Any, path: Path) -> None:
        drawn.append(runs[0])
        plot_logs(runs, path)

    monkeypatch.setattr('mmlightvit.cli.progress.plot_logs', plot)
    _train('--cfg-options', 'train_cfg.max_epochs=1')
    with Image.open('run/curves.png') as picture:
        assert picture.size[0] > 100
    Path('run/curves.png').unlink()
    _train('--resume', more="param_scheduler[0].update(end=1)\ntrain_cfg['max_epochs'] = 2\n")
    assert drawn[0].metrics['mean'][0] == [2]  # after the first validation
    assert drawn[-1].training['loss'][0] == [1, 2, 3, 4]
    assert sorted(set(drawn[-1].metrics['mean'][0])) == [2, 4]
    assert {path.name for path in Path('run').glob('curves*')} == {'curves.png'}


# -- time --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ('text', 'seconds'), [('2h30m', 9000), ('90m', 5400), ('45s', 45), ('1.5h', 5400), ('1h1m1s', 3661), ('2H', 7200)]
)
def test_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize('text', ['', '2', 'h', '2d', '0m', '1..5h', '30m2h'])
def test_no_times(text: str) -> None:
    with pytest.raises(UserError, match='such as 2h30m'):
        seconds_of(text)


def test_measuring_leaves_nothing_and_the_run_is_as_without(capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip('mmengine')
    path = toy_run.write_config(Path.cwd(), SCHEDULE)
    from mmlightvit.cli.train import parser, prepare

    cfg = prepare(parser().parse_args([str(path), '--work-dir', 'run']))
    before = cfg.to_dict()
    speed = time_budget.measure(cfg)
    assert (speed.length, speed.pictures, speed.processes) == (2, 4, 1)
    assert 0 < speed.iteration < 10
    assert 0 < speed.validation < 100
    assert cfg.to_dict() == before
    assert {item.name for item in Path.cwd().iterdir()} == {'toy.py'}
    _train()
    assert Path('run/epoch_2.pth').is_file()
    (scalars,) = Path('run').glob('*/vis_data/scalars.json')
    assert len(scalars.read_text().splitlines()) == 6


def test_epochs_fit_the_time_and_a_resumed_run_keeps_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(time_budget, '_BEGAN', time_budget.time.monotonic())
    # Two iterations of 200 s and a validation of 100 s: 7 epochs in 3500 of 3600 * 0.95 s, less the start; 6 fit.
    monkeypatch.setattr(time_budget, 'measure', lambda cfg: Speed(200.0, 100.0, 2, 4, 1))
    _train('--time', '1h', '--cfg-options', 'model.fault=none')
    assert '--time 1h: 200 s an iteration, 100 s a validation: 6 epochs in 0:50:00' in capsys.readouterr().out
    cfg = Config.fromfile('run/toy.py')
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[0].end) == (6, 6)
    assert Path('run/epoch_6.pth').is_file()
    Path('run/epoch_6.pth').unlink()  # as if killed in the last epoch
    monkeypatch.setattr(time_budget, 'measure', None)
    _train('--time', '1h', '--resume', 'run/epoch_5.pth')
    assert 'the run keeps the length that it began with' in capsys.readouterr().out
    assert Path('run/epoch_6.pth').is_file()
    assert not Path('run/epoch_7.pth').exists()


def test_the_rate_is_scaled_by_the_pictures_that_a_batch_can_have() -> None:
    """Of 4 pictures a batch of 64 has 4: the rate for batches of 2 doubles."""
    _train('--batch', '64', '--cfg-options', 'auto_scale_lr.base_batch_size=2', 'model.fault=none')
    (log,) = Path('run').glob('*/*.log')
    assert 'current batch size is 4. Scaling the original LR by 2.0' in log.read_text()


def test_no_epoch_fits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(time_budget, 'measure', lambda cfg: Speed(200.0, 100.0, 2, 4, 1))
    monkeypatch.setattr(time_budget, '_BEGAN', time_budget.time.monotonic())
    _train('--time', '5m', code=1)
    message = capsys.readouterr().err
    # Two iterations of 200 s and a validation of 100 s in 0.95 of the time.
    assert re.search(r'the start has taken 0:00:\d\d, and one takes 0:08:47 \(200 s an iteration', message)
    assert re.search(r'give at least 0:0[89]:\d\d$', message)
    _train('--time', '5m', '--epochs', '3', code=1)
    assert 'leave --epochs out' in capsys.readouterr().err


def _ended_after(seconds: float, rounds: list[float], monkeypatch: pytest.MonkeyPatch, hub: MessageHub) -> int | None:
    now = [100.0]
    monkeypatch.setattr('mmlightvit.durable.time_budget.time.monotonic', lambda: now[0])
    loop = SimpleNamespace(stop_training=False)
    runner: Any = SimpleNamespace(
        message_hub=hub, train_loop=loop, iter=1, max_iters=99, logger=SimpleNamespace(info=lambda text: None)
    )
    hook = TimeBudgetHook(seconds)
    hook.before_train(runner)
    for number, taken in enumerate(rounds, 1):
        now[0] += taken
        hook.after_train_iter(runner, 0)
        hook.after_val_epoch(runner)
        if loop.stop_training:
            return number
    return None


def test_a_run_ends_within_its_time_resumed_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _ended_after(100, [30, 30, 30], monkeypatch, MessageHub('time_1')) == 3
    assert _ended_after(100, [30, 40], monkeypatch, MessageHub('time_2')) == 2  # a third of 40 would end at 110
    assert _ended_after(100, [10] * 9, monkeypatch, MessageHub('time_3')) is None
    hub = MessageHub('time_4')
    assert _ended_after(100, [30], monkeypatch, hub) is None
    assert _ended_after(100, [30, 30], monkeypatch, hub) == 2
