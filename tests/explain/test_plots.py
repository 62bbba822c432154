# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Plots draw the numbers they are given, and logs join resumed runs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image

from mmlightvit.cost.stages import StageSpeed
from mmlightvit.errors import UserError
from mmlightvit.explain.curves import metric_names, plot_logs, read_run
from mmlightvit.explain.plots import plot_accuracy, plot_stages, published_points, read_measured


def _is_picture(path):
    with Image.open(path) as picture:
        return min(picture.size) > 200


def test_published_points_are_those_of_table_3():
    points = {point.name: point for point in published_points()}
    assert len(points) == 19
    tiny = points['LightViT-T']
    assert (tiny.kind, tiny.top1) == ('ours', 78.7)
    assert dict(tiny.cost) == dict(flops=0.7, params=9.4, throughput=2578.0)
    assert points['Swin-T'].kind == 'Transformer' and points['RegNetY-4G'].kind == 'CNN'


def test_measured_points_join_the_plot(tmp_path):
    (tmp_path / 'mine.csv').write_text('name,top1,flops,params,throughput\nmine,75.5,0.5,,900\n')
    (point,) = read_measured(tmp_path / 'mine.csv')
    assert (point.name, point.top1, dict(point.cost)) == ('mine', 75.5, dict(flops=0.5, throughput=900.0))
    plot_accuracy([*published_points(), point], tmp_path / 'figure.png')
    assert _is_picture(tmp_path / 'figure.png')


@pytest.mark.parametrize('text, words', [
    ('name,top1\nmine,75\n', 'expected the columns name, top1 and at least one of'),
    ('', 'got nothing'),
    ('name,top1,flops\nmine,high,1\n', 'line 2: expected numbers'),
])  # fmt: skip
def test_a_wrong_csv(tmp_path, text, words):
    (tmp_path / 'mine.csv').write_text(text)
    with pytest.raises(UserError, match=words):
        read_measured(tmp_path / 'mine.csv')


def test_stages_are_drawn(tmp_path):
    plot_stages([StageSpeed('stem', 10**8, 0.02), StageSpeed('stage 1', 10**9, 0.1)], tmp_path / 'stages.png', 'title')
    assert _is_picture(tmp_path / 'stages.png')


def _log(folder, records):
    folder = folder / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('\n'.join(json.dumps(record) for record in records) + '\n')


def test_a_resumed_run_is_one_run(tmp_path):
    steps = [dict(loss=5.0 - step, lr=0.1, epoch=(step + 1) // 2, step=step, memory=9) for step in range(1, 5)]
    _log(tmp_path / 'run' / '20260101_000000', [*steps[:2], {'coco/bbox_mAP': 0.1, 'step': 1}, steps[2]])
    again = [dict(record, loss=record['loss'] + 10) for record in steps[2:]]
    _log(tmp_path / 'run' / '20260101_000100', [*again, {'coco/bbox_mAP': 0.3, 'coco/nan': None, 'step': 2}])
    _log(tmp_path / 'run' / '20260101_000200', [{'coco/bbox_mAP': 0.9, 'step': 0}])  # tools/test.py
    run = read_run(tmp_path / 'run')
    assert run.name == 'run' and run.training['loss'] == ([1, 2, 3, 4], [4.0, 3.0, 12.0, 11.0])
    assert run.metrics == {'coco/bbox_mAP': ([2, 4], [0.1, 0.3])}
    plot_logs([run, run], tmp_path / 'logs.png')
    assert _is_picture(tmp_path / 'logs.png') and metric_names([run]) == ['coco/bbox_mAP']
    with pytest.raises(UserError, match='metrics: the runs have coco/bbox_mAP; got accuracy'):
        plot_logs([run], tmp_path / 'logs.png', ['accuracy'])


def test_a_log_cut_off_in_its_last_line(tmp_path):
    _log(tmp_path / '1', [dict(loss=1.0, step=1)])
    path = tmp_path / '1' / 'vis_data' / 'scalars.json'
    path.write_text(path.read_text() + '{"loss": 0.')
    assert read_run(tmp_path).training['loss'] == ([1], [1.0])
    path.write_text('{"loss": 0.\n' + path.read_text())
    with pytest.raises(UserError, match='line 1: not a JSON record'):
        read_run(tmp_path)


def test_work_dirs_without_a_run(tmp_path):
    with pytest.raises(UserError, match='work directory not found'):
        read_run(tmp_path / 'none')
    with pytest.raises(UserError, match='no training run has logged a loss'):
        read_run(tmp_path)


@pytest.mark.parametrize('tool, args, words', [
    ('tools/visualization/accuracy_plot.py', ['--measured', 'none.csv'], 'CSV not found: none.csv'),
    ('tools/analysis/plot_logs.py', ['no/work_dir'], 'work directory not found: no/work_dir'),
])  # fmt: skip
def test_help_and_a_bad_path(repo, tool, args, words):
    def run(*arguments):
        return subprocess.run([sys.executable, tool, *arguments], cwd=repo, capture_output=True, text=True, check=False)

    assert f'python {tool}' in run('--help').stdout
    done = run(*args)
    assert done.returncode == 1 and words in done.stderr and done.stderr.count('\n') == 1
