# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The parser of every command, and the options that several of them share. Imports neither torch nor mmengine."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that looks most like ``name``; None where none does."""
    return next(iter(difflib.get_close_matches(name, list(known), 1, cutoff)), None)


class _Formatter(argparse.HelpFormatter):
    """Wraps the description, and keeps the lines of the examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith('examples:') else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """A parser whose help ends with examples, and whose errors are one line that names the nearest option.

    Args:
        name: The command, as in ``mmlightvit NAME``.
        description: What it does.
        examples: What follows ``mmlightvit NAME`` in an example, each.
        **kwargs: Other arguments of :class:`argparse.ArgumentParser`, which sub-commands are made with.
    """

    def __init__(self, name: str = '', description: str = '', examples: Sequence[str] = (), **kwargs: Any) -> None:
        prog = kwargs.pop('prog', f'mmlightvit {name}'.strip())
        self._examples = examples
        super().__init__(prog=prog, description=description, formatter_class=_Formatter, **kwargs)

    def format_help(self) -> str:
        """The help, under the name that the command was called by."""
        if self._examples:
            command = f'python {self.prog}' if self.prog.endswith('.py') else self.prog
            self.epilog = 'examples:\n' + '\n'.join(f'  {command} {example}'.rstrip() for example in self._examples)
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Leave with one line and exit code 2."""
        unknown = re.match(r'unrecognized arguments: (--?[^\s=]+)', message)
        choice = re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
        hint = None
        if unknown:
            hint = nearest(unknown[1], self._option_string_actions)
        elif choice:
            hint = nearest(choice[1], re.findall(r"[^\s',]+", choice[2]))
        self.exit(2, f'error: {message}{f"; nearest: {hint}" if hint else ""}; see {self.prog} --help\n')


class KeyValues(argparse.Action):
    """Reads ``KEY=VALUE ...`` into a dict of texts; a later one of the same key wins."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        found = dict(getattr(namespace, self.dest) or {})
        for item in values:
            key, separator, value = item.partition('=')
            if not separator or not key.lstrip('+'):
                raise argparse.ArgumentError(self, _about_item(item, values, parser.prog))
            found[key] = value
        setattr(namespace, self.dest, found)


def _about_item(item: str, values: Sequence[str], prog: str) -> str:
    before = values[values.index(item) - 1] if values.index(item) else ''
    if before.count('(') + before.count('[') > before.count(')') + before.count(']'):
        return f'a value with a space in it needs quotes, such as "{before} {item}"'
    if item.endswith(('.py', '.pth')):
        return f'{item} is read as a setting; it goes in front: {prog} {item} --cfg-options KEY=VALUE'
    return f'expected KEY=VALUE such as train_dataloader.batch_size=4, got {item!r}'


def add_config_arguments(parser: argparse.ArgumentParser, example: str = 'model.backbone.arch=small') -> None:
    """``CONFIG``, ``--data-root`` and ``--cfg-options``."""
    parser.add_argument('config', metavar='CONFIG', help='config file')
    parser.add_argument('--data-root', metavar='DIR', help='where the data is: moves every split and evaluator file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help=f'change settings of the config, e.g. {example}; +KEY=VALUE adds one that it does not have',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What training and testing share."""
    parser.add_argument('--work-dir', metavar='DIR', help='logs and checkpoints (default work_dirs/CONFIG)')
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16 on a GPU, bfloat16 on the CPU')
    parser.add_argument(
        '--compile',
        nargs='?',
        const='default',
        metavar='MODE',
        help='compile the backbone with torch.compile in MODE (default "default"); takes minutes on the first batch',
    )
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none', help='what started the processes'
    )
    parser.add_argument('--local-rank', '--local_rank', type=int, help=argparse.SUPPRESS)  # older launchers' way
