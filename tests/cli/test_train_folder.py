# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit train FOLDER``, for each task: from labels to labelled pictures, and from its model to other classes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import planted
import pytest
from small_runs import TASKS, forget

from mmlightvit.cli import main

QUICK = ['--epochs', '1', '--batch', '2', '--size', '64', '--workers', '0', '--seed', '0']
#: The layers that give the classes.
HEADS = {
    'classification': 'head.',
    'detection': 'bbox_head.retina_cls',
    'instance': 'roi_head.bbox_head.fc_cls',
    'segmentation': 'decode_head.conv_seg',
}


def _data(source: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Labels of a task; the names of its classes."""
    source.mkdir()
    if task == 'classification':
        monkeypatch.setattr(planted, 'CLASSES', ('disk', 'bar', 'ring'))
    if task == 'classification':
        planted.write_folders(source, images=2)
    elif task == 'segmentation':
        planted.write_labelled(source, images=2)
        return ['background', *planted.CLASSES]
    else:
        planted.write_coco(source, images=3)
        planted.write_coco(source, images=2, split='val')
    return list(planted.CLASSES)


def _import(source: Path, out: str, task: str, names: list[str]) -> None:
    assert main(['data', 'import', str(source), '--out', out, '--task', task, '--classes', ','.join(names)]) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:The draw is False:UserWarning')  # mmseg's hook, when nothing is to be drawn
@pytest.mark.parametrize('task', TASKS)
def test_from_labels_to_labelled_pictures(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for package in (TASKS[task][0], 'hotcoco', 'matplotlib', 'tensorboard'):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names = _data(tmp_path / 'source', task, monkeypatch)
    _import(tmp_path / 'source', 'pets', task, names)
    capsys.readouterr()
    assert main(['train', 'pets', '--from', 'none', '--log', 'tensorboard', *QUICK]) == 0
    forget()
    told = capsys.readouterr()
    assert told.out.splitlines()[0] == 'python tools/train.py work_dirs/pets/config.py'
    assert told.err.splitlines()[-1].startswith(('epoch 1/1', 'iteration'))
    run = Path('work_dirs/pets')
    for name in ('last.pth', 'curves.png', 'model/model.json', 'report/index.html', 'report/metrics.json'):
        assert (run / name).is_file(), name
    assert list((run / 'tensorboard').iterdir())
    (row,) = csv.DictReader((run / 'results.csv').read_text().splitlines())
    assert 0 <= float(row[TASKS[task][2]]) <= 100
    model = json.loads((run / 'model/model.json').read_text())
    assert (model['task'], model['classes']) == (task, names)

    assert main(['predict', str(run / 'model'), 'source', '--recursive', '--size', '64', '--out', 'found']) == 0
    assert json.loads(Path('found/predictions.json').read_text())['model']['classes'] == names
    assert list(Path('found/pictures').rglob('*.jpg'))

    others = [*names, 'other'] if task == 'segmentation' else names[:-1]  # each value needs a name
    _import(tmp_path / 'source', 'others', task, others)
    capsys.readouterr()
    assert main(['train', 'others', '--from', str(run), '--no-report', *QUICK]) == 0
    forget()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if 'another number of classes' in line]
    assert HEADS[task] in line
    assert 'backbone' not in line
    assert json.loads(Path('work_dirs/others/model/model.json').read_text())['classes'] == others
