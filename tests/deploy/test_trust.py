# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A ``.pt2`` can run any code: it is opened with the user's word alone; what it says of itself is read without it."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmlightvit import load_model
from mmlightvit.cli import main
from mmlightvit.deploy.formats.pt2 import OUTPUTS_KEY
from mmlightvit.deploy.runtime import read_info
from mmlightvit.errors import UserError
from mmlightvit.model_folder.info import METADATA_KEY, InputSpec, ModelInfo

torch = pytest.importorskip('torch')
INFO = ModelInfo('classification', 'tiny', ('cat', 'dog'), 'mmpretrain', {'type': 'ImageClassifier'},
                 InputSpec((0, 0, 0), (1, 1, 1), crop=(8, 8)))  # fmt: skip


class Brightness(torch.nn.Module):
    """The probability of a dog is how bright the picture is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([255.0]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        bright = image.mean((1, 2, 3)) / self.scale
        return torch.stack([1 - bright, bright], 1)


class Payload:
    """Runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope='module')
def program(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('pt2') / 'tiny.pt2'
    exported = torch.export.export(Brightness(), (torch.zeros(1, 3, 8, 8),), strict=False)
    torch.export.save(exported, path, extra_files={METADATA_KEY: INFO.to_json(), OUTPUTS_KEY: 'probs'})
    return path


@pytest.fixture
def hostile(program, tmp_path) -> tuple[Path, Path]:
    """The same with a weight whose pickle leaves a mark, and where."""
    path, mark, pickled = tmp_path / 'evil.pt2', tmp_path / 'mark', io.BytesIO()
    torch.save(Payload(mark), pickled)
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(path, 'w') as target:
        for item in source.infolist():
            content = source.read(item)
            if item.filename.endswith('weights_config.json'):
                config = json.loads(content)
                next(iter(config['config'].values())).update(use_pickle=True, path_name='weight_evil')
                content = json.dumps(config).encode()
                root = item.filename.partition('/')[0]
                target.writestr(f'{root}/data/weights/weight_evil', pickled.getvalue())
            target.writestr(item.filename, content)
    return path, mark


def test_a_program_is_opened_with_the_users_word_alone(program, tmp_path):
    with pytest.raises(UserError, match=r'tiny\.pt2 is a program.*--trust \(trust=True in Python\)'):
        load_model(program)
    picture = np.full((8, 8, 3), 51, np.uint8)
    np.testing.assert_allclose(load_model(program, trust=True).predict(picture).probs, [0.8, 0.2], atol=1e-6)
    Image.fromarray(picture).save(tmp_path / 'p.png')
    options = [str(tmp_path / 'p.png'), '--save', 'none']
    assert main(['predict', str(program), *options]) == 1
    assert main(['predict', str(program), *options, '--trust']) == 0


def test_an_ending_in_capitals_is_the_same_format(program, tmp_path, capsys):
    path = tmp_path / 'TINY.PT2'
    path.write_bytes(program.read_bytes())
    with pytest.raises(UserError, match=r'is a program.*--trust'):
        load_model(path)
    assert load_model(path, trust=True).info == INFO and read_info(path) == INFO
    assert main(['serve', str(path)]) == 1 and 'export it first' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['predict', 'val', 'report', 'compare', 'serve', 'benchmark', 'export'])
def test_no_command_opens_what_nobody_trusts(hostile, tmp_path, monkeypatch, capsys, command):
    path, mark = hostile
    monkeypatch.chdir(tmp_path)
    for label in ('cat', 'dog'):
        for split in ('train', 'val'):
            (tmp_path / 'data' / split / label).mkdir(parents=True)
            Image.new('RGB', (8, 8), (len(label) * 9, 9, 99)).save(tmp_path / 'data' / split / label / 'p.png')
    assert main(['data', 'import', 'data', '--out', 'set']) == 0
    operands = {'predict': ['data/val/cat'], 'compare': [str(path), 'set'], 'serve': [], 'benchmark': [], 'export': []}
    capsys.readouterr()
    assert main([command, str(path), *operands.get(command, ['set'])]) == 1
    error = capsys.readouterr().err
    assert ('--trust' in error) == (command != 'serve') and error.count('\n') == 1
    assert not mark.exists()


def test_show_reads_what_it_says_without_opening_it(program, hostile, tmp_path, capsys):
    path, mark = hostile
    assert main(['show', str(path)]) == 0
    assert 'tiny: classification' in capsys.readouterr().out
    assert not mark.exists() and read_info(path) == read_info(program) == INFO
    for name, content, words in (
        ('empty.pt2', b'', 'cannot be opened'),
        ('text.pt2', b'PK\x03\x04' + bytes(100), 'cannot be opened'),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=words):
            read_info(tmp_path / name)
    with zipfile.ZipFile(tmp_path / 'other.pt2', 'w') as archive:
        archive.writestr('other/data.pkl', b'')
    with pytest.raises(UserError, match='was not written by mmlightvit export'):
        read_info(tmp_path / 'other.pt2')


def test_the_mark_is_left_where_it_is_trusted(hostile):
    """So the tests above would see it."""
    path, mark = hostile
    with pytest.raises(UserError):
        load_model(path, trust=True)
    assert mark.is_dir()
