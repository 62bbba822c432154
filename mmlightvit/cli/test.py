# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit test`` and tools/test.py: measure a checkpoint of any task on its config's test set."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from mmlightvit.cli.arguments import Parser, add_config_arguments, add_run_arguments
from mmlightvit.cli.config import read_run_config, require_config, require_file
from mmlightvit.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'test',
        "Test a checkpoint on the config's test set: detection, classification or segmentation.",
        [
            'configs/mask_rcnn_lightvit_t_1x.py work_dirs/mask_rcnn_lightvit_t_1x/epoch_12.pth',
            'configs/lightvit_t_imagenet.py lightvit_tiny_78.7.ckpt --data-root /data/imagenet --tta',
        ],
    )
    add_config_arguments(parser)
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint file or address')
    add_run_arguments(parser)
    parser.add_argument(
        '--out',
        metavar='PATH',
        help='keep the predictions: a .json or .pkl file, for segmentation a folder of label maps; a test set without '
        'labels is not measured then',
    )
    parser.add_argument('--show', action='store_true', help='show each prediction in a window')
    parser.add_argument('--show-dir', metavar='DIR', help='write a picture of each prediction to DIR')
    parser.add_argument('--wait-time', type=float, default=2.0, help='seconds a window of --show stays (default 2)')
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation with the config's tta_model and tta_pipeline (boxes, not instance masks)",
    )
    return parser


def require(args: argparse.Namespace) -> None:
    """What can be refused before anything is imported.

    Raises:
        UserError: A file of the command line does not exist.
    """
    require_config(args.config)
    require_file(args.checkpoint, 'checkpoint', 'the second argument')


def prepare(args: argparse.Namespace) -> Config:
    """The config with the options applied and everything it reads found.

    Raises:
        UserError: Something is missing, or an option does not fit the config.
    """
    require(args)
    from mmlightvit.cli import options, preflight

    cfg = read_run_config(args)
    missing = [key for key in ('test_dataloader', 'test_evaluator', 'test_cfg') if cfg.get(key) is None]
    if missing:
        raise UserError(f'{args.config} cannot be tested: it has no {", ".join(missing)}')
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.amp:
        cfg.test_cfg.fp16 = True  # MMEngine's name; its autocast takes bfloat16 on the CPU
    if args.show or args.show_dir is not None:
        options.show_predictions(cfg, window=args.show, folder=args.show_dir, wait_time=args.wait_time)
    if args.tta:
        options.use_tta(cfg)
    options.keep_predictions(cfg, args.out)
    preflight.check_testing(cfg)
    for path, option in ((args.out, '--out PATH'), (args.show_dir, '--show-dir DIR')):
        if path is not None:
            preflight.check_writable(os.path.dirname(os.path.abspath(path)), 'folder', option)
    return cfg


def test(args: argparse.Namespace) -> dict[str, float]:
    """Test; returns the metrics."""
    require(args)
    from mmlightvit.cli.run import carry_out

    _, metrics = carry_out(args, prepare, lambda runner: runner.test(), splits=('test',))
    return metrics


def run(args: argparse.Namespace) -> None:
    """Test."""
    test(args)
