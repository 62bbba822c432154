# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The paper's tables beside the built models, and the tools that print them."""

from __future__ import annotations

import subprocess
import sys

import published_rows
import pytest
from compared_rows import PAPER_TABLES, architecture_table, model_table, paper_report

from mmlightvit.cost.counting import count
from mmlightvit.errors import UserError


@pytest.mark.parametrize('value, printed, fits', [
    (0.7329, '0.73', True), (0.7351, '0.73', False), (186.59, '187', True), (186.4, '187', False),
    (9.35, '9.4', True), (9.34, '9.4', False),
])  # fmt: skip
def test_agreement_is_agreement_of_the_printed_digits(value, printed, fits):
    assert published_rows.agrees(value, printed) is fits


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
    row = published_rows.PaperRow('Table 3', 'wrong', '0.9', '9.4', model=published_rows.classifier())
    cells, unexplained = model_table([row])
    assert unexplained == ['Table 3, wrong'] and cells[0][-2:] == ['no', 'unexplained']


def test_configs_are_the_models_of_the_tables(repo):
    """What configs/ablation says is what the tables count."""
    from mmlightvit.cli.config import load_config

    for stem, expected in {
        'ablation/section41_four_stages': published_rows.section_4_1()[0],
        'ablation/section41_without_residual_merging': published_rows.section_4_1()[1],
        'ablation/section41_without_overlapping_patches': published_rows.section_4_1()[2],
        'ablation/table5_vanilla_attention': published_rows.table_5()[0],
        'ablation/table5_local_attention': published_rows.table_5()[1],
        'ablation/table5_spatial_attention': published_rows.table_5()[3],
        'ablation/table6_32_global_tokens': published_rows.table_6()[5],
        'lightvit_t_imagenet': published_rows.table_3()[5],
    }.items():
        ours, published = count(load_config(str(repo / f'configs/{stem}.py'))), count(expected.model)
        assert (ours.params, ours.macs) == (published.params, published.macs), stem


def test_unknown_table():
    with pytest.raises(UserError, match='table: expected one of'):
        paper_report(['7'])


def _run(repo, *args):
    return subprocess.run([sys.executable, *args], cwd=repo, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize('tool', ['analysis/get_flops', 'paper/paper_tables'])
def test_help_has_an_example(repo, tool):
    done = _run(repo, f'tools/{tool}.py', '--help')
    assert done.returncode == 0 and f'python tools/{tool}.py' in done.stdout


@pytest.mark.parametrize('args, words', [
    (['tools/analysis/get_flops.py', 'nowhere.py'], 'config not found: nowhere.py'),
    (['tools/paper/accuracy_plot.py', '--measured', 'none.csv'], 'CSV not found: none.csv'),
    (['tools/paper/paper_tables.py', '--out', 'no/such/folder/tables.md'], 'does not exist'),
])  # fmt: skip
def test_a_bad_path_is_one_line(repo, args, words):
    done = _run(repo, *args)
    assert done.returncode == 1 and done.stderr.startswith('error: ') and words in done.stderr
    assert done.stderr.count('\n') == 1 and not done.stdout


@pytest.mark.parametrize('former', [
    'analysis/benchmark', 'analysis/paper_tables', 'visualization/accuracy_plot', 'visualization/global_attention',
    'visualization/stage_throughput',
])  # fmt: skip
def test_a_former_name_runs_the_tool_and_says_so(repo, former):
    done = _run(repo, f'tools/{former}.py', '--help')
    now = f'tools/paper/{former.rpartition("/")[2]}.py'
    assert done.returncode == 0 and f'python {now}' in done.stdout
    assert done.stderr == f'warning: tools/{former}.py is now {now}\n'
