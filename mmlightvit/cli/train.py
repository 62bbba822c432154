# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit train`` and tools/train.py: train a model of any task, on a prepared folder or as a config says.

The config says which toolbox it is for (``default_scope``); an option changes only what it is named after
(:mod:`mmlightvit.cli.options`). A prepared folder has its config, the recipe of its task.
"""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mmlightvit.cli import recipe
from mmlightvit.cli.arguments import Parser
from mmlightvit.cli.config import require_config
from mmlightvit.cli.options import TRAIN, add_options, configure, require_values
from mmlightvit.errors import AllRanksError, UserError
from mmlightvit.tasks import CLASSIFICATION

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner

    from mmlightvit.data.folder import DatasetFolder


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'train',
        'Train a model: detection, classification or segmentation. CONFIG is a config file, or a folder that '
        '`mmlightvit data import` has written, which is trained by the recipe of its task.',
        ['pets --epochs 24 --batch 4', 'configs/mask_rcnn_lightvit_t_1x.py --data-root /data/coco --amp'],
        usage='%(prog)s CONFIG [options]',
    )
    add_options(parser, TRAIN)
    parser.set_defaults(is_tool=False)
    return parser


def _is_folder(args: argparse.Namespace) -> bool:
    return os.path.isdir(os.path.expanduser(args.config))


def require(args: argparse.Namespace) -> None:
    """Refuse what can be refused before anything is imported, and choose the device, which torch looks for only once.

    Raises:
        UserError: A file of the command line does not exist, or an option cannot be meant.
    """
    if args.time is not None and args.epochs is not None:
        raise UserError('--time finds the number of epochs; leave --epochs out')
    if args.device is not None:
        recipe.choose_device(args.device)
    if not _is_folder(args):
        require_config(args.config)
    require_values(args, TRAIN, on_folder=_is_folder(args))


def open_folder(args: argparse.Namespace) -> DatasetFolder | None:
    """The prepared folder that is trained on, if it is one.

    Raises:
        UserError: It cannot be trained on.
    """
    if not _is_folder(args):
        return None
    from mmlightvit.data.folder import DatasetFolder

    folder = DatasetFolder.load(args.config)
    if folder.task == CLASSIFICATION and len(folder.classes) < 2:
        raise UserError(f'{args.config} has one class, {folder.classes[0]}: there is nothing to tell apart')
    return folder if args.fold is None else folder.fold(args.fold)


def prepare(args: argparse.Namespace) -> Config:
    """The config with the options applied.

    Raises:
        UserError: It cannot be trained, or an option does not fit it.
    """
    return configure(args, TRAIN, open_folder(args), 'trained')


def check(cfg: Config) -> None:
    """Find everything that a prepared config reads and writes.

    Raises:
        UserError: Something is missing.
    """
    from mmlightvit.cli import preflight

    preflight.check_training(cfg)


def announced(args: argparse.Namespace) -> Config:
    """The config, prepared and checked, and a line that does the same once more: the runner writes this config."""
    cfg = prepare(args)
    check(cfg)
    first = int(os.environ.get('RANK', '0')) == 0
    if args.time is not None:
        from mmlightvit.cli import time_budget

        message = time_budget.use_time(cfg, time_budget.seconds_of(args.time))
        if first:
            print(f'--time {args.time}: {message}', flush=True)
    if _is_folder(args) and first:
        written = Path(cfg.work_dir) / Path(cfg.filename).name
        print(f'python tools/train.py {shlex.quote(str(written))}', flush=True)
    return cfg


def train(args: argparse.Namespace) -> Runner:
    """Train; returns the runner after training."""
    require(args)
    from mmlightvit.cli.run import carry_out

    def job(runner: Runner) -> None:
        if not args.is_tool:
            from mmlightvit.cli import progress

            progress.show(runner)
        runner.train()

    runner, _ = carry_out(args, announced, job, AllRanksError)
    return runner


def run(args: argparse.Namespace) -> None:
    """Train, and measure what came of a prepared folder."""
    runner = train(args)
    if _is_folder(args) and not args.no_report and runner.rank == 0:
        _report(runner, Path(args.config).expanduser())


def _report(runner: Runner, folder: Path) -> None:
    """Write ``WORK_DIR/report`` and the thresholds that it has chosen; one that cannot be had is no failed training."""
    from mmlightvit.durable import trackers
    from mmlightvit.evaluation import packages
    from mmlightvit.evaluation.predictions import answers
    from mmlightvit.evaluation.report import write_report
    from mmlightvit.evaluation.truth import of_data
    from mmlightvit.model_folder.write import set_thresholds

    model, out = Path(runner.work_dir) / 'model', Path(runner.work_dir) / 'report'
    try:
        packages.require()
        truth = of_data(str(folder), 'val')
        predictions = answers(str(model), truth)
        out.mkdir(exist_ok=True)
        metrics = write_report(predictions, truth, out)
    except UserError as error:
        print(f'no report: {error}')
        return
    if 'thresholds' in metrics:
        set_thresholds(model, metrics)
    trackers.keep(runner.visualizer, model / 'model.json', out)
    print(f'how good it is, and where it fails: {out / "index.html"}')
