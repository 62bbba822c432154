# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The paper's tables beside what the built models have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import published_rows
from published_rows import PaperRow, agrees
from torch import nn

from mmlightvit.cost.counting import DEFAULT_SHAPES, count
from mmlightvit.cost.tables import giga, render
from mmlightvit.errors import UserError
from mmlightvit.toolboxes import build_model

_PAPER_HEADERS = (
    'model', 'params (M): paper', 'built', 'difference', 'FLOPs (G): paper', "paper's convention", 'difference',
    'as published', 'executed', 'agrees', 'note',
)  # fmt: skip


def model_table(rows: Iterable[PaperRow]) -> tuple[list[list[str]], list[str]]:
    """Cells of one table and the rows that differ from the paper by more than rounding without a known reason.

    Returns:
        (cells, unexplained), the second empty where everything is as it should be
    """
    cells, unexplained = [], []
    for row in rows:
        if row.model is None:
            cells.append([row.name, row.params or '', '', '', row.flops, '', '', '', '', '', 'published number only'])
            continue
        result = count(row.model)
        digits = 1 if float(row.flops) > 10 else 3
        params, flops = result.params / 1e6, result.paper / 1e9
        notes = [row.flops_note] if not agrees(flops, row.flops) else []
        if row.params and not agrees(params, row.params):
            notes.insert(0, row.params_note)
        if not all(notes):
            unexplained.append(f'{row.table}, {row.name}')
        cells.append([
            row.name, row.params or '', f'{params:.2f}', f'{params - float(row.params):+.2f}' if row.params else '',
            row.flops, f'{flops:.{digits}f}', f'{flops - float(row.flops):+.{digits}f}',
            giga(result.published, digits), giga(result.macs, digits), 'no' if notes else 'yes',
            '; '.join(dict.fromkeys(note or 'unexplained' for note in notes)),
        ])  # fmt: skip
    return cells, unexplained


def architecture_table() -> tuple[list[list[str]], list[str]]:
    """Table 1, read off the built models, in the manner of :func:`model_table`."""
    cells, unexplained = [], []
    for arch, published in published_rows.TABLE_1.items():
        backbone = build_model(dict(type='mmlightvit.LightViT', arch=arch))
        assert isinstance(backbone.stages, nn.ModuleList)
        for i, (expected, stage) in enumerate(zip(published['stages'], backbone.stages)):
            built = (backbone.embed_dims[i], len(stage.blocks), stage.blocks[0].attn.num_heads)  # type: ignore
            row = [f'{published_rows.NAMES[arch]} S{i + 1}', f'1/{8 * 2**i}']
            for printed, value in zip((*expected, published['global_tokens']), (*built, backbone.num_global_tokens)):
                row += [str(printed), str(value)]
            agree = (*expected, published['global_tokens']) == (*built, backbone.num_global_tokens)
            cells.append([*row, 'yes' if agree else 'no'])
            if not agree:
                unexplained.append(f'Table 1, {row[0]}')
    return cells, unexplained


_ARCHITECTURE_HEADERS = (
    'stage', 'stride', 'channels: paper', 'built', 'blocks: paper', 'built', 'heads: paper', 'built',
    'global tokens: paper', 'built', 'agrees',
)  # fmt: skip

#: Name of a table on the command line -> (title, its rows).
PAPER_TABLES: Mapping[str, tuple[str, Callable[[], list[PaperRow]] | None]] = MappingProxyType(
    {
        '1': ('Table 1: architecture variants', None),
        '3': (f'Table 3: ImageNet, {DEFAULT_SHAPES["classifier"][0]} px', published_rows.table_3),
        '4': ('Table 4: Mask R-CNN, 800 x 1280, 1000 and 100 regions', published_rows.table_4),
        '5': ('Table 5: components, LightViT-T', published_rows.table_5),
        '6': ('Table 6: number of global tokens, LightViT-T', published_rows.table_6),
        '4.1': ('Section 4.1: macro design, LightViT-T', published_rows.section_4_1),
    }
)


def paper_report(names: Iterable[str], form: str = 'terminal') -> tuple[str, list[str]]:
    """Tables of the paper beside what the built models have.

    Args:
        names: Keys of :data:`PAPER_TABLES`.
        form: One of :data:`~mmlightvit.cost.tables.FORMATS`; for CSV the tables are separated by an empty line.

    Returns:
        (text, rows that differ by more than rounding for no known reason)
    """
    parts, unexplained = [], []
    for name in names:
        if name not in PAPER_TABLES:
            raise UserError(f'table: expected one of {", ".join(PAPER_TABLES)}, got {name!r}')
        title, rows = PAPER_TABLES[name]
        cells, wrong = architecture_table() if rows is None else model_table(rows())
        parts.append(render(_ARCHITECTURE_HEADERS if rows is None else _PAPER_HEADERS, cells, form, title))
        unexplained += wrong
    return '\n'.join(parts), unexplained
