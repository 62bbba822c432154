# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Curves of a run, which join what a resumed one logged."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image

from mmlightvit.errors import UserError
from mmlightvit.explain.curves import metric_names, plot_logs, read_run


def _is_picture(path):
    with Image.open(path) as picture:
        return min(picture.size) > 200


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


def test_help_and_a_bad_path(repo):
    def run(argument):
        command = [sys.executable, 'tools/analysis/plot_logs.py', argument]
        return subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False)

    assert 'python tools/analysis/plot_logs.py' in run('--help').stdout
    done = run('no/work_dir')
    assert done.returncode == 1 and done.stderr == 'error: work directory not found: no/work_dir\n'
