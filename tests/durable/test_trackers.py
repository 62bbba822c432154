# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Logging to other programs: what TensorBoard and MLflow can read back, and that no logger ends a training."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import toy_run
from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.visualization.vis_backend import BaseVisBackend
from processes import run_forked
from small_runs import forget

from mmlightvit.cli import main, train
from mmlightvit.durable import trackers
from mmlightvit.durable.programs import PROGRAMS

SECRETS = """
backend = dict(api_key='k1', path='https://me:k2@host/data', token='k3', num_tokens=8, long='x' * 900)
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
"""
# MLflow's use of SQLAlchemy, and protobuf's.
pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder of its own, in memory where that can be: MLflow makes its tables with a hundred waits for the disk."""
    memory = Path('/dev/shm')
    folder = Path(tempfile.mkdtemp(dir=memory)) if os.access(memory, os.W_OK) else tmp_path
    monkeypatch.chdir(folder)
    for name in ('MLFLOW_TRACKING_URI', 'MLFLOW_EXPERIMENT_NAME', 'MMLIGHTVIT_OFFLINE', 'WANDB_MODE'):
        monkeypatch.delenv(name, raising=False)
    yield
    forget()
    shutil.rmtree(folder)


def _train(*arguments: str, more: str = '') -> None:
    toy_run.write_config(Path.cwd(), SECRETS + more)
    assert main(['train', 'toy.py', '--work-dir', 'run', *arguments]) == 0
    forget()


def _events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={'scalars': 0})
    events.Reload()
    return events


def _points(events: Any, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(name)]


def _logged() -> dict[int, float]:
    """The losses by iteration, as MMEngine wrote them, the last run first."""
    found: dict[int, float] = {}
    for path in sorted(Path('run').glob('*/vis_data/scalars.json')):
        records = map(json.loads, path.read_text().splitlines())
        found.update({record['step']: record['loss'] for record in records if 'loss' in record})
    return found


def test_tensorboard_reads_the_run_back() -> None:
    _train('--log', 'tensorboard')
    events = _events(Path('run/tensorboard'))
    assert _points(events, 'loss') == [(step, pytest.approx(loss)) for step, loss in _logged().items()]
    assert [step for step, _ in _points(events, 'loss')] == [1, 2, 3, 4]
    assert [step for step, _ in _points(events, 'mean')] == [2, 4]  # validations by iteration, too
    assert [step for step, _ in _points(events, 'time')] == [1, 2, 3, 4]  # of training alone
    [text] = events.Tensors('config/text_summary')
    told = text.tensor_proto.string_val[0].decode()
    assert 'lr=0.1' in told
    _no_secret(told)


def _no_secret(told: str) -> None:
    assert not any(secret in told for secret in ('k1', 'k2', 'k3', 'x' * 501))
    assert 'host/data' in told
    assert 'num_tokens' in told


def _mlflow(address: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(address)
    (experiment,) = [item for item in client.search_experiments() if item.name == 'mmlightvit']
    return [client, *client.search_runs([experiment.experiment_id])]


def test_mlflow_reads_the_run_back_and_a_resumed_run_goes_on_in_it() -> None:
    _train('--log', 'mlflow,tensorboard', '--cfg-options', 'train_cfg.max_epochs=1')
    client, run = _mlflow('sqlite:///run/mlflow.db')
    assert (run.info.run_name, run.info.status) == ('run', 'FINISHED')
    assert run.data.params['optim_wrapper.optimizer.lr'] == '0.1'
    assert run.data.params['backend.num_tokens'] == '8'
    _no_secret(json.dumps(run.data.params))
    assert {path.name for path in Path.cwd().iterdir()} == {'toy.py', 'run'}
    # The model folder is kept, checkpoints are not.
    Path('run/model').mkdir()
    Path('run/model/model.json').touch()
    _train('--log', 'mlflow,tensorboard', '--resume')
    client, run = _mlflow('sqlite:///run/mlflow.db')
    history = client.get_metric_history(run.info.run_id, 'loss')
    logged = {step: pytest.approx(loss) for step, loss in _logged().items()}
    assert {metric.step: metric.value for metric in history} == logged
    assert sorted(logged) == [1, 2, 3, 4]
    assert {metric.step for metric in client.get_metric_history(run.info.run_id, 'mean')} == {2, 4}
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ['config.py', 'model']
    assert [item.path for item in client.list_artifacts(run.info.run_id, 'model')] == ['model/model.json']
    assert [step for step, _ in _points(_events(Path('run/tensorboard')), 'loss')] == [1, 2, 3, 4]


@VISBACKENDS.register_module()
class Noting(BaseVisBackend):
    """Notes what it hears, and fails where it is told to."""

    heard: list[tuple[str, Any, int]] = []

    def __init__(self, save_dir: str, fails_at: str = '') -> None:
        super().__init__(save_dir)
        self._fails_at = fails_at

    def _hear(self, name: str, value: Any = None, step: int = 0) -> None:
        self.heard.append((name, value, step))
        if name == self._fails_at:
            raise ConnectionError('no way to https://me:k2@host,\nnone at all')

    def _init_env(self) -> None: ...

    @property
    def experiment(self) -> list:
        return self.heard

    def add_config(self, config: Config, **kwargs: Any) -> None:
        self._hear('config', config)

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        self._hear('scalars', scalar_dict, step)

    def close(self) -> None:
        self._hear('close')


#: As a config names any backend, and behind a tracker that it names itself.
WAYS = [
    "dict(type='Noting', fails_at='{}')",
    "dict(type='mmlightvit.Tracker', backend=dict(type='Noting', fails_at='{}'))",
]


@pytest.mark.parametrize('way', WAYS, ids=['named', 'tracked'])
def test_a_backend_of_anybody_hears_iterations_and_no_secret(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noting, 'heard', [])
    _train(more=f"visualizer['vis_backends'].append({way.format('')})\n")
    (_, config, _), *scalars, last = Noting.heard
    _no_secret(config.pretty_text)
    assert config.train_cfg.max_epochs == 2 and last[0] == 'close'
    assert [('loss' in values, step) for _, values, step in scalars] == [
        (True, 1), (True, 2), (False, 2), (True, 3), (True, 4), (False, 4),
    ]  # fmt: skip
    Noting.heard.clear()
    more = f"epochs = train_cfg['max_epochs'] = 3\nvisualizer['vis_backends'].append({way.format('')})\n"
    _train('--resume', more=more)
    # The checkpoint is older than the validation after it, which a resumed run therefore repeats.
    assert [('loss' in values, step) for name, values, step in Noting.heard if name == 'scalars'] == [
        (False, 4), (True, 5), (True, 6), (False, 6),
    ]  # fmt: skip


@pytest.mark.parametrize(('fails_at', 'heard'), [('config', 1), ('scalars', 2), ('close', 8)])
def test_a_backend_that_fails_ends_no_training(
    fails_at: str, heard: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(Noting, 'heard', [])
    _train(more=f"visualizer['vis_backends'].append({WAYS[0].format(fails_at)})\n")
    assert len(Noting.heard) == heard
    warnings = [line for line in ''.join(capfd.readouterr()).splitlines() if 'Noting' in line]
    assert len(warnings) == 1, warnings
    assert 'Logging to Noting has failed and ends here; training goes on.' in warnings[0]
    assert 'ConnectionError: no way to https://host, none at all' in warnings[0]
    assert Path('run/epoch_2.pth').is_file()


def test_a_backend_of_mmengine_that_fails_ends_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('mmengine.visualization.vis_backend.TensorboardVisBackend._init_env', fail)
    _train(more="visualizer['vis_backends'].append(dict(type='TensorboardVisBackend'))\n")
    assert Path('run/epoch_2.pth').is_file()


@pytest.mark.parametrize('program', PROGRAMS)
def test_mmengine_has_the_backend_of_each_program_and_takes_its_settings(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the programs: what is only seen with them installed stands in docs/training.md."""
    monkeypatch.setenv('MMLIGHTVIT_OFFLINE', '1')
    monkeypatch.setattr(os, 'environ', dict(os.environ))
    offline: list[bool] = []
    clearml = ModuleType('clearml')
    clearml.Task = SimpleNamespace(set_offline=offline.append)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'clearml', clearml)
    monkeypatch.setattr(trackers, '_check_git_identity', lambda: None)
    folder = Path.cwd() / 'run'
    backend = trackers._backend(program, folder, {'seed': 1}, 0)
    built = VISBACKENDS.build({'save_dir': str(folder), **backend})
    assert type(built).__name__.removesuffix('VisBackend').lower() == program
    assert backend.get('artifact_suffix', ()) == (), 'checkpoints and code stay here'
    assert offline == ([True] if program == 'clearml' else [])
    assert os.environ.get('WANDB_MODE') == ('offline' if program == 'wandb' else None)


def test_a_former_name_goes_on_working(capfd: pytest.CaptureFixture) -> None:
    _train(more="visualizer['vis_backends'].append(dict(type='mmlightvit.TensorBoardLog', name='tensorboard'))\n")
    assert [step for step, _ in _points(_events(Path('run/tensorboard')), 'loss')] == [1, 2, 3, 4]
    now = "mmlightvit.TensorBoardLog is now dict(type='mmlightvit.Tracker', backend='tensorboard')"
    assert ''.join(capfd.readouterr()).count(now) == 1


def test_a_run_that_repeats_iterations_replaces_them_in_tensorboard() -> None:
    _train('--log', 'tensorboard')
    shutil.rmtree('run/tensorboard')  # of the logs alone
    Path('run/epoch_2.pth').unlink()
    _train('--log', 'tensorboard', '--resume')
    assert [step for step, _ in _points(_events(Path('run/tensorboard')), 'loss')] == [3, 4]


def test_two_processes_stop_at_once_and_the_first_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = [0.1, 0.3, 0.2, 0.3, 0.25, 0.9]
    monkeypatch.setattr(toy_run.ToyMetric, 'compute_metrics', lambda self, results: dict(mean=scores.pop(0)))
    more = """
epochs = train_cfg['max_epochs'] = 6
default_hooks['checkpoint'].update(save_best='mean', rule='greater')
model_wrapper_cfg = dict(type='mmlightvit.DistributedDataParallel')
"""
    path = toy_run.write_config(Path.cwd(), more)
    options = ['--work-dir', 'run', '--launcher', 'pytorch', '--log', 'tensorboard', '--patience', '3']

    def work() -> int:
        return train.train(train.parser().parse_args([str(path), *options])).epoch

    assert run_forked(2, work) == [5, 5]
    assert len(list(Path('run/tensorboard').iterdir())) == 1
    assert [step for step, _ in _points(_events(Path('run/tensorboard')), 'mean')] == [1, 2, 3, 4, 5]


def test_settings() -> None:
    cfg = Config(
        dict(a=(1, 2.5, None), b=[dict(password='p'), dict(x=True)], keys='kept', access_key_id='a', c=list(range(400)))
    )
    assert trackers.settings(cfg.to_dict()) == dict(
        a=[1, 2.5, None],
        b=[dict(password='***'), dict(x=True)],
        keys='kept',
        access_key_id='***',
        c=json.dumps(list(range(400)))[:500],
    )
