# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The models that have a name: what the index says, where weights are kept, what is said where they cannot be had."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

pytest.importorskip('yaml')

import mmlightvit
from mmlightvit.checkpoint import zoo
from mmlightvit.cli import main
from mmlightvit.durable.safe_loading import read
from mmlightvit.errors import UserError

NAME, FILE = 'lightvit_t_imagenet', 'lightvit_tiny_78.7.ckpt'


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    for name in ('MMLIGHTVIT_OFFLINE', 'HF_HUB_OFFLINE'):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / 'hub' / 'checkpoints'


def test_the_list(cache, capsys):
    assert main(['models']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(zoo.entries())
    (line,) = [line for line in lines if line.startswith(f'{NAME} ')]
    assert line.split() == [NAME, 'classification', '9.4', '0.8', 'Top', '1', 'Accuracy', '78.7', 'Apache-2.0']
    assert main(['models', '--task', 'instance', '--json']) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row['task'] for row in rows} == {'instance'}
    assert {'mask_rcnn_lightvit_t_1x', 'lightvit_own_data_instance'} <= {row['name'] for row in rows}
    assert mmlightvit.list_models('instance') == [row['name'] for row in rows]
    assert len(mmlightvit.list_models()) == len(zoo.entries())
    with pytest.raises(UserError, match='task'):
        mmlightvit.list_models('pose')


def test_every_task_is_the_one_of_its_config():
    for entry in zoo.entries():
        assert entry.config.is_file()
        text = entry.config.read_text()
        if entry.task in ('instance', 'detection'):
            assert 'mmseg' not in text
        assert ('retinanet' in text) == (entry.task == 'detection')
        assert ('segmentation' in entry.name or 'fpn' in entry.name or 'upernet' in entry.name) == (
            entry.task == 'segmentation'
        )


def test_where_weights_are(cache, capsys):
    assert main(['models', 'path', NAME]) == 0
    assert capsys.readouterr().out.strip() == str(cache / FILE)
    cache.mkdir(parents=True)
    (cache / FILE).write_bytes(b'weights')
    assert main(['models', 'pull', NAME, '--to', str(cache / 'copy')]) == 0
    out = capsys.readouterr().out
    assert out.startswith(str(cache / 'copy' / FILE))
    assert 'unverified' in out
    assert (cache / 'copy' / FILE).read_bytes() == b'weights'
    assert zoo.find(NAME).is_here


def test_the_cache_is_torchs(cache):
    torch = pytest.importorskip('torch')
    assert zoo.cache_dir() == Path(torch.hub.get_dir()) / 'checkpoints'


def test_offline(cache, monkeypatch, capsys):
    monkeypatch.setenv('MMLIGHTVIT_OFFLINE', '1')
    monkeypatch.setattr('urllib.request.urlopen', lambda *_, **__: pytest.fail('a connection was opened'))
    assert main(['models', 'pull', NAME]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f'error: {NAME} is not here and MMLIGHTVIT_OFFLINE is set; put {FILE} at {cache / FILE} (')
    assert 'Google Drive' in error


def test_a_dead_address(cache, monkeypatch, capsys):
    def refuse(*_, **__):
        raise OSError('no route to host')

    monkeypatch.setattr(read.urllib.request, 'urlopen', refuse)
    assert main(['models', 'pull', NAME]) == 1
    error = capsys.readouterr().err
    assert 'no route to host' in error
    assert f'put {FILE} at {cache / FILE}' in error
    assert error.count('\n') == 1


def test_hashes_are_checked(cache, monkeypatch):
    cache.mkdir(parents=True)
    (cache / FILE).write_bytes(b'weights')
    entry = zoo.find(NAME)
    for digest, good in ((hashlib.sha256(b'weights').hexdigest(), True), ('0' * 64, False)):
        known = zoo.Entry(**{**vars(entry), 'sha256': digest})
        monkeypatch.setattr(zoo, 'entries', lambda known=known: (known,))
        if good:
            assert zoo.pull(NAME) == cache / FILE
        else:
            with pytest.raises(UserError, match='not what was published'):
                zoo.pull(NAME)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['pull', 'lightvit_t_imagnet'], 'nearest: lightvit_t_imagenet'),
        (['pull', 'retinanet_lightvit_t_1x'], 'no weights of retinanet_lightvit_t_1x are published'),
        (['path', 'mask_rcnn_lightvit_t_1x_released'], 'https://github.com/hunto/LightViT/tree/main/detection'),
        (['pull'], 'needs a NAME'),
        (['--to', 'x'], '--to is for'),
    ],
)
def test_mistakes_are_one_line(cache, capsys, arguments, words):
    assert main(['models', *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert words in error
    assert error.count('\n') == 1


def test_show_leaves_out_what_there_is_not():
    from mmlightvit.cli.show import measured, summary
    from mmlightvit.inference.preprocess import InputSpec
    from mmlightvit.model_folder.info import ModelInfo

    spec = InputSpec(mean=(123.67499999999998, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    metrics = {'coco/bbox_mAP': 0.41234567891, 'coco/bbox_mAP_s': -1.0, 'report/bbox_AP': {'value': 0.5, 'low': None}}
    info = ModelInfo('detection', 'm', ('a', 'b'), 'mmdet', {'type': 'RetinaNet'}, spec, metrics=metrics)
    text = summary(info)
    assert 'input: rgb; mean 123.675, 0, 0; deviation 1, 1, 1' in text
    assert 'None' not in text
    assert text.splitlines()[3:6] == ['coco/bbox_mAP: 0.4123', 'coco/bbox_mAP_s: –', 'report/bbox_AP: 0.5']
    assert measured({'value': 0.5, 'low': 0.25, 'high': 0.75}) == '0.5 (0.25 to 0.75)'
