# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Tables of a count."""

from __future__ import annotations

import csv
import io

import pytest
from variants import TEST_ARCH

from mmlightvit.cost.counting import count
from mmlightvit.cost.reports import count_report
from mmlightvit.cost.tables import render
from mmlightvit.errors import UserError
from mmlightvit.models.backbones import LightViT


def test_forms_of_a_table():
    headers, rows = ('name', 'a', 'note'), [['x', '1', 'p|q'], ['long name', '20', '']]
    assert list(csv.reader(io.StringIO(render(headers, rows, 'csv')))) == [list(headers), *rows]
    markdown = render(headers, rows, 'markdown', 'T').splitlines()
    assert markdown[:2] == ['### T', ''] and markdown[3] == '|---|---:|---|' and markdown[4] == '| x | 1 | p\\|q |'
    terminal = render(headers, rows, title='T')
    assert all(cell in terminal for row in rows for cell in row)
    with pytest.raises(UserError, match='format: expected one of'):
        render(headers, rows, 'html')


def test_report_of_a_model_names_total_and_modules():
    result = count(LightViT(arch=TEST_ARCH), (64, 64))
    rows = list(csv.reader(io.StringIO(count_report(result, 1, 'csv'))))
    assert rows[-1][0] == 'total' and float(rows[-1][2]) == pytest.approx(result.macs / 1e9, abs=5e-4)
    assert [row[0] for row in rows[1:]].count('stages') == 1 and not any('.' in row[0] for row in rows)
