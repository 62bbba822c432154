# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What other programs are told of a run: settings and scalars, to TensorBoard, MLflow, W&B, ClearML, DVCLive and Aim.

They are MMEngine's ``vis_backends``. Unlike MMEngine's own, they number everything by iteration, validations too,
upload neither code nor checkpoints, write into the work directory alone, and tell no secret. :func:`guard` keeps a
training alive whose logger fails.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.visualization import LocalVisBackend, Visualizer
from mmengine.visualization.vis_backend import BaseVisBackend

from mmlightvit.durable.safe_loading.offline import is_offline
from mmlightvit.registry import VISBACKENDS

PROJECT = 'mmlightvit'
_LONGEST = 500  # characters of a setting
#: "tokens" are LightViT's; a "token" is a secret.
_SECRET = re.compile(r'(?i)(token|secret|passw(or)?d|credentials?|(api|access|private)_?key(_?id)?)$')
_LOGIN = re.compile(r'(?<=://)[^/@\s]+@')


def settings(value: Any, key: str = '') -> Any:
    """A config as data: long strings cut, passwords and tokens left out.

    Args:
        value: A config, or a part of it.
        key: What it is called there.
    """
    if isinstance(value, Mapping):
        return {str(name): settings(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [settings(item, key) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return '***' if _SECRET.search(key) else _LOGIN.sub('', str(value))[:_LONGEST]


def flat(value: Any, key: str = '') -> Iterator[tuple[str, str]]:
    """The leaves of settings, as ``a.b.0.c`` and text; a list without a dict inside is one."""
    text = json.dumps(value)
    if isinstance(value, dict) or (isinstance(value, list) and '{' in text):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(item, f'{key}.{name}' if key else str(name))
    else:
        yield key, (value if isinstance(value, str) else text)[:_LONGEST]


class Tracker(BaseVisBackend):
    """A program that is told of a run; its subclasses say how."""

    @abstractmethod
    def start(self, run: str, folder: Path, config: dict[str, Any], done: int) -> None:
        """Begin.

        Args:
            run: Its name, that of the work directory.
            folder: The work directory.
            config: Its settings.
            done: Iterations that it has done already; more than 0 if it goes on.
        """

    @abstractmethod
    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Tell the scalars of an iteration."""

    def keep(self, path: Path, name: str) -> None:
        """Keep a file or folder with the run, where the program is made for it."""

    def end(self) -> None:
        """End."""

    _started = False

    @property
    def experiment(self) -> Any:
        return self

    def _init_env(self) -> None:
        """Nothing is needed before the config is known."""

    def add_config(self, config: Config, **kwargs: Any) -> None:
        self._folder, self._config = Path(config.work_dir).absolute(), config

    def begin(self, runner: Any) -> None:
        """Begin with the training, not with a runner that fails or tests."""
        self._runner = runner
        self.start(self._folder.name, self._folder, settings(self._config.to_dict()), runner.iter)
        self._started = True

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        if not self._started:
            return
        validated = 'loss' not in scalar_dict
        if validated:  # MMEngine numbers these by epoch, and most programs want rising numbers
            step = self._runner.iter
        scalars = {
            name: float(value)
            for name, value in scalar_dict.items()
            if not (validated and name in ('time', 'data_time')) and not isinstance(value, (str, list, tuple, dict))
        }
        self.log(scalars, step)

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        self.add_scalars({name: value}, step)

    def close(self) -> None:
        if self._started:
            model = self._folder / 'model'
            if model.is_dir():
                self.keep(model, 'model')
            self.end()


@VISBACKENDS.register_module()
class TensorBoardLog(Tracker):
    """Event files in ``WORK_DIR/tensorboard``; a resumed run replaces what it repeats."""

    def start(self, run: str, folder: Path, config: dict[str, Any], done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / 'tensorboard'), purge_step=done + 1)
        text = '\n'.join('    ' + line for line in json.dumps(config, indent=1).splitlines())
        self._writer.add_text('config', text, done)

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self) -> None:
        self._writer.close()


@VISBACKENDS.register_module()
class MLflowLog(Tracker):
    """A run at ``MLFLOW_TRACKING_URI``, else in ``WORK_DIR/mlflow.db``; a resumed run goes on in it.

    With it are kept the model folder and the report.
    """

    def start(self, run: str, folder: Path, config: dict[str, Any], done: int) -> None:
        os.environ.setdefault('MLFLOW_DISABLE_TELEMETRY', 'true')  # it would tell its makers of each run
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        logging.getLogger('mlflow').setLevel(logging.WARNING)
        self._metric = Metric
        address = os.environ.get('MLFLOW_TRACKING_URI')
        files = None if address else (folder / 'mlflow').as_uri()
        self._client = MlflowClient(address or f'sqlite:///{folder / "mlflow.db"}')
        name = os.environ.get('MLFLOW_EXPERIMENT_NAME', PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name, files)
        tag = {'work_dir': str(folder)}
        known = self._client.search_runs(
            [experiment], f"tags.work_dir = '{folder}'", max_results=1, order_by=['start_time DESC']
        )
        if done and known:
            self._run = known[0].info.run_id
            self._client.update_run(self._run, 'RUNNING')
            return
        self._run = self._client.create_run(experiment, tags=tag, run_name=run).info.run_id
        params = [Param(key[-250:], value) for key, value in flat(config)]
        for first in range(0, len(params), 100):  # as many as it takes at once
            self._client.log_batch(self._run, params=params[first : first + 100])

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [self._metric(name, value, now, step) for name, value in scalars.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def keep(self, path: Path, name: str) -> None:
        if path.is_dir():
            self._client.log_artifacts(self._run, str(path), name)
        else:
            self._client.log_artifact(self._run, str(path), name)

    def end(self) -> None:
        self._client.set_terminated(self._run)


@VISBACKENDS.register_module()
class WandbLog(Tracker):
    """A run of Weights & Biases; ``WANDB_MODE`` and its other variables hold."""

    def start(self, run: str, folder: Path, config: dict[str, Any], done: int) -> None:
        if is_offline():
            os.environ.setdefault('WANDB_MODE', 'offline')
        import wandb

        project = os.environ.get('WANDB_PROJECT', PROJECT)
        self._run = wandb.init(project=project, name=run, dir=str(folder), config=config, save_code=False)

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def end(self) -> None:
        self._run.finish()


@VISBACKENDS.register_module()
class ClearMLLog(Tracker):
    """A task of ClearML."""

    def start(self, run: str, folder: Path, config: dict[str, Any], done: int) -> None:
        from clearml import Task

        if is_offline():
            Task.set_offline(True)
        self._task = Task.init(
            project_name=PROJECT,
            task_name=run,
            reuse_last_task_id=False,
            auto_connect_arg_parser=False,
            auto_connect_frameworks=False,
            auto_resource_monitoring=False,
        )
        self._task.connect_configuration(config, name='config')
        self._logger = self._task.get_logger()

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._logger.report_scalar(title=name, series=name, value=value, iteration=step)

    def end(self) -> None:
        self._task.close()


@VISBACKENDS.register_module()
class DVCLiveLog(Tracker):
    """Files in ``WORK_DIR/dvclive``; a resumed run goes on in them."""

    def start(self, run: str, folder: Path, config: dict[str, Any], done: int) -> None:
        from dvclive import Live

        place = str(folder / 'dvclive')
        self._live = Live(place, resume=done > 0, save_dvc_exp=False, dvcyaml=None, monitor_system=False)
        self._live.log_params(config)

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._live.step = step
        for name, value in scalars.items():
            self._live.log_metric(name, value)
        self._live.make_summary()

    def end(self) -> None:
        self._live.end()


@VISBACKENDS.register_module()
class AimLog(Tracker):
    """A run of Aim, in ``WORK_DIR/.aim``."""

    def start(self, run: str, folder: Path, config: dict[str, Any], done: int) -> None:
        from aim import Run

        self._run = Run(
            repo=str(folder), experiment=PROJECT, system_tracking_interval=None, capture_terminal_logs=False
        )
        self._run.name = run
        self._run['config'] = config

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._run.track(value, name=name, step=step)

    def end(self) -> None:
        self._run.close()


# -- a logger that fails -----------------------------------------------------------------------------------------------
class _Guarded:
    """A backend whose methods are called until the first error, which costs a warning."""

    def __init__(self, name: str, backend: BaseVisBackend, logger: logging.Logger) -> None:
        self.name, self.backend, self._logger = name, backend, logger
        self._dropped = False

    def __getattr__(self, method: str) -> Callable[..., None]:
        return functools.partial(self._call, method)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> None:
        if self._dropped:
            return
        try:
            getattr(self.backend, method)(*args, **kwargs)
        except Exception as error:  # of a program that is not needed for training
            self._dropped = True
            told = _LOGIN.sub('', ' '.join(f'{type(error).__name__}: {error}'.split()))
            self._logger.warning(
                f'Logging to {self.name} has failed and ends here; training goes on. ({told[:_LONGEST]})'
            )


def guard(visualizer: Visualizer, logger: logging.Logger) -> None:
    """Let no backend end a run but the local one, whose files the run itself is read from.

    Args:
        visualizer: Its backends are replaced.
        logger: Is told of one that fails.
    """
    backends = visualizer._vis_backends
    for name, backend in backends.items():
        if not isinstance(backend, (LocalVisBackend, _Guarded)):
            backends[name] = cast(BaseVisBackend, _Guarded(name, backend, logger))


def _trackers(visualizer: Visualizer) -> Iterator[Any]:
    for backend in cast('Iterable[Any]', visualizer._vis_backends.values()):
        if isinstance(backend, _Guarded) and isinstance(backend.backend, Tracker):
            yield backend


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
