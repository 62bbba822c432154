# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit check``: read the data of a prepared folder or of a config before training meets it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mmlightvit.cli.arguments import Parser
from mmlightvit.cli.options import CONFIG, add_options, configure

if TYPE_CHECKING:
    from mmlightvit.data.rules import Report

SPLITS = ('train', 'val', 'test')


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'check',
        'Read data as training will and list every problem; exit code 1 if there is any. CONFIG is a prepared folder, '
        'or a config.',
        ['data/pets', 'configs/mask_rcnn_lightvit_t_1x.py --data-root /data/coco', 'pets/config.py --split val --json'],
    )
    add_options(parser, CONFIG)
    add_check_arguments(parser)
    return parser


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command's former name takes too."""
    parser.add_argument('--split', nargs='+', choices=SPLITS, default=list(SPLITS), help='default: all that it has')
    parser.add_argument('--json', action='store_true', help='one JSON document on stdout')


def run(args: argparse.Namespace) -> int:
    """Print what is found; 1 if there is a problem."""
    folder = Path(args.config).expanduser()
    if folder.is_dir():
        from mmlightvit.data.check import check_folder
        from mmlightvit.data.folder import DatasetFolder

        report = check_folder(DatasetFolder.load(folder), splits=args.split)
    else:
        report = _check_config(args)
    if args.json:
        print(json.dumps(report.to_dict(), indent=1, ensure_ascii=False))
    else:
        print_report(report)
    return 1 if report.problems else 0


def _check_config(args: argparse.Namespace) -> Report:
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

    return check_config(cfg, args.split, progress)


def print_report(report: Report) -> None:
    """One line for each note and problem, and how many there are."""
    for line in (*report.warnings, *report.notes):
        print(f'note: {line}')
    for line in report.problems:
        print(f'problem: {line}')
    print(f'{len(report.problems) or "no"} problem{"s" * (len(report.problems) != 1)} in {report.images} images')
