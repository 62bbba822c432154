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
from processes import run_forked
from small_runs import forget

from mmlightvit.cli import main, train
from mmlightvit.durable import trackers

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
    assert '"lr": 0.1' in told
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
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ['model']
    assert [item.path for item in client.list_artifacts(run.info.run_id, 'model')] == ['model/model.json']
    assert [step for step, _ in _points(_events(Path('run/tensorboard')), 'loss')] == [1, 2, 3, 4]


@pytest.mark.parametrize('fails_at', ['init', 'log', 'finish'])
def test_a_logger_that_fails_ends_no_training(
    fails_at: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    calls: list[str] = []

    def called(name: str) -> None:
        calls.append(name)
        if name == fails_at:
            raise ConnectionError('no way to https://me:k2@host,\nnone at all')

    run = SimpleNamespace(log=lambda scalars, step: called('log'), finish=lambda: called('finish'))
    wandb = ModuleType('wandb')
    wandb.init = lambda **kwargs: called('init') or run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    monkeypatch.setattr('mmlightvit.cli.preflight.is_installed', lambda name: True)
    _train('--log', 'wandb', 'tensorboard')
    assert calls == {'init': ['init'], 'log': ['init', 'log'], 'finish': ['init'] + 6 * ['log'] + ['finish']}[fails_at]
    told = [line for line in ''.join(capfd.readouterr()).splitlines() if 'wandb' in line]
    assert len(told) == 1, told
    assert 'Logging to wandb has failed and ends here; training goes on.' in told[0]
    assert 'ConnectionError: no way to https://host, none at all' in told[0]
    assert len(_points(_events(Path('run/tensorboard')), 'loss')) == 4
    assert Path('run/epoch_2.pth').is_file()


def test_a_backend_of_mmengine_that_fails_ends_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('mmengine.visualization.vis_backend.TensorboardVisBackend._init_env', fail)
    _train(more="visualizer['vis_backends'].append(dict(type='TensorboardVisBackend'))\n")
    assert Path('run/epoch_2.pth').is_file()


def test_what_the_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with a module that notes its calls; the real ones are the user's to install."""
    heard: dict[str, list[Any]] = {name: [] for name in ('wandb', 'clearml', 'dvclive', 'aim')}

    class Noting:
        """Takes any call and any attribute, and notes what is called."""

        def __init__(self, name: str) -> None:
            self.__dict__['name'] = name

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            heard[self.name.partition('.')[0]].append((self.name.partition('.')[2], args, kwargs))
            return Noting(self.name)

        def __getattr__(self, name: str) -> Any:
            return Noting(f'{self.name}.{name}')

        def __setattr__(self, name: str, value: Any) -> None:
            heard[self.name.partition('.')[0]].append((name, (value,), {}))

        def __setitem__(self, name: str, value: Any) -> None:
            heard[self.name.partition('.')[0]].append((name, (value,), {}))

    for name in heard:
        monkeypatch.setitem(sys.modules, name, Noting(name))
    monkeypatch.setattr('mmlightvit.cli.preflight.is_installed', lambda name: True)
    monkeypatch.setenv('MMLIGHTVIT_OFFLINE', '1')
    monkeypatch.setattr(os, 'environ', dict(os.environ))
    _train('--log', *heard)
    for name, calls in heard.items():
        told = repr(calls)
        assert "'mean'" in told, name
        assert "'num_tokens': 8" in told, name
        _no_secret(told)
    steps = [kwargs['step'] for call, _, kwargs in heard['wandb'] if call.endswith('log')]
    assert steps == sorted(steps) == [1, 2, 2, 3, 4, 4]
    assert os.environ['WANDB_MODE'] == 'offline'
    assert any(call == 'Task.set_offline' for call, _, _ in heard['clearml'])
    assert [args[0] for call, args, _ in heard['dvclive'] if call == 'step'] == [1, 2, 2, 3, 4, 4]


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
    cfg = Config(dict(a=(1, 2.5, None), b=[dict(password='p'), dict(x=True)], keys='kept', access_key_id='a'))
    assert trackers.settings(cfg.to_dict()) == dict(
        a=[1, 2.5, None], b=[dict(password='***'), dict(x=True)], keys='kept', access_key_id='***'
    )
    assert dict(trackers.flat(trackers.settings(cfg.to_dict()))) == {
        'a': '[1, 2.5, null]',
        'b.0.password': '***',
        'b.1.x': 'true',
        'keys': 'kept',
        'access_key_id': '***',
    }
