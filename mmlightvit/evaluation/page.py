# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""One HTML file that holds everything it shows: it opens from a disk, fetches nothing, and can be printed.

Its parts are data; ``page.html`` says how each looks.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.evaluation import packages

Cell = str | int | float | None


class Page:
    """A page, filled from top to bottom. All text is plain text.

    Args:
        title, subtitle: Of the page.
    """

    def __init__(self, title: str, subtitle: str) -> None:
        self.title, self.subtitle = title, subtitle
        self.parts: list[dict[str, Any]] = []

    def _add(self, kind: str, **content: Any) -> None:
        self.parts.append({'kind': kind, **content})

    def section(self, title: str, text: str = '') -> None:
        """A heading, and a line about the part below it."""
        self._add('section', title=title, text=text)

    def text(self, text: str, look: str = '') -> None:
        """A paragraph; ``look`` is ``'soft'``, ``'note'`` or nothing."""
        self._add('text', text=text, look=look)

    def points(self, points: Sequence[str]) -> None:
        """A list."""
        self._add('points', points=points)

    def tiles(self, tiles: Sequence[tuple[str, str, str]]) -> None:
        """Headline numbers: name, value, and a remark."""
        self._add('tiles', tiles=tiles)

    def figures(self, figures: Sequence[tuple[Path, str, str]]) -> None:
        """PNG files side by side: file, name, and how to read it."""
        self._add('figures', figures=[_figure(*figure) for figure in figures])

    def pictures(self, pictures: Sequence[tuple[bytes, str]], look: str = 'pictures') -> None:
        """JPEG pictures with a caption; ``look`` is ``'pictures'`` or ``'crops'``."""
        self._add('pictures', pictures=[(_uri(content, 'jpeg'), caption) for content, caption in pictures], look=look)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[Cell]], digits: int = 3) -> None:
        """Rows under heads, which sort them; ``digits`` are those of numbers that are not whole, None is a dash."""
        self._add('table', heads=heads, rows=rows, digits=digits)

    def write(self, path: Path) -> None:
        """Write the page."""
        environment = packages.load('jinja2').Environment(autoescape=True)
        environment.filters['shown'] = _shown
        template = environment.from_string(Path(__file__).with_suffix('.html').read_text(encoding='utf-8'))
        content = template.render(title=self.title, subtitle=self.subtitle, parts=self.parts)
        atomic_write(path, lambda file: file.write(content.encode()))


def _figure(path: Path, name: str, caption: str) -> dict[str, Any]:
    content = path.read_bytes()
    width = int.from_bytes(content[16:20]) * 5 // 8  # figures have more pixels than the page, for print and for phones
    return {'width': width, 'name': name, 'caption': caption, 'uri': _uri(content, 'png')}


def _uri(content: bytes, kind: str) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'


def _shown(value: Cell, digits: int) -> str:
    if isinstance(value, str):
        return value
    return '–' if value is None else f'{value:,}' if isinstance(value, int) else f'{value:.{digits}f}'
