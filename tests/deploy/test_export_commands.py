# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit export``, ``show`` and ``benchmark``, as they are typed."""

from __future__ import annotations

import csv
import json
import time
from types import SimpleNamespace

import pytest

from mmlightvit.cli import main
from mmlightvit.cost.forms import COLUMNS, Form, time_forms
from mmlightvit.errors import UserError


def test_show_prints_the_proof(exported, capsys):
    path = str(exported('instance').path)
    assert main(['show', path]) == 0
    printed = capsys.readouterr().out
    assert 'instance, MaskRCNN' in printed and 'class 0, class 1' in printed
    assert 'verified at sizes' in printed and '480x640' in printed and 'objects' in printed
    assert main(['show', path, '--json']) == 0
    assert json.loads(capsys.readouterr().out)['export']['format'] == 'onnx'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['show', 'nothing.onnx'], 'no exported file and no model folder: nothing.onnx'),
        (['export', 'nothing.py', '--random'], 'nothing.py'),
        (['benchmark', 'nothing.py', '--rounds', '0'], 'expected at least 1'),
        (['benchmark', 'nothing.py', '--out', 'nowhere'], '--out nowhere is no folder'),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: ') and message in error and error.count('\n') == 1


def test_an_exported_file_is_not_exported_again(exported, capsys, tmp_path):
    path = str(exported('classification').path)
    assert main(['export', path, '--out', str(tmp_path / 'again.onnx')]) == 1
    assert 'is an exported file' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('task', 'int8', 'before', 'after', 'error'),
    [
        ('instance', False, 0.4, 0.3991, None),
        ('instance', False, 0.4, 0.3989, 'falls'),
        ('instance', True, 0.4, 0.3981, None),
        ('instance', True, 0.4, 0.3979, 'falls'),
        ('classification', False, 80.0, 79.91, None),
        ('classification', False, 80.0, 79.89, 'falls'),
        ('classification', True, 80.0, 79.61, None),
        ('classification', True, 80.0, 79.59, 'falls'),
        ('instance', True, 0.0, 0.0, 'proves nothing'),
        ('segmentation', False, None, None, 'is not defined there'),
    ],
)
def test_how_far_the_metric_may_fall(task, int8, before, after, error, monkeypatch, tmp_path):
    """By 0.001 AP or 0.1 %; of 8-bit weights, by half a per cent of itself."""
    from mmlightvit.evaluation import prove

    truth = SimpleNamespace(check_task=lambda name: None)
    monkeypatch.setattr(prove, 'of_data', lambda *_: truth)
    monkeypatch.setattr(prove, 'answers_of', lambda *_: before)
    monkeypatch.setattr(prove, 'answers', lambda *_: after)
    monkeypatch.setattr(prove, 'main_metric', lambda found, truth: ('AP', found))
    measure = prove.metric_proof(SimpleNamespace(task=task), 'pets', int8)
    if error is None:
        assert measure(tmp_path)['after'] == after
    else:
        with pytest.raises(UserError, match=error):
            measure(tmp_path)


def test_boxes_say_nothing_of_masks(monkeypatch):
    """The number that decides for a model with masks, on labels without."""
    from mmlightvit.evaluation import measure

    monkeypatch.setattr(measure, 'measure', lambda *_: SimpleNamespace(values={'bbox': {'AP': 0.5}}))
    answers = SimpleNamespace(model={'task': 'instance'})
    assert measure.main_metric(answers, SimpleNamespace(task='detection')) == ('AP', 0.5)


@pytest.mark.parametrize(('option', 'name'), [(['--int8'], 'int8'), (['--cut', 'backbone'], 'cut')])
def test_a_folder_refuses_what_it_would_not_read(option, name, tmp_path, capsys, repo):
    config = str(repo / 'configs/lightvit_t_cifar10.py')
    assert main(['export', config, '--random', '--format', 'folder', '--out', str(tmp_path / 'out'), *option]) == 1
    assert f'--{name} would not be read: --format folder copies the weights' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_turns_and_their_ratios():
    order = []

    def step(name, seconds):
        def run():
            order.append(name)
            time.sleep(seconds)

        return run

    forms = [
        Form('torch', step('torch', 0.02)),
        Form('fast', step('fast', 0.005)),
        Form('none', status='it is missing'),
    ]
    time_forms(forms, 4)
    assert order == [
        'torch',
        'fast',
        *(['torch', 'fast', 'fast', 'torch'] * 2),
    ]  # one untimed step, four rounds
    rows = [form.row(forms[0], batch=2) for form in forms]
    assert [list(row) for row in rows] == [list(COLUMNS)] * 3
    assert rows[0]['ratio_to_torch'] == 1.0 and 2 < rows[1]['ratio_to_torch'] < 6
    assert rows[1]['ratio_low'] <= rows[1]['ratio_to_torch'] <= rows[1]['ratio_high']
    assert rows[1]['images_per_s'] == pytest.approx(2e3 / rows[1]['ms_median'])
    assert rows[2]['ms_median'] is None and rows[2]['status'] == 'it is missing'


@pytest.mark.slow
def test_from_a_config_to_a_table(tmp_path, capsys, repo):
    config = str(repo / 'configs/lightvit_t_cifar10.py')
    out = tmp_path / 'model.onnx'
    assert main(['export', config, '--random', '--out', str(out), '--triton', str(tmp_path / 'models')]) == 0
    assert (tmp_path / 'models/model/1/model.onnx').read_bytes() == out.read_bytes()
    assert 'verified on generated pictures only' in capsys.readouterr().out and out.is_file()
    assert main(['export', config, '--random', '--out', str(out)]) == 1
    assert '--overwrite replaces it' in capsys.readouterr().err
    options = ['--size', '32', '32', '--rounds', '3', '--out', str(tmp_path)]
    assert main(['benchmark', config, '--random', '--formats', 'onnx', 'openvino', 'pt2', *options]) == 0
    rows = list(csv.DictReader((tmp_path / 'benchmark.csv').read_text().splitlines()))
    assert [row['format'] for row in rows] == ['torch', 'onnx', 'openvino', 'pt2']
    assert all(float(row['max_error']) < 1e-4 and float(row['ms_median']) > 0 for row in rows)
    assert len(json.loads((tmp_path / 'benchmark.json').read_text())['rows']) == 4
