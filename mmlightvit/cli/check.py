# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit check`` and tools/misc/check_dataset.py: read the data of a config before training meets it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from mmlightvit.cli.arguments import Parser
from mmlightvit.cli.options import CONFIG, add_options, configure

SPLITS = ('train', 'val', 'test')


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'check',
        'Read the data that a config names and list every problem; exit code 1 if there is any.',
        ['configs/mask_rcnn_lightvit_t_1x.py --data-root /data/coco', 'pets/config.py --split val'],
    )
    add_options(parser, CONFIG)
    parser.add_argument('--split', nargs='+', choices=SPLITS, default=list(SPLITS), help='default: all that it has')
    return parser


def run(args: argparse.Namespace) -> int:
    """Print what is found; 1 if there is a problem."""
    cfg = configure(args)
    from rich.console import Console
    from rich.progress import track

    from mmlightvit.cli.quiet import quiet_terminal
    from mmlightvit.data.check import check_config
    from mmlightvit.toolboxes import import_toolbox

    with quiet_terminal() as quiet, quiet.imports():
        import_toolbox(cfg.default_scope)
    console = Console(stderr=True)

    def progress(items: Iterable, what: str, total: int) -> Iterable:
        return track(items, what, total, console=console)

    report = check_config(cfg, args.split, progress)
    for line in report.notes:
        print(f'note: {line}')
    for line in report.problems:
        print(f'problem: {line}')
    print(f'{len(report.problems) or "no"} problem{"s" * (len(report.problems) != 1)} in {report.images} images')
    return 1 if report.problems else 0
