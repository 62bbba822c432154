# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A run from its command line: what reaches the terminal, what the log file, and what is left of a failed start.

Every command runs in a forked process with a terminal of its own, which is a file here.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from pathlib import Path

import planted
import pytest
import toy_run
from mmengine.config import Config
from processes import run_forked

from mmlightvit import cli
from mmlightvit.cli import run, test, train  # noqa: F401 - imported once, before anything forks
from mmlightvit.cli.recipe import drop_idle_workers
from mmlightvit.cli.testing import draw_into
from mmlightvit.errors import UserError
from mmlightvit.toolboxes import import_toolbox


def _in_process(folder: str, arguments: list[str]) -> int:
    """Run a command in a folder, as a process of its own would."""
    os.chdir(folder)
    for stream, name in ((1, 'out'), (2, 'err')):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.stdout, sys.stderr = open(1, 'w', closefd=False), open(2, 'w', closefd=False)  # noqa: SIM115
    warnings.simplefilter('default')
    try:
        code = cli.main(arguments)
    except SystemExit as left:
        code = left.code
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def command(folder: Path, *arguments: str, processes: int = 1) -> tuple[list[int], list[str], list[str]]:
    """Exit codes, and the lines of standard output and standard error."""
    codes = run_forked(processes, _in_process, str(folder), list(arguments))
    return codes, *((folder / name).read_text().splitlines() for name in ('out', 'err'))


def left_over(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {'toy.py', 'out', 'err'}


def test_a_training_is_quiet_and_its_log_file_is_not(tmp_path):
    toy_run.write_config(tmp_path)
    codes, out, err = command(tmp_path, 'train', 'toy.py', '--cfg-options', 'model.warn=True')
    assert codes == [0]
    assert [line.split('  ')[:2] for line in err] == [['epoch 1/2', '2/2'], ['epoch 2/2', '2/2']]
    assert len(out) <= 9, out
    assert not any('Epoch(' in line for line in out)
    [told] = [line for line in out if line.startswith('environment, config and warnings: ')]
    log = (tmp_path / told.removeprefix('environment, config and warnings: ')).read_text()
    assert out[-1] == 'everything of this run is in work_dirs/toy'
    assert left_over(tmp_path) == {'work_dirs'}
    for text in ('System environment:', 'Config:', 'Hooks will be executed', 'paramwise_options', 'takes the place of'):
        assert text in log, text
        assert not any(text in line for line in out), text
    assert 'a warning of another package' in log
    assert not any('a warning of another package' in line for line in out)
    assert 'Epoch(train) [2][2/2]' in log


def test_a_test_is_quiet_too(tmp_path):
    toy_run.write_config(tmp_path)
    assert command(tmp_path, 'train', 'toy.py')[0] == [0]
    codes, out, err = command(tmp_path, 'test', 'toy.py', 'work_dirs/toy/epoch_2.pth', '--work-dir', 'work_dirs/other')
    assert (codes, err) == ([0], [])
    assert len(out) < 12
    assert any('mean: ' in line for line in out)
    assert out[-1] == 'everything of this run is in work_dirs/other'


@pytest.mark.parametrize(('fault', 'said'), [('build', 'cannot be built'), ('loss', 'fails at loss')])
def test_a_failed_start_is_one_line_and_leaves_its_log(fault, said, tmp_path):
    toy_run.write_config(tmp_path)
    options = ['--work-dir', 'a/b', '--cfg-options', f'model.fault={fault}']
    codes, out, err = command(tmp_path, 'train', 'toy.py', *options)
    assert codes == [1]
    [line] = err
    assert line.startswith('error: ') and said in line
    assert left_over(tmp_path) == {'a'}
    assert len(list((tmp_path / 'a/b').rglob('*.log'))) == 1
    assert not any('Traceback' in line for line in out)


def test_a_failure_after_the_first_values_keeps_them(tmp_path):
    """The validation fails after an epoch: its losses stay."""
    toy_run.write_config(tmp_path)
    codes, _, err = command(tmp_path, 'train', 'toy.py', '--cfg-options', 'model.fault=predict')
    assert codes == [1]
    assert err == ['error: the toy fails at predict']
    assert len(list((tmp_path / 'work_dirs').rglob('scalars.json'))) == 1
    assert (tmp_path / 'work_dirs/toy/epoch_1.pth').is_file()


def test_an_error_of_all_processes_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr('mmlightvit.durable.launch._PEERS_EXIT_DELAY_S', 0)
    toy_run.write_config(tmp_path)
    options = ['--launcher', 'pytorch', '--cfg-options', 'model.fault=build']
    codes, _, err = command(tmp_path, 'train', 'toy.py', *options, processes=2)
    assert codes == [1, 1]
    assert err == ['error: the model of the toy cannot be built']


COCO = """
default_scope = 'mmdet'
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dict(
    type='CocoDataset', data_root='data', ann_file='annotations/train.json', data_prefix=dict(img='train'),
    metainfo=dict(classes=('disk', 'bar')), pipeline=[]))
"""


@pytest.mark.parametrize(
    ('missing', 'said'), [('bbox', 'it has no bbox (and 3 more like it)'), ('iscrowd', 'cannot be built')]
)
def test_data_of_two_processes_are_told_once(missing, said, tmp_path, monkeypatch):
    """Refused, or completed for a start that then fails for another reason."""
    pytest.importorskip('mmdet')
    import_toolbox('mmdet')
    monkeypatch.setattr('mmlightvit.durable.launch._PEERS_EXIT_DELAY_S', 0)
    toy_run.write_config(tmp_path, COCO)
    path = planted.write_coco(tmp_path / 'data', images=2)
    content = json.loads(path.read_text())
    for item in content['annotations']:
        del item[missing]
    path.write_text(json.dumps(content))
    options = ['--launcher', 'pytorch', '--cfg-options', 'model.fault=build']
    codes, out, err = command(tmp_path, 'train', 'toy.py', *options, processes=2)
    assert codes == [1, 1]
    [line] = err
    assert line.startswith('error: ') and said in line
    assert not any('Traceback' in line for line in out)
    assert left_over(tmp_path) == ({'data'} if missing == 'bbox' else {'data', 'work_dirs'})


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # MMEngine leaves the file open
@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('x = (', 'is no Python: .*line 1: x'),
        ('x = y', "NameError: name 'y' is not defined"),
        ('raise OSError("of the user")', 'OSError: of the user'),
    ],
)
def test_a_config_with_a_mistake_is_told_in_one_line(text, said, tmp_path):
    path = tmp_path / 'c.py'
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        train.prepare(train.parser().parse_args([str(path)]))
    assert str(path) in str(caught.value)
    del caught
    gc.collect()


def test_a_missing_package_of_the_logs_is_told_before_anything_starts(tmp_path, monkeypatch):
    path = toy_run.write_config(
        tmp_path, "visualizer = dict(type='Visualizer', vis_backends=[dict(type='AimVisBackend')])"
    )
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    monkeypatch.setattr('mmlightvit.cli.preflight.is_installed', lambda name: name not in ('aim', 'alembic'))
    with pytest.raises(UserError, match='logging to aim needs aim: pip install aim'):
        train.check(train.prepare(train.parser().parse_args([str(path)])))
    toy_run.write_config(tmp_path)
    mlflow = train.parser().parse_args([str(path), '--log', 'mlflow'])
    with pytest.raises(UserError, match='needs alembic: pip install mlflow-skinny sqlalchemy alembic'):
        train.check(train.prepare(mlflow))
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://localhost:5000')  # has a database of its own
    train.check(train.prepare(mlflow))
    with pytest.raises(UserError, match='--log tensorbord: no logger of that name; nearest: tensorboard'):
        train.prepare(train.parser().parse_args([str(path), '--log', 'mlflow,tensorbord']))


@pytest.mark.parametrize(('scope', 'switch'), [('mmdet', 'draw'), ('mmpretrain', 'enable'), ('mmseg', 'draw')])
def test_the_folder_of_pictures_is_named_where_some_are_drawn(scope, switch):
    cfg = Config(dict(default_scope=scope, default_hooks=dict(visualization={switch: False})))
    assert run.where_pictures_go(cfg, 'w/t') is None
    cfg.default_hooks.visualization.update({switch: True, 'interval': 1})
    told = 'pictures of predictions (default_hooks.visualization.interval: 1): w/t/vis_data/vis_image'
    assert run.where_pictures_go(cfg, 'w/t') == told
    draw_into(cfg, '/d')
    assert run.where_pictures_go(cfg, 'w/t').endswith(': /d/vis_image' if scope == 'mmseg' else 'predictions: /d')
    assert run.where_pictures_go(Config(dict(default_scope='mmengine')), 'w/t') is None


def test_settings_of_workers_go_with_the_workers():
    loaders = dict(
        train_dataloader=dict(num_workers=0, persistent_workers=True, prefetch_factor=2),
        val_dataloader=dict(persistent_workers=True),
        test_dataloader=dict(num_workers=2, persistent_workers=True, prefetch_factor=2),
    )
    cfg = Config(loaders)
    drop_idle_workers(cfg)
    assert cfg.train_dataloader == dict(num_workers=0, persistent_workers=False)
    assert cfg.val_dataloader == dict(persistent_workers=False)
    assert cfg.test_dataloader == loaders['test_dataloader']


def test_a_scope_of_another_package_is_taken_if_it_is_there(tmp_path):
    path = tmp_path / 'c.py'
    path.write_text("default_scope = 'mmengine'")
    assert cli.config.load_config(str(path)).default_scope == 'mmengine'
    path.write_text("default_scope = 'mmnothing'")
    with pytest.raises(UserError, match='expected one of mmdet, mmpretrain, mmseg, or an installed package'):
        cli.config.load_config(str(path))
