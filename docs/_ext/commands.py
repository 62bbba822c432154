# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``{commands}``: every command of ``mmlightvit`` with its arguments, drawn from the parsers themselves."""

from __future__ import annotations

import argparse
import importlib
import os
import re
from collections.abc import Iterator
from typing import Any

from sphinx.util.docutils import SphinxDirective


def escaped(text: str) -> str:
    """Text as Markdown that shows it as it is; what stands in backticks is code in both."""
    parts = text.split('`')
    parts[::2] = [re.sub(r'([\\*_{}\[\]<>|$#~])', r'\\\1', part) for part in parts[::2]]
    return '`'.join(parts)


def argument_names(action: argparse.Action) -> str:
    """``--out DIR``, ``MODEL``, ``--task classification|detection``."""
    value = action.metavar or ('|'.join(map(str, action.choices)) if action.choices else action.dest.upper())
    shown = value if isinstance(value, str) else ' '.join(value)
    shown += ' ...' if action.nargs in ('+', '*') else ''
    if not action.option_strings:
        return shown
    return ', '.join(action.option_strings) + ('' if action.nargs == 0 else f' {shown}')


def command_text(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    """A parser as a section in Markdown, then its sub-commands as sections below."""
    yield f'{"#" * level} {parser.prog}\n'
    yield f'{escaped(parser.description or "")}\n'
    yield f'```text\n{parser.format_usage().strip()}\n```\n'
    below: list[argparse.ArgumentParser] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            below = list(action.choices.values())
        elif action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction):
            help_text = parser._get_formatter()._expand_help(action) if action.help else 'see the examples'
            yield f'`{argument_names(action)}`\n: {escaped(help_text)}\n'
    epilog = parser.format_help().partition('\nexamples:\n')[2]
    if epilog:
        yield f'Examples:\n\n```text\n{epilog.rstrip()}\n```\n'
    for child in below:
        yield from command_text(child, level + 1)


def all_commands() -> str:
    """The commands in the order of ``mmlightvit --help``."""
    from mmlightvit.cli import COMMANDS

    os.environ['COLUMNS'] = '88'  # argparse wraps to the terminal's width
    parsers = (importlib.import_module(command.module).parser() for command in COMMANDS.values())
    return '\n'.join(line for parser in parsers for line in command_text(parser, 2))


class Commands(SphinxDirective):
    """The directive."""

    def run(self) -> list[Any]:
        return self.parse_text_to_nodes(all_commands(), allow_section_headings=True)


def setup(app: Any) -> dict[str, Any]:
    app.add_directive('commands', Commands)
    return {'parallel_read_safe': True}
