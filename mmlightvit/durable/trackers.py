# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Settings and scalars of a run for other programs, through any of MMEngine's ``vis_backends``.

A :class:`Tracker` stands before such a backend: it numbers everything by iteration, validations too, so that a resumed
run goes on where it was; it tells no secret; and a backend that fails costs one warning and no training.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.visualization import LocalVisBackend, Visualizer
from mmengine.visualization.vis_backend import BaseVisBackend

from mmlightvit.durable.programs import PROGRAMS
from mmlightvit.durable.safe_loading.offline import is_offline
from mmlightvit.errors import UserError
from mmlightvit.registry import VISBACKENDS

PROJECT = 'mmlightvit'
_LONGEST = 500  # characters of a setting
#: "tokens" are LightViT's; a "token" is a secret.
_SECRET = re.compile(r'(?i)(token|secret|passw(or)?d|credentials?|(api|access|private)_?key(_?id)?)$')
_LOGIN = re.compile(r'(?<=://)[^/@\s]+@')


def settings(value: Any, key: str = '') -> Any:
    """A config as data: long settings cut, passwords and tokens left out.

    Args:
        value: A config, or a part of it.
        key: Its name there.
    """
    if isinstance(value, Mapping):
        return {str(name): settings(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [settings(item, key) for item in value]
        text = json.dumps(items)
        return items if '{' in text or len(text) <= _LONGEST else text[:_LONGEST]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return '***' if _SECRET.search(key) else _LOGIN.sub('', str(value))[:_LONGEST]


@VISBACKENDS.register_module()
class Tracker(BaseVisBackend):
    """A backend of MMEngine's that hears iterations and no secret, and may fail.

    A program that ``--log`` names hears the scalars of trainings. A backend that a config describes itself hears all
    that MMEngine has for it.

    Args:
        save_dir: The run's folder of logs, as MMEngine gives it.
        backend: A name of :data:`~mmlightvit.durable.programs.PROGRAMS`, the config of a registered backend, or one
            that is built.
    """

    def __init__(
        self, save_dir: str | None = None, backend: str | dict[str, Any] | BaseVisBackend | None = None
    ) -> None:
        super().__init__(save_dir or '')
        if not isinstance(backend, (dict, BaseVisBackend)) and backend not in PROGRAMS:
            names = ', '.join(PROGRAMS)
            raise UserError(f'mmlightvit.Tracker: backend: expected a config or one of {names}, got {backend!r}')
        self.program = backend if isinstance(backend, str) else None
        if isinstance(backend, dict):
            backend = VISBACKENDS.build({'save_dir': save_dir, **backend})
        self._backend = backend if isinstance(backend, BaseVisBackend) else None
        self._runner: Any = None
        self._has_failed = False

    @property
    def experiment(self) -> Any:
        """The program's own object; None before it has begun."""
        return self._backend and self._backend.experiment

    def _init_env(self) -> None:
        """Nothing is needed before the config is known."""

    def _attempt(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call the backend; not again after its first error, which costs a warning."""
        if self._has_failed:
            return
        try:
            action(*args, **kwargs)
        except Exception as error:  # of a program that is not needed for training
            self._has_failed = True
            name = self.program or type(self._backend).__name__
            message = _LOGIN.sub('', ' '.join(f'{type(error).__name__}: {error}'.split()))[:_LONGEST]
            MMLogger.get_current_instance().warning(
                f'Logging to {name} has failed and ends here; training goes on. ({message})'
            )

    def add_config(self, config: Config, **kwargs: Any) -> None:
        self._folder = Path(config.work_dir).absolute()
        self._settings = settings(config.to_dict())
        if self._backend is not None:
            self._attempt(self._backend.add_config, Config(self._settings), **kwargs)

    def begin(self, runner: Any) -> None:
        """Begin with the training: a program would keep a run for each runner that fails or tests."""
        self._runner = runner
        if self._backend is None:
            self._attempt(self._start, runner.iter)

    def _start(self, done: int) -> None:
        """Open the program; ``done`` are the iterations of a run that goes on."""
        backend = _backend(str(self.program), self._folder, self._settings, done)
        self._backend = VISBACKENDS.build({'save_dir': self._save_dir, **backend})
        if self.program == 'tensorboard' and done:  # what is repeated replaces what was there
            self.experiment.close()
            self.experiment.purge_step = done + 1
        if self.program != 'wandb':  # which has them, and whose backend would upload code
            self._backend.add_config(Config(self._settings))
        if self.program == 'mlflow':
            self._mlflow_run = self.experiment.active_run().info.run_id

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        if self._backend is None:
            return
        is_validation = self._runner is not None and 'loss' not in scalar_dict
        if is_validation:  # MMEngine numbers these by epoch, and most programs want rising numbers
            step = self._runner.iter
        scalars = {
            name: float(value)
            for name, value in scalar_dict.items()
            if not (is_validation and name in ('time', 'data_time')) and not isinstance(value, (str, list, tuple, dict))
        }
        if self.program == 'wandb':  # whose backend tells no step
            scalars['iteration'] = step
        self._attempt(self._backend.add_scalars, scalars, step)

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        self.add_scalars({name: value}, step)

    def add_image(self, name: str, image: Any, step: int = 0, **kwargs: Any) -> None:
        if self._backend is not None and self.program is None:
            self._attempt(self._backend.add_image, name, image, step, **kwargs)

    def add_graph(self, *args: Any, **kwargs: Any) -> None:
        if self._backend is not None and self.program is None:
            self._attempt(self._backend.add_graph, *args, **kwargs)

    def keep(self, path: Path, name: str) -> None:
        """Keep a file or folder with the run, where the program is made for it."""
        if self.program == 'mlflow' and self._backend is not None:
            client = self.experiment.MlflowClient()
            log = client.log_artifacts if path.is_dir() else client.log_artifact
            self._attempt(log, self._mlflow_run, str(path), name)

    def close(self) -> None:
        if self._backend is None:
            return
        if self.program is not None and (self._folder / 'model').is_dir():
            self.keep(self._folder / 'model', 'model')
        self._attempt(self._backend.close)


# -- MMEngine's backends, set up
def _backend(program: str, folder: Path, config: dict[str, Any], done: int) -> dict[str, Any]:
    """The backend of a program, which writes into the work directory where it can, and uploads no code or checkpoint.

    Args:
        program: Its name.
        folder: The work directory.
        config: The settings, for a backend that takes them at its start.
        done: Iterations of a run that goes on.
    """
    run = folder.name
    if program == 'mlflow':
        return _mlflow(folder, done)
    if program == 'wandb':
        if is_offline():
            os.environ.setdefault('WANDB_MODE', 'offline')
        project = os.environ.get('WANDB_PROJECT', PROJECT)
        init_kwargs = dict(project=project, name=run, dir=str(folder), config=config, save_code=False)
        by_iteration = [dict(name='*', step_metric='iteration')]
        return dict(type='WandbVisBackend', init_kwargs=init_kwargs, define_metric_cfg=by_iteration)
    if program == 'clearml':
        if is_offline():
            from clearml import Task

            Task.set_offline(True)
        off = ('reuse_last_task_id', 'auto_connect_arg_parser', 'auto_connect_frameworks', 'auto_resource_monitoring')
        init_kwargs = dict(project_name=PROJECT, task_name=run, **dict.fromkeys(off, False))
        return dict(type='ClearMLVisBackend', init_kwargs=init_kwargs, artifact_suffix=())
    if program == 'dvclive':
        _check_git_identity()
        init_kwargs = dict(resume=done > 0, save_dvc_exp=False, dvcyaml=None, monitor_system=False)
        save_dir = str(folder / 'dvclive')
        return dict(type='DVCLiveVisBackend', save_dir=save_dir, init_kwargs=init_kwargs, artifact_suffix=())
    if program == 'aim':
        init_kwargs = dict(repo=str(folder), experiment=run, system_tracking_interval=None, capture_terminal_logs=False)
        return dict(type='AimVisBackend', init_kwargs=init_kwargs)
    return dict(type='TensorboardVisBackend', save_dir=str(folder / 'tensorboard'))


def _mlflow(folder: Path, done: int) -> dict[str, Any]:
    """MLflow at the address of the environment, else in a file; a resumed run goes on in the one of its folder."""
    os.environ.setdefault('MLFLOW_DISABLE_TELEMETRY', 'true')  # it would tell its makers of each run
    import mlflow

    logging.getLogger('mlflow').setLevel(logging.WARNING)
    address = os.environ.get('MLFLOW_TRACKING_URI')
    artifacts = None if address else (folder / 'mlflow').as_uri()
    address = address or f'sqlite:///{folder / "mlflow.db"}'
    experiment = os.environ.get('MLFLOW_EXPERIMENT_NAME', PROJECT)
    settings: dict[str, Any] = dict(tracking_uri=address, exp_name=experiment, artifact_location=artifacts)
    if done:
        client = mlflow.MlflowClient(address)
        known = client.get_experiment_by_name(experiment)
        query = ([known.experiment_id] if known else [], f"tags.work_dir = '{folder}'")
        runs = client.search_runs(*query, max_results=1, order_by=['start_time DESC']) if known else []
        if runs:
            mlflow.set_tracking_uri(address)
            mlflow.start_run(runs[0].info.run_id)
            settings['tracked_config_keys'] = {}  # the settings of a run cannot be changed in it
    tags = {'work_dir': str(folder)}
    return dict(type='MLflowVisBackend', run_name=folder.name, tags=tags, artifact_suffix=(), **settings)


def _check_git_identity() -> None:
    """Where git knows no name, MMEngine's backend runs ``dvc init -f`` in the present folder, which empties a cache."""
    from pygit2 import Repository, discover_repository

    try:
        _ = Repository(discover_repository(os.curdir, True, '')).default_signature
    except KeyError:
        raise RuntimeError('git knows no name of yours: git config --global user.name NAME, and user.email') from None


# -- in a run
def guard(visualizer: Visualizer) -> None:
    """Let no backend end a run but the local one, whose files the run itself is read from.

    Args:
        visualizer: Its backends are replaced.
    """
    backends = visualizer._vis_backends
    for name, backend in backends.items():
        if not isinstance(backend, (LocalVisBackend, Tracker)):
            backends[name] = Tracker(backend=backend)


def _trackers(visualizer: Visualizer) -> Iterator[Tracker]:
    return (backend for backend in visualizer._vis_backends.values() if isinstance(backend, Tracker))


class TrackingHook(Hook):
    """Lets the trackers begin."""

    @master_only
    def before_train(self, runner: Any) -> None:
        for tracker in _trackers(runner.visualizer):
            tracker.begin(runner)


def keep(visualizer: Visualizer, *paths: Path) -> None:
    """Keep files or folders with the runs of the trackers that are made for it: a file under its folder's name."""
    for tracker in _trackers(visualizer):
        for path in paths:
            tracker.keep(path, path.name if path.is_dir() else path.parent.name)


# -- the former classes, one for each program, for one more version
def _former(name: str, program: str) -> Callable[..., Tracker]:
    def build(save_dir: str | None = None) -> Tracker:
        now = f"dict(type='mmlightvit.Tracker', backend='{program}')"
        MMLogger.get_current_instance().warning(f'vis_backends: mmlightvit.{name} is now {now}; that name will go')
        return Tracker(save_dir, program)

    return build


for _name in ('TensorBoardLog', 'MLflowLog', 'WandbLog', 'ClearMLLog', 'DVCLiveLog', 'AimLog'):
    VISBACKENDS.register_module(name=_name, module=_former(_name, _name.removesuffix('Log').lower()))
