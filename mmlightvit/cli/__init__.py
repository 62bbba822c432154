# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The commands: ``mmlightvit NAME`` and, for the older of them, ``python tools/....py``.

A command is a module with ``parser()``, its arguments, and ``run(args)``, which does it and returns the exit code,
or None for 0. It is imported when it is called, and its parser imports neither torch nor a toolbox.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from mmlightvit.errors import UserError
from mmlightvit.version import __version__


class Command(NamedTuple):
    """Where a command is, and its line in the help."""

    module: str
    help: str


COMMANDS = {
    'predict': Command('mmlightvit.cli.predict', 'find what a model knows in pictures and videos'),
    'models': Command('mmlightvit.cli.models', 'the models that have a name: list, fetch, where they are'),
    'train': Command('mmlightvit.cli.train', 'train a model of any task'),
    'test': Command('mmlightvit.cli.test', "measure a checkpoint on a config's test set"),
    'report': Command('mmlightvit.cli.report', 'how good a model is and where it fails, as one page'),
    'val': Command('mmlightvit.cli.val', 'the standard table of a model of any form'),
    'compare': Command('mmlightvit.cli.compare', 'whether one of two models is better'),
    'check': Command('mmlightvit.cli.check', 'read the data of a config and list every problem'),
    'data': Command('mmlightvit.cli.data', 'labels of any format in; split, check and look at them'),
    'convert': Command('mmlightvit.cli.convert', 'convert a checkpoint: names of parameters, file format'),
    'flops': Command('mmlightvit.cli.flops', 'parameters and multiply-adds of a config'),
    'export': Command('mmlightvit.cli.export', 'write a model as one file that runs without torch, and prove it'),
    'serve': Command('mmlightvit.cli.serve', 'answer over HTTP what exported models find in pictures'),
    'benchmark': Command('mmlightvit.cli.benchmark', 'time the forms of one model against each other'),
    'page': Command('mmlightvit.cli.page', 'write a page that runs an exported model in the browser'),
    'demo': Command('mmlightvit.cli.demo', 'try models out in a browser on this machine'),
    'show': Command('mmlightvit.cli.show', 'what an exported file or a model folder says of itself'),
    'doctor': Command('mmlightvit.cli.doctor', 'what is installed, and what is wrong with it'),
}

_EXAMPLES = """examples:
  mmlightvit train configs/mask_rcnn_lightvit_t_1x.py --data-root /data/coco
  mmlightvit test configs/mask_rcnn_lightvit_t_1x.py work_dirs/mask_rcnn_lightvit_t_1x/epoch_12.pth"""


def help_text() -> str:
    """The text of ``mmlightvit --help``."""
    rows = '\n'.join(f'  {name:<10} {command.help}' for name, command in COMMANDS.items())
    return (
        'usage: mmlightvit COMMAND [options]\n\nLightViT: classification, detection and segmentation.\n\n'
        f'commands:\n{rows}\n\n`mmlightvit COMMAND --help` explains one; `mmlightvit --version` prints the version.\n\n'
        + _EXAMPLES
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script.

    Args:
        arguments: The command and its arguments; by default those of the process.

    Returns:
        The exit code: 0; 1 where something outside the code is wrong, said in one line; 2 for wrong usage.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ['']
    if name in ('-h', '--help', 'help', ''):
        print(help_text())
        return 0 if name else 2
    if name == '--version':
        print(f'mmlightvit {__version__}')
        return 0
    if name not in COMMANDS:
        from mmlightvit.cli.arguments import nearest

        hint = nearest(name, COMMANDS)
        print(
            f'error: no command {name!r}{f"; nearest: {hint}" if hint else ""}; see mmlightvit --help', file=sys.stderr
        )
        return 2
    return call(name, rest)


def call(name: str, arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run a command.

    Args:
        name: Key of :data:`COMMANDS`.
        arguments: Its arguments; by default those of the process.
        prog: The name that it was called by, where that is not ``mmlightvit NAME``.

    Returns:
        The exit code.
    """
    from mmlightvit.cli.quiet import quiet_terminal

    module = importlib.import_module(COMMANDS[name].module)
    parser = module.parser()
    if prog is not None:
        parser.prog = prog
        parser.set_defaults(is_tool=True)
    args = parser.parse_args(arguments)
    try:
        with quiet_terminal():
            code = module.run(args)
        sys.stdout.flush()
    except UserError as error:
        print('error: ' + ' '.join(str(error).split()), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('error: interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:  # `mmlightvit ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code or 0
