# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The parser of every command, and the options that several of them share. Imports neither torch nor mmengine."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mmlightvit.errors import UserError


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
        description: Its purpose.
        examples: The words behind ``mmlightvit NAME``, one example each.
        **kwargs: Other arguments of :class:`argparse.ArgumentParser`, which sub-commands are made with.
    """

    def __init__(self, name: str = '', description: str = '', examples: Sequence[str] = (), **kwargs: Any) -> None:
        prog = kwargs.pop('prog', f'mmlightvit {name}'.strip())
        self._examples = examples
        super().__init__(prog=prog, description=description, formatter_class=_Formatter, **kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse, and let the result know its parser; see :func:`refuse_unread`."""
        parsed, rest = super().parse_known_args(args, namespace)
        parsed.parser = self
        return parsed, rest

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
        settings = dict(getattr(namespace, self.dest) or {})
        for item in values:
            key, separator, value = item.partition('=')
            if not separator or not key.lstrip('+'):
                raise argparse.ArgumentError(self, _about_item(item, values, parser.prog))
            settings[key] = value
        setattr(namespace, self.dest, settings)


def _about_item(item: str, values: Sequence[str], prog: str) -> str:
    before = values[values.index(item) - 1] if values.index(item) else ''
    if before.count('(') + before.count('[') > before.count(')') + before.count(']'):
        return f'a value with a space in it needs quotes, such as "{before} {item}"'
    if item.endswith(('.py', '.pth')):
        return f'{item} is read as a setting; it goes in front: {prog} {item} --cfg-options KEY=VALUE'
    return f'expected KEY=VALUE such as train_dataloader.batch_size=4, got {item!r}'


def refuse_unread(args: argparse.Namespace, names: Iterable[str], reason: str) -> None:
    """Refuse options that nothing would read.

    Args:
        args: The command's arguments.
        names: Of the options that nothing reads.
        reason: Why not.

    Raises:
        UserError: One of them was given.
    """
    for name in names:
        option = next(action for action in args.parser._actions if action.dest == name)
        if getattr(args, name) != option.default:
            raise UserError(f'{option.option_strings[0]} would not be read: {reason}')


def add_model_arguments(parser: argparse.ArgumentParser, *, device: str | None = None) -> None:
    """How a command that takes a model loads it; :func:`model_options` gives what was chosen.

    Args:
        parser: Of the command.
        device: The only device that the command has use for; by default the user names one.
    """
    add: Any = parser.add_argument
    add('--config', metavar='FILE', help='config of a checkpoint')
    if device is None:
        add('--device', metavar='D', help='cuda, cpu, ...; exported files: cpu, cuda, openvino:CPU')
    else:
        parser.set_defaults(device=device)
    add(
        '--random', dest='allow_random', action='store_true',
        help='take random weights where there are none; they predict nothing',
    )  # fmt: skip
    add('--trust', action='store_true', help='open a .pt2 file, which can run any code, as a config can')


#: Where :func:`add_model_arguments` puts its options, which are arguments of ``load_model``.
MODEL_OPTIONS = ('config', 'device', 'allow_random', 'trust')


def model_options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of ``load_model`` that the user chose."""
    return {name: getattr(args, name) for name in MODEL_OPTIONS}


def add_batch_argument(parser: argparse.ArgumentParser) -> None:
    """``--batch`` of a command that predicts."""
    parser.add_argument('--batch', type=int, default=1, metavar='N', help='pictures of one size per pass (default 1)')


def add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the commands that measure models."""
    add: Any = parser.add_argument
    add('data', metavar='DATA', help='a prepared folder, a config, or a COCO file beside its pictures')
    add('--split', default='val', metavar='NAME', help='part of the data (default val)')
    add_model_arguments(parser)
    add_batch_argument(parser)
    add('--json', action='store_true', help='print the numbers as JSON')


def measuring_options(args: argparse.Namespace, *models: str) -> dict[str, Any]:
    """How models are asked about the pictures: arguments of :func:`mmlightvit.evaluation.predictions.answers`.

    Args:
        args: The command's arguments.
        *models: Models as the user named them; a ``.json`` file holds predictions that are there already.

    Raises:
        UserError: All hold predictions, and an option of a model was given.
    """
    if all(model.endswith('.json') for model in models):
        refuse_unread(args, (*MODEL_OPTIONS, 'batch'), f'{" and ".join(models)} holds predictions')
    return {'batch': args.batch, **model_options(args)}


def add_folder_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """``--out`` and ``--overwrite`` of a command that writes a folder, which :func:`output_folder` makes."""
    parser.add_argument('--out', metavar='DIR', help=f'folder of the files (default {default}, or the next free one)')
    parser.add_argument('--overwrite', action='store_true', help='write into --out DIR though it is not empty')
    parser.set_defaults(default_out=default)


def output_folder(args: argparse.Namespace) -> Path:
    """The folder that a command writes, made."""
    from mmlightvit.inference.outputs import free_folder, named_folder

    if args.out is None:
        return free_folder(Path(args.default_out))
    return named_folder(Path(args.out), args.overwrite)
