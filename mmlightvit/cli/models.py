# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit models``: the models that have a name, and their weights."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from mmlightvit.checkpoint import zoo
from mmlightvit.cli.arguments import Parser
from mmlightvit.errors import UserError
from mmlightvit.tasks import TASKS


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'models',
        'List the models that have a name; `pull NAME` fetches the weights, `path NAME` prints where they are kept. '
        'Nothing is fetched where MMLIGHTVIT_OFFLINE=1; TORCH_HOME moves the cache.',
        ['--task instance', 'pull lightvit_t_imagenet'],
    )
    parser.add_argument('action', nargs='?', choices=('pull', 'path'), help='what to do with NAME')
    parser.add_argument('name', metavar='NAME', nargs='?', help='a name of the list')
    parser.add_argument('--task', choices=tuple(TASKS), help='only models of this task')
    parser.add_argument('--to', metavar='DIR', help='with pull: copy the file into this folder too')
    parser.add_argument('--json', action='store_true', help='print JSON')
    return parser


def run(args: argparse.Namespace) -> None:
    """List, or do what the action says."""
    if args.to is not None and args.action != 'pull':
        raise UserError('--to is for `mmlightvit models pull NAME`')
    if args.action is None:
        _list(args)
        return
    if args.name is None:
        raise UserError(f'mmlightvit models {args.action} needs a NAME of `mmlightvit models`')
    entry = zoo.find(args.name)
    if args.action == 'path':
        if entry.cached is None:
            raise UserError(zoo.without_weights(entry))
        print(entry.cached)
        return
    path = zoo.pull(args.name)
    if args.to is not None:
        target = Path(args.to).expanduser()
        target.mkdir(parents=True, exist_ok=True)
        path = Path(shutil.copy2(path, target / path.name))
    print(f'{path}{"" if entry.sha256 else " (unverified: no hash of it was published)"}')


def _list(args: argparse.Namespace) -> None:
    wanted = [entry for entry in zoo.entries() if args.task in (None, entry.task)]
    if args.json:
        print(json.dumps([_row(entry) for entry in wanted], indent=1))
        return
    header = ('name', 'task', 'params M', 'MACs G', 'published', 'MB', 'licence', 'here')
    rows = [
        (
            entry.name,
            entry.task,
            f'{entry.parameters / 1e6:.1f}' if entry.parameters else '',
            f'{entry.macs / 1e9:.1f}' if entry.macs else '',
            entry.metric,
            f'{entry.size / 1e6:.0f}' if entry.size else '',
            entry.licence,
            'here' if entry.is_here else '',
        )
        for entry in wanted
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _row(entry: zoo.Entry) -> dict[str, object]:
    return {
        'name': entry.name,
        'task': entry.task,
        'parameters': entry.parameters,
        'multiply_adds': entry.macs,
        'published': entry.metric,
        'size': entry.size,
        'sha256': entry.sha256,
        'licence': entry.licence,
        'address': entry.address,
        'config': str(entry.config),
        'path': None if entry.cached is None else str(entry.cached),
        'here': entry.is_here,
    }
