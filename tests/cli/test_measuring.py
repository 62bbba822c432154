# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``report``, ``val`` and ``compare`` on predictions that are there already."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import scenes

pytest.importorskip('hotcoco')

from mmlightvit.cli import call
from mmlightvit.evaluation.matches import FEWEST


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """A COCO file, results of a detector, better ones, and a few more mistakes in the first."""
    labels = scenes.truth(pictures=80)
    noisy = scenes.noisy(labels)
    contents = dict(truth=labels, noisy=noisy, perfect=scenes.perfect(labels), fewer=noisy[3:])
    for name, content in contents.items():
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_val_prints_the_table(files, capsys):
    assert call('val', ['perfect.json', 'truth.json']) == 0
    head, boxes = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ['AP', 'AP50', 'AP75']
    assert boxes.split()[:4] == ['boxes', '1.000', '1.000', '1.000']
    assert call('val', ['perfect.json', 'truth.json', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['bbox']['AP'] == pytest.approx(1)


def test_report_goes_into_the_next_free_folder(files, capsys):
    pytest.importorskip('matplotlib')
    for expected in ('report', 'report-2'):
        assert call('report', ['perfect.json', 'truth.json']) == 0
        assert capsys.readouterr().out.strip() == f'{expected}/index.html'
        assert (files / expected / 'index.html').is_file()
    assert call('report', ['perfect.json', 'truth.json', '--out', 'report']) == 1
    assert capsys.readouterr().err.startswith('error: --out report exists')
    assert call('report', ['noisy.json', 'truth.json', '--out', 'report', '--overwrite', '--iou', '0.75']) == 0
    assert call('report', ['noisy.json', 'truth.json', '--iou', '0.6', '--json', '--out', 'other']) == 0
    assert '0.6' in json.loads(capsys.readouterr().out.partition('\n')[2])['tide']['bbox']


def test_report_keeps_thresholds_in_the_model_folder(files, capsys):
    from mmlightvit.model_folder import card
    from mmlightvit.model_folder.info import InputSpec, ModelInfo, find_folder
    from mmlightvit.model_folder.write import set_thresholds

    spec = InputSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    info = ModelInfo('detection', 'm', ('a', 'b'), 'mmdet', {'type': 'RetinaNet'}, spec)
    (files / 'run/model').mkdir(parents=True)
    (files / 'run/model/model.json').write_text(info.to_json())
    folder = find_folder('run')
    (folder / card.FILE).write_text(card.text(info))
    thresholds = dict(default=0.4, per_class={'a': 0.6, 'c': 0.1}, chosen_on='val, F1 at IoU 0.5')
    boxes = {name: dict(value=0.5, low=0.4, high=0.6) for name in ('AP', 'AP50', 'AP75')}
    set_thresholds(folder, dict(thresholds=thresholds, metrics=dict(bbox=boxes)))
    assert ModelInfo.load(folder).threshold_of_classes().tolist() == pytest.approx([0.6, 0.4])
    text = (folder / card.FILE).read_text()
    assert '| report/bbox_AP | 0.5 (0.4 to 0.6) |' in text
    assert 'thresholds: 0.4; a 0.6; chosen on val, F1 at IoU 0.5' in text
    (folder / card.FILE).write_text(text + 'limits: blurred pictures')  # what people write stays
    set_thresholds(folder, dict(thresholds=dict(thresholds, default=0.1), metrics={}))
    assert ModelInfo.load(folder).thresholds['default'] == 0.1
    assert (folder / card.FILE).read_text() == text + 'limits: blurred pictures'
    assert call('report', ['noisy.json', 'truth.json', '--set-thresholds']) == 1
    assert 'model.json' in capsys.readouterr().err
    assert not (files / 'report').exists()


def verdict(capsys, *arguments: str) -> str:
    assert call('compare', list(arguments)) == 0
    return capsys.readouterr().out.splitlines()[-1]


def test_compare_says_what_is_better(files, capsys):
    assert verdict(capsys, 'noisy.json', 'perfect.json', 'truth.json').startswith('perfect.json is better than noisy')
    assert verdict(capsys, 'perfect.json', 'noisy.json', 'truth.json').startswith('noisy.json is worse than perfect')


def test_compare_says_that_the_set_is_too_small(files, capsys):
    assert verdict(capsys, 'noisy.json', 'fewer.json', 'truth.json').startswith('too small to tell on 80 pictures')


def test_compare_knows_the_same_model(files, capsys):
    assert 'are the same here' in verdict(capsys, 'noisy.json', 'noisy.json', 'truth.json')


def test_compare_needs_pictures(files, capsys):
    few = scenes.truth(pictures=FEWEST - 1)
    (files / 'few.json').write_text(json.dumps(few))
    for name, results in (('a', scenes.noisy(few)), ('b', scenes.perfect(few))):
        (files / f'{name}.json').write_text(json.dumps(results))
    assert verdict(capsys, 'a.json', 'b.json', 'few.json').startswith(f'{FEWEST - 1} pictures are too few to tell')


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['missing.json', 'truth.json'], 'missing.json cannot be read'),
        (['noisy.json', 'missing.json'], 'missing.json cannot be read'),
        (['noisy.json', 'noisy.json'], 'noisy.json: it is not a COCO file'),
        (['truth.json', 'truth.json'], 'expected predictions.json'),
        (['noisy.json', 'truth.json', '--iou', '0.52'], '--iou: expected one of 0.5'),
        (['noisy.json', 'truth.json', '--batch', '2'], '--batch would not be read: noisy.json holds predictions'),
        (['noisy.json', 'truth.json', '--random'], '--random would not be read: noisy.json holds predictions'),
    ],
)
def test_what_is_wrong_is_said_in_a_line(files, capsys, arguments, says):
    assert call('report', arguments) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count('\n') == 1
    assert not (files / 'report').exists()
