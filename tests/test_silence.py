# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Nothing is looked up or connected to unless the user names it: what a process does is heard by an audit hook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import planted
import pytest
import scenes

#: Notes every name that is resolved and every peer, whatever code asks, in processes that it forks too; an error that
#: somebody swallows is noted as well.
LISTENER = """
import os, sys

notes = os.open('heard.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
_EVENTS = ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.gethostbyaddr', 'socket.sendto')

def listen(event, arguments):
    if event in _EVENTS:
        said = arguments[1:] if event in ('socket.connect', 'socket.sendto') else arguments
        os.write(notes, f'{event} {said!r}\\n'.encode())
        raise OSError('closed by the test')

sys.addaudithook(listen)
"""


def heard_of(script: str, folder: Path) -> list[str]:
    """What a fresh process that runs a script asks of the network; it has to succeed.

    It has a home of its own, where nobody has declined anything, and does not know that it runs for a CI.
    """
    unset = ('OFFLINE', 'CI', 'GITHUB_', 'GITLAB_', 'JENKINS_')
    environment = {key: value for key, value in os.environ.items() if not any(word in key for word in unset)}
    folder.joinpath('home').mkdir(exist_ok=True)
    root = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', f'{LISTENER}\n{script}'],
        cwd=folder,
        env={
            **environment,
            'PYTHONPATH': os.pathsep.join([root, *(f'{root}/{name}' for name in ('tests', 'tests/deploy'))]),
            'OMP_NUM_THREADS': '1',
            'HOME': str(folder / 'home'),
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return (folder / 'heard.txt').read_text().splitlines()


def test_the_listener_hears(tmp_path):
    script = (
        'import contextlib, socket, urllib.request\n'
        'with contextlib.suppress(OSError): urllib.request.urlopen("http://localhost:9/")\n'
        'with contextlib.suppress(OSError): socket.create_connection(("127.0.0.1", 9))\n'
        'if not os.fork(): socket.create_connection(("127.0.0.1", 9))\n'
        'os.wait()'
    )
    assert len(heard_of(script, tmp_path)) == 3


#: The package, its commands' parsers, and the optional packages that could speak.
IMPORTS = """
import importlib, importlib.util, pkgutil
import mmlightvit
from mmlightvit.cli import COMMANDS, main

assert main(['--help']) == 0
for command in COMMANDS.values():
    importlib.import_module(command.module).parser()
for name in ('onnxruntime', 'hotcoco', 'supervision', 'timm'):
    if importlib.util.find_spec(name):
        importlib.import_module(name)
"""


REPORT = """
from mmlightvit.cli import main

assert main(['val', 'noisy.json', 'truth.json']) == 0
assert main(['report', 'noisy.json', 'truth.json', '--out', 'report']) == 0
assert main(['models']) == 0
"""


PREDICT = """
from pathlib import Path
import docs_worlds
from mmlightvit.cli import main

docs_worlds.demo(Path.cwd())
arguments = ['work_dirs/demo/detection', 'data/digits/detection/val', '--size', '64', '--out', 'found']
assert main(['predict', *arguments]) == 0
assert list(Path('found/pictures').iterdir())
"""


EXPORTED = """
from pathlib import Path
from PIL import Image
from served import write_detector
from mmlightvit.deploy.formats.openvino import import_openvino
from mmlightvit.deploy.runtime import load_exported

path = write_detector(Path('tiny.onnx'))
for device in ('cpu', 'openvino:CPU'):
    assert len(load_exported(path, device).predict(Image.new('RGB', (60, 40), (230, 230, 30))))
import_openvino().convert_model('tiny.onnx')
"""


EXPORT = """
from mmlightvit.cli import main

assert main(['export', 'configs/demo/lightvit_digits.py', '--random', '--format', 'openvino', '--out', 'd.xml']) == 0
assert main(['show', 'd.xml']) == 0
"""


@pytest.mark.slow
def test_export_is_silent(repo, tmp_path):
    for package in ('mmpretrain', 'onnx', 'onnxscript', 'openvino'):
        pytest.importorskip(package)
    (tmp_path / 'configs').symlink_to(repo / 'configs')
    assert heard_of(EXPORT, tmp_path) == []


#: What each needs, and does, one after the other in one process, in which each import is made once.
DEEDS = {
    'imports and parsers': ((), IMPORTS),
    'report': (('hotcoco',), REPORT),
    'predict': (('mmdet',), PREDICT),
    'exported models': (('onnx', 'onnxruntime', 'openvino'), EXPORTED),
}


@pytest.fixture(scope='module')
def deeds(repo, tmp_path_factory) -> tuple[Path, dict[str, list[str]]]:
    """The folder of the process, and what was heard during each deed."""
    folder = tmp_path_factory.mktemp('deeds')
    (folder / 'configs').symlink_to(repo / 'configs')
    labels = scenes.truth(pictures=20)
    for name, content in (('truth', labels), ('noisy', scenes.noisy(labels))):
        (folder / f'{name}.json').write_text(json.dumps(content))
    possible = {name: code for name, (needs, code) in DEEDS.items() if all(map(find_spec, needs))}
    script = ''.join(f"\nos.write(notes, b'begin {name}\\n')\n{code}" for name, code in possible.items())
    heard: dict[str, list[str]] = {}
    for line in heard_of(script, folder):
        if line.startswith('begin '):
            heard[line.removeprefix('begin ')] = []
        else:
            list(heard.values())[-1].append(line)
    assert list(heard) == list(possible)
    return folder, heard


@pytest.mark.parametrize('name', DEEDS)
def test_it_is_silent(deeds, name):
    for package in DEEDS[name][0]:
        pytest.importorskip(package)
    folder, heard = deeds
    assert heard[name] == []
    if name == 'report':
        page = (folder / 'report/index.html').read_text()
        outside = ('src="http', 'href="http', 'url(http', '@import', 'fetch(')
        assert not [address for address in outside if address in page]


#: From labels to a model folder and to labelled pictures.
TRAIN = """
from pathlib import Path
from small_runs import COMMON, TASKS
from mmlightvit.cli import main

assert main(['data', 'import', 'source', '--out', 'pets', '--task', 'detection']) == 0
options = [*COMMON, *TASKS['detection'][1]]
assert main(['train', 'pets/config.py', '--work-dir', 'run', '--cfg-options', *options]) == 0
assert Path('run/model/model.json').is_file()
assert main(['predict', 'run', 'source/val', '--size', '64', '--out', 'found']) == 0
assert list(Path('found/pictures').iterdir())
"""


@pytest.mark.slow
def test_import_train_and_predict_are_silent(tmp_path):
    pytest.importorskip('mmdet')
    (tmp_path / 'source').mkdir()
    planted.write_coco(tmp_path / 'source', images=3)
    planted.write_coco(tmp_path / 'source', images=2, split='val')
    assert heard_of(TRAIN, tmp_path) == []
