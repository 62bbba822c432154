# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit train`` and tools/train.py: train a model of any task.

The config says which toolbox it is for (``default_scope``); an option changes only what it is named after.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mmlightvit.cli.arguments import Parser, add_config_arguments, add_run_arguments
from mmlightvit.cli.config import read_run_config, require_config
from mmlightvit.errors import AllRanksError, UserError

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner

DEFAULT_EMA_MOMENTUM = 2e-4  # of MMEngine's EMAHook: an average over about 5000 steps


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'train',
        'Train a model: detection, classification or segmentation, as the config says.',
        [
            'configs/mask_rcnn_lightvit_t_1x.py --data-root /data/coco --amp',
            'configs/retinanet_lightvit_t_1x.py --auto-scale-lr --cfg-options train_dataloader.batch_size=4',
        ],
    )
    add_config_arguments(parser)
    add_run_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='FILE',
        help='go on from a checkpoint; without FILE from the last one in the work directory, if there is one',
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
    return parser


def require(args: argparse.Namespace) -> None:
    """What can be refused before anything is imported.

    Raises:
        UserError: A file of the command line does not exist.
    """
    require_config(args.config)


def prepare(args: argparse.Namespace) -> Config:
    """The config with the options applied and everything it reads found.

    Raises:
        UserError: Something is missing, or an option does not fit the config.
    """
    require(args)
    from mmlightvit.cli import options, preflight

    cfg = read_run_config(args)
    missing = [key for key in ('train_dataloader', 'train_cfg', 'optim_wrapper') if cfg.get(key) is None]
    if missing:
        raise UserError(f'{args.config} cannot be trained: it has no {", ".join(missing)}')
    if args.amp:
        options.use_amp(cfg)
    if args.ema is not None:
        options.use_ema(cfg, args.ema)
    if args.auto_scale_lr:
        options.use_auto_scale_lr(cfg)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    preflight.check_training(cfg)
    return cfg


def train(args: argparse.Namespace) -> Runner:
    """Train; returns the runner after training."""
    require(args)
    from mmlightvit.cli.run import carry_out

    runner, _ = carry_out(args, prepare, lambda runner: runner.train(), AllRanksError)
    return runner


def run(args: argparse.Namespace) -> None:
    """Train."""
    train(args)
