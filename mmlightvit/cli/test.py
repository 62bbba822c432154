# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit test`` and tools/test.py: measure a checkpoint of any task on its config's test set."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mmlightvit.cli import testing
from mmlightvit.cli.arguments import Parser
from mmlightvit.cli.config import require_config, require_file
from mmlightvit.cli.options import TEST, add_options, configure, require_values

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
    add_options(parser, TEST)
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint file or address')
    return parser


def require(args: argparse.Namespace) -> None:
    """Refuse what can be refused before anything is imported.

    Raises:
        UserError: A file of the command line does not exist.
    """
    require_config(args.config)
    require_file(args.checkpoint, 'checkpoint', 'the second argument')
    require_values(args, TEST)


def prepare(args: argparse.Namespace) -> Config:
    """The config with the options applied.

    Raises:
        UserError: It cannot be tested, or an option does not fit it.
    """
    cfg = configure(args, TEST, to_be='tested')
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.out is None:
        testing.require_labels(cfg)
    return cfg


def check(cfg: Config) -> None:
    """Find everything that a prepared config reads and writes.

    Raises:
        UserError: Something is missing.
    """
    from mmlightvit.cli import preflight

    preflight.check_testing(cfg)


def checked(args: argparse.Namespace) -> Config:
    """The config, prepared and checked."""
    cfg = prepare(args)
    check(cfg)
    return cfg


def test(args: argparse.Namespace) -> dict[str, float]:
    """Test; returns the metrics."""
    require(args)
    from mmlightvit.cli.run import carry_out

    _, metrics = carry_out(args, checked, lambda runner: runner.test(), splits=('test',))
    return metrics


def run(args: argparse.Namespace) -> None:
    """Test."""
    test(args)
