# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit train`` and tools/train.py: train a model of any task, on a prepared folder or as a config says.

The config says which toolbox it is for (``default_scope``); an option changes only what it is named after. A prepared
folder has its config, the recipe of its task.
"""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlightvit.cli.arguments import Parser, add_config_arguments, add_run_arguments
from mmlightvit.cli.config import read_run_config, require_config
from mmlightvit.errors import AllRanksError, UserError

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner

    from mmlightvit.data.folder import DatasetFolder

PATIENCE = 20  # validations without progress after which the training on a folder stops
LAST = ''  # of --resume without a file
DEFAULT_EMA_MOMENTUM = 2e-4  # of MMEngine's EMAHook: an average over about 5000 steps


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'train',
        'Train a model: detection, classification or segmentation. CONFIG is a config file, or a folder that '
        '`mmlightvit data import` has written, which is trained by the recipe of its task.',
        ['pets --epochs 24 --batch 4', 'configs/mask_rcnn_lightvit_t_1x.py --data-root /data/coco --amp'],
        usage='%(prog)s CONFIG [options]',
    )
    add_config_arguments(parser)
    _add_folder_arguments(parser)
    _add_number_arguments(parser)
    add_run_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const=LAST,
        metavar='FILE',
        help='go on from a checkpoint; without FILE from the last one in the work directory; `--resume auto` starts '
        'from the beginning where there is none',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by this run's batch size over the config's auto_scale_lr.base_batch_size",
    )
    parser.add_argument(
        '--ema',
        nargs='?',
        type=float,
        const=DEFAULT_EMA_MOMENTUM,
        metavar='MOMENTUM',
        help='keep an exponential moving average of the weights, validate it and save it as the model; '
        f'MOMENTUM is the share of the new weights in each step (default {DEFAULT_EMA_MOMENTUM})',
    )
    parser.set_defaults(is_tool=False)
    return parser


def _add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """What needs the data of a prepared folder."""
    group = parser.add_argument_group('for a prepared folder')
    add: Any = group.add_argument
    add('--model', metavar='NAME', help='model of another config of the task')
    add('--fold', type=int, metavar='K', help='train on fold K of `mmlightvit data split --folds`')
    add('--balance', choices=('none', 'repeat', 'loss'), default='none', help='rare classes: more often, or heavier')
    add('--no-report', action='store_true', help='leave out the report at the end')


def _add_number_arguments(parser: argparse.ArgumentParser) -> None:
    """Short names for the settings that are changed most."""
    group = parser.add_argument_group('short for settings of the config')
    add: Any = group.add_argument
    add('--from', dest='source', metavar='MODEL', help='start from the weights of a file, folder or name; none')
    add('--epochs', type=int, metavar='N', help='passes over the data; stretches the schedule')
    add('--time', metavar='T', help='as many epochs as fit into T, such as 2h30m')
    add('--batch', type=int, metavar='N', help='pictures per step; the rate is scaled along')
    add('--lr', type=float, metavar='X', help='learning rate, as it is')
    add('--size', type=int, metavar='PX', help='short side, or square, of the pictures')
    add('--freeze', type=int, metavar='N', help='keep the stem and the first N stages as they start')
    add('--workers', type=int, metavar='N', help='processes that load data')
    add('--seed', type=int, metavar='N', help='of everything random')
    add('--device', metavar='D', help='cpu, cuda or cuda:N')
    add('--log', nargs='+', metavar='NAME', help='tensorboard, mlflow, wandb, clearml, dvclive, aim')
    add(
        '--patience',
        type=int,
        metavar='N',
        help=f'stop after N validations without progress, 0: never (default {PATIENCE} for a folder)',
    )


def require(args: argparse.Namespace) -> None:
    """What can be refused before anything is imported.

    Raises:
        UserError: A file of the command line does not exist.
    """
    if args.time is not None and args.epochs is not None:
        raise UserError('--time finds the number of epochs; leave --epochs out')
    if args.device is not None:
        from mmlightvit.cli.recipe import choose_device

        choose_device(args.device)
    if _is_folder(args):
        return
    require_config(args.config)
    for option in ('model', 'fold', 'balance'):
        if getattr(args, option) not in (None, 'none'):
            raise UserError(f'--{option} goes with a prepared folder (mmlightvit data import), not with a config')


def _is_folder(args: argparse.Namespace) -> bool:
    return os.path.isdir(os.path.expanduser(args.config))


def _folder(args: argparse.Namespace) -> DatasetFolder | None:
    """The prepared folder that is trained on, if it is one."""
    if not _is_folder(args):
        return None
    from mmlightvit.data.folder import DatasetFolder

    folder = DatasetFolder.load(args.config)
    if folder.task == 'classification' and len(folder.classes) < 2:
        raise UserError(f'{args.config} has one class, {folder.classes[0]}: there is nothing to tell apart')
    return folder if args.fold is None else folder.fold(args.fold)


def prepare(args: argparse.Namespace) -> Config:
    """The config with the options applied and everything it reads found.

    Raises:
        UserError: Something is missing, or an option does not fit the config.
    """
    require(args)
    from mmlightvit.cli import options, preflight

    folder = _folder(args)
    if folder is not None:
        args = argparse.Namespace(**{**vars(args), 'config': str(folder.config)})
    cfg = read_run_config(args, None if folder is None else lambda cfg: _use_folder(cfg, folder, args))
    missing = [key for key in ('train_dataloader', 'train_cfg', 'optim_wrapper') if cfg.get(key) is None]
    if missing:
        raise UserError(f'{args.config} cannot be trained: it has no {", ".join(missing)}')
    _use_numbers(cfg, args, folder)
    if args.amp:
        options.use_amp(cfg)
    if args.ema is not None:
        options.use_ema(cfg, args.ema)
    scaled = args.lr is None and (folder is not None or args.batch is not None)
    if args.auto_scale_lr or scaled:
        options.use_auto_scale_lr(cfg)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume in (LAST, 'auto') else args.resume
        if args.resume == LAST and not preflight.goes_on(cfg):
            raise UserError(
                f'--resume: there is no checkpoint in {cfg.work_dir} to go on from; name the work directory of the run '
                'with --work-dir DIR, or use --resume auto, which starts from the beginning where there is none'
            )
    options.drop_replaced_weights(cfg)
    preflight.check_training(cfg)
    return cfg


def _use_folder(cfg: Config, folder: DatasetFolder, args: argparse.Namespace) -> None:
    """The options that need the data; before --cfg-options, which have the last word."""
    from mmlightvit.cli import recipe

    if args.model is not None:
        recipe.use_model(cfg, args.model, folder)
    if args.fold is not None:
        recipe.use_fold(cfg, folder)
    if args.balance != 'none':
        for line in recipe.balance(cfg, folder, args.balance):
            print(line)


def _use_numbers(cfg: Config, args: argparse.Namespace, folder: DatasetFolder | None) -> None:
    """The options that are short for settings."""
    from mmlightvit.cli import recipe

    if args.source is not None:
        recipe.start_from(cfg, args.source)
    if args.batch is not None:
        cfg.train_dataloader.batch_size = args.batch
    if args.epochs is not None:
        pictures = None if folder is None else folder.info['splits']['train']['pictures']
        recipe.use_epochs(cfg, args.epochs, pictures, int(os.environ.get('WORLD_SIZE', '1')))
    if args.lr is not None:
        cfg.optim_wrapper.optimizer.lr = args.lr
    if args.size is not None:
        recipe.use_size(cfg, args.size)
    if args.freeze is not None:
        cfg.model.backbone.frozen_stages = args.freeze
    if args.workers is not None:
        recipe.use_workers(cfg, args.workers)
    if args.seed is not None:
        cfg.merge_from_dict({'randomness.seed': args.seed})
    if args.log is not None:
        recipe.use_logs(cfg, args.log)
    patience = PATIENCE if args.patience is None and folder is not None else args.patience
    if patience is not None:
        recipe.use_patience(cfg, patience)


def announced(args: argparse.Namespace) -> Config:
    """:func:`prepare`, followed by a line that does the same once more: the runner writes this config."""
    cfg = prepare(args)
    first = int(os.environ.get('RANK', '0')) == 0
    if args.time is not None:
        from mmlightvit.cli import preflight, time_budget

        told = time_budget.use_time(cfg, time_budget.seconds_of(args.time), preflight.goes_on(cfg))
        if first:
            print(f'--time {args.time}: {told}', flush=True)
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
    folder = _folder(args)
    if folder is not None and not args.no_report and runner.rank == 0:
        _report(runner, folder)


def _report(runner: Runner, folder: DatasetFolder) -> None:
    """Write ``WORK_DIR/report`` and the thresholds that it has chosen; one that cannot be had is no failed training."""
    from mmlightvit.cli.report import keep
    from mmlightvit.durable import trackers
    from mmlightvit.evaluation import packages
    from mmlightvit.evaluation.predictions import answers
    from mmlightvit.evaluation.report import write_report
    from mmlightvit.evaluation.truth import of_data

    model, out = Path(runner.work_dir) / 'model', Path(runner.work_dir) / 'report'
    try:
        packages.require()
        truth = of_data(str(folder.path), 'val')
        found = answers(str(model), truth)
        out.mkdir(exist_ok=True)
        metrics = write_report(found, truth, out)
    except UserError as error:
        print(f'no report: {error}')
        return
    if 'thresholds' in metrics:
        keep(model, metrics)
    trackers.keep(runner.visualizer, model / 'model.json', out)
    print(f'how good it is, and where it fails: {out / "index.html"}')
