# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""One HTML file that holds everything it shows: it opens from a disk, fetches nothing, and can be printed."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from mmlightvit.durable.safe_loading.atomic import atomic_write

Cell = str | int | float | None

_STYLE = """
:root { --ink: #1c2733; --soft: #5b6875; --line: #dfe5ea; --panel: #f5f7f9; --blue: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 28px 20px 60px; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 44px 0 4px; padding-top: 14px; border-top: 1px solid var(--line); }
p { margin: 4px 0 12px; max-width: 46em; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
ul { margin: 10px 0; padding-left: 1.2em; max-width: 46em; } li { margin: 3px 0; }
nav { font-size: .9rem; margin: 14px 0 0; } nav a { color: var(--blue); margin-right: 14px; white-space: nowrap; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 10px; margin: 20px 0; }
.tile { background: var(--panel); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 1.65rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { display: block; color: var(--soft); font-size: .85rem; }
.note { border-left: 4px solid #e69f00; background: #fdf6e6; padding: 8px 12px; margin: 8px 0; max-width: 46em; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 18px; }
figure { margin: 0; } img { display: block; max-width: 100%; height: auto; }
.wide { overflow-x: auto; -webkit-overflow-scrolling: touch; margin: 8px 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th[data-sort] { cursor: pointer; }
th[aria-sort=ascending]::after { content: " \\2191"; } th[aria-sort=descending]::after { content: " \\2193"; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
td.words { text-align: left; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); gap: 18px; }
.pictures img { cursor: zoom-in; width: 100%; } .pictures .large { grid-column: 1 / -1; }
.pictures .large img { cursor: zoom-out; }
.crops { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px; }
.crops img { width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--panel); border-radius: 6px; }
figcaption { padding-top: 4px; overflow-wrap: anywhere; }
@media (max-width: 520px) { body { padding: 18px 14px 40px; } h1 { font-size: 1.35rem; }
  .tiles, .crops { grid-template-columns: 1fr 1fr; } .tile b { font-size: 1.35rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10.5pt; } nav { display: none; }
  figure, tr, .tile, li { break-inside: avoid; } h2, h2 + p { break-after: avoid; } .wide { overflow: visible; }
  .figures { grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); }
  .pictures { grid-template-columns: 1fr 1fr; } .pictures .large { grid-column: auto; }
  .crops { grid-template-columns: repeat(4, 1fr); }
  th:first-child, td:first-child { position: static; } table { font-size: 8pt; } th, td { padding: 3px 6px; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; } }
"""

_SCRIPT = """
for (const image of document.querySelectorAll('.pictures img'))
  image.onclick = () => image.parentElement.classList.toggle('large');
for (const head of document.querySelectorAll('th[data-sort]')) head.onclick = () => {
  const table = head.closest('table'), place = head.cellIndex, up = head.ariaSort !== 'ascending';
  for (const other of table.querySelectorAll('th')) other.removeAttribute('aria-sort');
  head.ariaSort = up ? 'ascending' : 'descending';
  const key = row => { const v = row.cells[place].dataset.value; return v === '' ? NaN : isNaN(v) ? v : +v; };
  [...table.tBodies[0].rows].sort((a, b) => { const x = key(a), y = key(b);
    if (x !== x || y !== y) return (x !== x) - (y !== y);
    return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1); }).forEach(row => table.tBodies[0].append(row)); };
"""

#: A browser that reads this fetches nothing, whatever stands in the page.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Page:
    """A page, filled from top to bottom. All text is plain text.

    Args:
        title, subtitle: Of the page.
    """

    def __init__(self, title: str, subtitle: str) -> None:
        self._title = title
        self._head = f'<h1>{_text(title)}</h1><p class="soft">{_text(subtitle)}</p>'
        self._parts: list[str] = []
        self._sections: list[str] = []

    def section(self, title: str, text: str = '') -> None:
        """A heading, and what the part below it tells."""
        self._sections.append(title)
        self._parts.append(f'<h2 id="s{len(self._sections)}">{_text(title)}</h2>{f"<p>{_text(text)}</p>" * bool(text)}')

    def text(self, text: str, kind: str = '') -> None:
        """A paragraph; ``kind`` is ``'soft'``, ``'note'`` or nothing."""
        self._parts.append(f'<p class="{kind}">{_text(text)}</p>')

    def points(self, points: Sequence[str]) -> None:
        """A list."""
        self._parts.append('<ul>' + ''.join(f'<li>{_text(point)}</li>' for point in points) + '</ul>')

    def tiles(self, tiles: Sequence[tuple[str, str, str]]) -> None:
        """Headline numbers: name, value, and what to know about it."""
        cells = (
            f'<div class="tile"><span>{_text(name)}</span><b>{_text(value)}</b><span>{_text(below)}</span></div>'
            for name, value, below in tiles
        )
        self._parts.append(f'<div class="tiles">{"".join(cells)}</div>')

    def figures(self, figures: Sequence[tuple[Path, str, str]]) -> None:
        """Pictures side by side: file, what it is, and what to read in it."""
        self._parts.append('<div class="figures">' + ''.join(_figure(*figure) for figure in figures) + '</div>')

    def pictures(self, pictures: Sequence[tuple[bytes, str]], kind: str = 'pictures') -> None:
        """JPEG pictures with a caption; ``kind`` is ``'pictures'`` or ``'crops'``."""
        cells = (
            f'<figure><img loading="lazy" alt="{_text(caption)}" src="{_uri(content, "jpeg")}">'
            f'<figcaption>{_text(caption)}</figcaption></figure>'
            for content, caption in pictures
        )
        self._parts.append(f'<div class="{kind}">{"".join(cells)}</div>')

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[Cell]], digits: int = 3) -> None:
        """Rows under heads, which sort them; ``digits`` are those of numbers that are not whole, None is a dash."""
        head = ''.join(f'<th data-sort>{_text(name)}</th>' for name in heads)
        body = ''.join('<tr>' + ''.join(_cell(cell, digits) for cell in row) + '</tr>' for row in rows)
        self._parts.append(
            f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    def write(self, path: Path) -> None:
        """Write the page."""
        links = ' '.join(f'<a href="#s{number}">{_text(name)}</a>' for number, name in enumerate(self._sections, 1))
        content = (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{_text(self._title)}</title><style>{_STYLE}</style></head><body>\n'
            f'{self._head}<nav>{links}</nav>\n'
            + '\n'.join(self._parts)
            + f'\n<script>{_SCRIPT}</script></body></html>\n'
        )
        atomic_write(path, lambda file: file.write(content.encode()))


def _text(text: str) -> str:
    return html.escape(text)


def _figure(path: Path, alt: str, caption: str) -> str:
    content = path.read_bytes()
    width = int.from_bytes(content[16:20]) * 5 // 8  # figures have more pixels than the page, for print and for phones
    return (
        f'<figure><img width="{width}" alt="{_text(alt)}" src="{_uri(content, "png")}">'
        f'<figcaption>{_text(caption)}</figcaption></figure>'
    )


def _uri(content: bytes, kind: str) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'


def _cell(value: Cell, digits: int) -> str:
    if isinstance(value, str):
        return f'<td class="words" data-value="{_text(value)}">{_text(value)}</td>'
    shown = '–' if value is None else f'{value:,}' if isinstance(value, int) else f'{value:.{digits}f}'
    return f'<td data-value="{"" if value is None else value}">{shown}</td>'
