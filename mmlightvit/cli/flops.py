# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit flops`` and tools/analysis/get_flops.py: parameters and multiply-adds, without any data."""

from __future__ import annotations

import argparse

from mmlightvit.cli.arguments import Parser
from mmlightvit.cli.options import CONFIG, add_options, configure
from mmlightvit.errors import UserError


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    from mmlightvit.cost.tables import FORMATS

    parser = Parser(
        'flops',
        'Parameters and multiply-adds of a config of any task, without its data.',
        ['configs/mask_rcnn_lightvit_t_1x.py', 'configs/lightvit_t_imagenet.py --shape 384 384 --depth 4'],
    )
    add_options(parser, CONFIG)
    parser.add_argument(
        '--shape', type=int, nargs=2, metavar=('H', 'W'),
        help='input size in pixels (default: classifier 224 224, detector 800 1280, segmenter 512 512)',
    )  # fmt: skip
    parser.add_argument('--depth', type=int, default=2, help='levels of modules shown (default 2)')
    parser.add_argument('--format', choices=FORMATS, default='terminal', help='form of the table (default terminal)')
    return parser


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    if args.depth < 0:
        raise UserError(f'--depth: expected a number >= 0, got {args.depth}')
    cfg = configure(args)
    from mmlightvit.cli.quiet import quiet_terminal
    from mmlightvit.cost.counting import count
    from mmlightvit.cost.reports import count_report

    with quiet_terminal() as quiet, quiet.imports():
        found = count(cfg, args.shape)
    print(count_report(found, args.depth, args.format), end='')
