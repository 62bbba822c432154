# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Tables, and the tools that print them."""

from __future__ import annotations

import csv
import io
import subprocess
import sys

import pytest
from variants import TEST_ARCH

from mmlightvit.cost import paper
from mmlightvit.cost.counting import count
from mmlightvit.cost.reports import PAPER_TABLES, architecture_table, count_report, model_table, paper_report
from mmlightvit.cost.tables import render
from mmlightvit.errors import UserError
from mmlightvit.models.backbones import LightViT


@pytest.mark.parametrize('value, printed, fits', [
    (0.7329, '0.73', True), (0.7351, '0.73', False), (186.59, '187', True), (186.4, '187', False),
    (9.35, '9.4', True), (9.34, '9.4', False),
])  # fmt: skip
def test_agreement_is_agreement_of_the_printed_digits(value, printed, fits):
    assert paper.agrees(value, printed) is fits


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


def test_the_paper_agrees_where_it_must():
    """Every row outside the declared exceptions, rounded as printed; the exceptions are exactly these."""
    cells, unexplained = architecture_table()
    assert len(cells) == 9 and not unexplained
    different = []
    for _, rows in PAPER_TABLES.values():
        if rows is not None:
            built = rows()
            cells, unexplained = model_table(built)
            assert not unexplained
            different += [(row.table, row.name) for row, cell in zip(built, cells) if cell[-2] == 'no']
    assert set(different) <= {
        ('Table 5', 'vanilla global attention'), ('Table 5', 'local attention'), ('Table 5', '+ global attention'),
        ('Table 5', '+ spatial attention'), ('Table 6', '0 tokens'), ('Section 4.1', 'four stages'),
        ('Section 4.1', 'without overlapping patch embedding'),
    }  # fmt: skip


def test_a_difference_without_a_reason_is_reported():
    row = paper.PaperRow('Table 3', 'wrong', '0.9', '9.4', model=paper.classifier())
    cells, unexplained = model_table([row])
    assert unexplained == ['Table 3, wrong'] and cells[0][-2:] == ['no', 'unexplained']


def test_configs_are_the_models_of_the_tables(repo):
    """What configs/ablation says is what the tables count."""
    from mmlightvit.cli.config import load_config

    for stem, expected in {
        'ablation/section41_four_stages': paper.section_4_1()[0],
        'ablation/section41_without_residual_merging': paper.section_4_1()[1],
        'ablation/section41_without_overlapping_patches': paper.section_4_1()[2],
        'ablation/table5_vanilla_attention': paper.table_5()[0],
        'ablation/table5_local_attention': paper.table_5()[1],
        'ablation/table5_spatial_attention': paper.table_5()[3],
        'ablation/table6_32_global_tokens': paper.table_6()[5],
        'lightvit_t_imagenet': paper.table_3()[5],
    }.items():
        ours, published = count(load_config(str(repo / f'configs/{stem}.py'))), count(expected.model)
        assert (ours.params, ours.macs) == (published.params, published.macs), stem


def test_unknown_table():
    with pytest.raises(UserError, match='table: expected one of'):
        paper_report(['7'])


def _run(repo, *args):
    return subprocess.run([sys.executable, *args], cwd=repo, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize('tool', ['get_flops', 'paper_tables'])
def test_help_has_an_example(repo, tool):
    done = _run(repo, f'tools/analysis/{tool}.py', '--help')
    assert done.returncode == 0 and f'python tools/analysis/{tool}.py' in done.stdout


@pytest.mark.parametrize('args, words', [
    (['tools/analysis/get_flops.py', 'nowhere.py'], 'config not found: nowhere.py'),
    (['tools/analysis/paper_tables.py', '--out', 'no/such/folder/tables.md'], 'does not exist'),
])  # fmt: skip
def test_a_bad_path_is_one_line(repo, args, words):
    done = _run(repo, *args)
    assert done.returncode == 1 and done.stderr.startswith('error: ') and words in done.stderr
    assert done.stderr.count('\n') == 1 and not done.stdout
