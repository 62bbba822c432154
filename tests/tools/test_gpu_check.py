# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The check for a GPU, on the CPU with tiny numbers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')
pytest.importorskip('mmseg')


def check(repo, folder, *options):
    command = [sys.executable, str(repo / 'tools/maintenance/gpu_check.py'), '--out', str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_is_lacking_is_listed(repo, tmp_path):
    listed = json.loads(check(repo, tmp_path, '--list').stdout)
    assert listed['python'] == sys.version.split()[0]
    assert not {'numpy', 'onedl-mmengine==0.10.12'} & set(listed['lacking'])


@pytest.mark.slow
@pytest.mark.parametrize(
    ('part', 'names'),
    [
        ('operators', {'nms-0', 'align-0-True', 'deform-2', 'focal-sigmoid', 'attention'}),
        ('speed', {'copy', 'tiny, eager, batch 1, forward', 'base, compiled, batch 2, training'}),
        ('training', {'detection-float32', 'segmentation-bfloat16', 'classification-float32'}),
        ('resume', {'weights'}),
    ],
)
def test_each_part_passes_and_is_written(repo, tmp_path, part, names):
    done = check(repo, tmp_path, '--device', 'cpu', '--tiny', '--seconds', '1200', '--parts', part)
    results = json.loads((tmp_path / 'gpu_check.json').read_text())
    rows = results['parts'][part]
    assert all(row['passed'] for row in rows), (rows, done.stderr)
    assert names <= {row['name'] for row in rows}
    assert done.returncode == 0, done.stderr
    page = (tmp_path / 'gpu_check.md').read_text()
    assert f'## {part.capitalize()}: {len(rows)} of {len(rows)} passed' in page
