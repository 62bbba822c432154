# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Tables for the terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from mmlightvit.errors import UserError

#: Names that :func:`render` knows.
FORMATS = ('terminal', 'markdown', 'csv')


def render(headers: Sequence[str], rows: Sequence[Sequence[str]], form: str = 'terminal', title: str = '') -> str:
    """A table as text, the first column and one named ``note`` aligned left, the others right.

    Args:
        headers: Names of the columns.
        rows: Cells, one string per column.
        form: One of :data:`FORMATS`.
        title: Heading; CSV has none.

    Raises:
        UserError: The format is unknown.
    """
    align_right = [i > 0 and header != 'note' for i, header in enumerate(headers)]
    if form == 'csv':
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator='\n').writerows([headers, *rows])
        return buffer.getvalue()
    if form == 'markdown':
        lines = [f'### {title}', ''] if title else []
        lines.append('| ' + ' | '.join(headers) + ' |')
        lines.append('|' + '|'.join('---:' if right else '---' for right in align_right) + '|')
        lines += ['| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |' for row in rows]
        return '\n'.join(lines) + '\n'
    if form != 'terminal':
        raise UserError(f'format: expected one of {", ".join(FORMATS)}, got {form!r}')
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify='left', box=box.SIMPLE_HEAD)
    for header, right in zip(headers, align_right):
        table.add_column(header, justify='right' if right else 'left', no_wrap=True)
    for row in rows:
        table.add_row(*row)
    buffer = io.StringIO()
    # Wide enough for every cell: a narrow terminal wraps lines, but no number is cut off.
    width = sum(max(len(cell) for cell in column) + 3 for column in zip(headers, *rows)) + 4
    Console(file=buffer, width=width, highlight=False, color_system=None, markup=False).print(table)
    return '\n'.join(line.rstrip() for line in buffer.getvalue().splitlines()) + '\n'


def giga(value: float, decimals: int = 3) -> str:
    """1234567890 -> '1.235'."""
    return f'{value / 1e9:.{decimals}f}'


def mega(value: float, decimals: int = 2) -> str:
    """1234567 -> '1.23'."""
    return f'{value / 1e6:.{decimals}f}'
