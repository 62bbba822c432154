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
    widths = [max(map(len, column)) for column in zip(headers, *rows)]
    lines = [title] if title else []
    for row in (headers, ['-' * width for width in widths], *rows):
        cells = (cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(row, widths, align_right))
        lines.append('  '.join(cells).rstrip())
    return '\n'.join(lines) + '\n'


def giga(value: float, decimals: int = 3) -> str:
    """1234567890 -> '1.235'."""
    return f'{value / 1e9:.{decimals}f}'


def mega(value: float, decimals: int = 2) -> str:
    """1234567 -> '1.23'."""
    return f'{value / 1e6:.{decimals}f}'
