# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The table of a count, as ``mmlightvit flops`` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mmlightvit.cost.counting import Count
from mmlightvit.cost.tables import giga, mega, render

_COUNT_HEADERS = ('module', 'parameters (M)', 'executed (G)', 'as published (G)', "paper's convention (G)")

CONVENTIONS: Mapping[str, str] = MappingProxyType(
    {
        'classifier': "window attention as N*C*2, kv_global left out (the paper's ImageNet tables)",
        'detector': "convolutions, linear layers and 2 per normed element, no attention (the paper's Mask R-CNN table)",
    }
)


def count_report(result: Count, depth: int, form: str = 'terminal') -> str:
    """The table of one model: parameters and multiply-adds per module and in total.

    Args:
        result: The count.
        depth: Levels of modules below the model, >= 0.
        form: One of :data:`~mmlightvit.cost.tables.FORMATS`.
    """
    rows = [
        [row.name or 'total', mega(row.params, 3), giga(row.macs), giga(row.published), giga(row.paper)]
        for row in result.rows(depth)
    ]
    height, width = result.shape
    text = render(_COUNT_HEADERS, [*rows[1:], rows[0]], form, f'{result.task}, 1 x {height} x {width}, multiply-adds')
    if form != 'terminal':
        return text
    key = 'classifier' if result.task in ('classifier', 'backbone') else 'detector'
    return text + (
        f'  executed: what this model runs; as published: in the published implementation;\n'
        f"  paper's convention: {CONVENTIONS[key]}.\n"
    )
