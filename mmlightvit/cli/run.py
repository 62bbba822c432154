# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""From the arguments of training or testing to its runner, and to what the runner does."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from mmlightvit.checkpoint import install as strict_loading
from mmlightvit.cli.quiet import Quiet, quiet_terminal
from mmlightvit.data.run_check import check_run
from mmlightvit.durable import bfloat16, launch
from mmlightvit.errors import UserError
from mmlightvit.toolboxes import TOOLBOXES, import_toolbox

Result = TypeVar('Result')


def carry_out(
    args: argparse.Namespace,
    prepare: Callable[[argparse.Namespace], Config],
    job: Callable[[Runner], Result],
    common: type[UserError] = UserError,
    splits: Sequence[str] = ('train', 'val'),
) -> tuple[Runner, Result]:
    """Prepare a config, build its runner and let it do a job.

    Args:
        args: The command's arguments.
        prepare: Gives the config.
        job: The task of the runner.
        common: The errors of the job that all processes run into alike.
        splits: Splits to check before.

    Returns:
        The runner, and what the job returned.
    """
    with quiet_terminal() as quiet:
        with launch.reported_once(args.launcher):
            cfg = prepare(args)
            runner = build_runner(cfg, quiet, splits)
        if is_main_process():
            log = os.path.join(runner.log_dir, f'{runner.timestamp}.log')
            print(f'environment, config and warnings: {min(log, os.path.relpath(log), key=len)}', flush=True)
            if pictures := where_pictures_go(cfg, runner.log_dir):
                print(pictures, flush=True)
        with launch.reported_once(args.launcher, common):
            result = job(runner)
        if is_main_process():
            places = [cfg.work_dir, getattr(args, 'out', None), getattr(args, 'show_dir', None)]
            print(f'everything of this run is in {" and ".join(filter(None, places))}', flush=True)
        launch.leave_distributed()
    return runner, result


def build_runner(cfg: Config, quiet: Quiet | None = None, splits: Sequence[str] = ()) -> Runner:
    """The runner the config asks for (``runner_type``), MMEngine's otherwise.

    Args:
        cfg: The prepared config.
        quiet: Keeps off the terminal what is for the log file.
        splits: Splits to check before.

    Raises:
        UserError: There is no such runner, or the data cannot be used.
    """
    with quiet.imports() if quiet else contextlib.nullcontext():
        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg.custom_imports)
        strict_loading.install()
        import_toolbox(cfg.default_scope)
        if (cfg.get('test_cfg') or {}).get('fp16') and get_device() == 'cpu':
            bfloat16.install()  # MMEngine's autocast takes it there; in training, the optimizer wrapper installs it
    env_cfg = cfg.get('env_cfg') or {}
    launch.init_distributed(cfg.launcher, env_cfg.get('dist_cfg'), env_cfg.get('mp_cfg'))
    name = cfg.get('runner_type', 'Runner')
    kind = RUNNERS.get(name)
    if kind is None:
        raise UserError(f'runner_type={name}: there is no such runner; ours is mmlightvit.Runner')
    checked = check_run(cfg, splits)
    runner = (_quieted(kind, quiet) if quiet else kind).from_cfg(cfg)
    if is_main_process():
        checked.log(runner.logger)
    return runner


def where_pictures_go(cfg: Config, log_dir: str) -> str | None:
    """A line on the pictures that the toolbox's visualization hook writes; None where it writes none."""
    toolbox = TOOLBOXES.get(cfg.default_scope)
    hook = (cfg.get('default_hooks') or {}).get('visualization') or {}
    if toolbox is None or not hook.get(toolbox.draw_switch):
        return None
    chosen: Any = cfg
    for name in toolbox.draw_folder.split('.'):
        chosen = (chosen or {}).get(name)
    if chosen is None:
        chosen = os.path.join(log_dir, 'vis_data')
    elif toolbox.draw_folder.startswith('default_hooks'):  # the hook's own; a visualizer has a folder in its folder
        return f'pictures of predictions: {chosen}'
    every = hook.get('interval', 'its default')
    return f'pictures of predictions (default_hooks.visualization.interval: {every}): {chosen}/vis_image'


def _quieted(kind: type[Runner], quiet: Quiet) -> type[Runner]:
    """The runner with a logger that writes to the terminal only what is for it."""

    def build_logger(self: Runner, *args: Any, **kwargs: Any) -> Any:
        logger = kind.build_logger(self, *args, **kwargs)
        quiet.attach(logger)
        return logger

    return type(
        kind.__name__, (kind,), dict(build_logger=build_logger, __module__=kind.__module__, __doc__=kind.__doc__)
    )
