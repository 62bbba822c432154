# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""`mmlightvit demo` shows what prediction finds, on loopback, and asks nobody else."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import chromium
import numpy as np
import pytest
from PIL import Image

from mmlightvit.cli import main
from mmlightvit.deploy import demo
from mmlightvit.explain.tokens import explain
from mmlightvit.load import load_model
from mmlightvit.model_folder.write import write_folder
from mmlightvit.pictures.result import Result

ROOT = Path(__file__).resolve().parents[2]

needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec('gradio') is None, reason='needs gradio, which `make test-demo` installs beside .venv'
)
#: Runs a command and prints each peer that it connects to.
LISTENING = """
import sys

def listen(event, arguments):
    if event in ('socket.connect', 'socket.getaddrinfo'):
        print('asks', arguments[1] if event == 'socket.connect' else arguments[:2], flush=True)

sys.addaudithook(listen)
from mmlightvit.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_missing_gradio_is_one_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    assert main(['demo', 'nothing']) == 1
    assert capsys.readouterr().err == 'error: mmlightvit demo needs gradio: pip install "mmlightvit[demo]"\n'


def test_tables():
    base = {'classes': ('cat', 'dog'), 'height': 2, 'width': 4}
    assert demo.table(Result('classification', probs=np.array([0.25, 0.75], np.float32), **base))['data'] == [
        ['dog', 0.75],
        ['cat', 0.25],
    ]
    label_map = np.array([[0, 0, 0, 1]] * 2, np.uint8)
    assert demo.table(Result('segmentation', label_map=label_map, **base))['data'] == [['cat', 75.0], ['dog', 25.0]]
    found = Result(
        'detection', boxes=np.array([[0, 0, 3.26, 2]], np.float32), scores=np.array([0.5]), labels=np.array([1]), **base
    )
    assert demo.table(found) == {
        'headers': ['class', 'score', 'x1', 'y1', 'x2', 'y2'],
        'data': [['dog', 0.5, 0.0, 0.0, 3.3, 2.0]],
    }


@pytest.fixture
def running(tmp_path):
    """A function from arguments to the address of the demo, once it is there, and the file with what it prints."""
    processes = []

    def start(*arguments: str):
        log = tmp_path / 'log'
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        with log.open('w') as out:
            process = subprocess.Popen(
                [sys.executable, '-c', LISTENING, 'demo', *arguments, '--port', str(port)],
                cwd=tmp_path,
                env={**os.environ, 'PYTHONPATH': str(ROOT), 'GRADIO_TEMP_DIR': str(tmp_path / 'gradio')},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        processes.append(process)
        end = time.monotonic() + 240
        while '(Ctrl-C ends it)' not in log.read_text():
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        return f'http://127.0.0.1:{port}/', log

    yield start
    for process in processes:
        process.terminate()
        process.wait(30)


ROW = """[...document.querySelectorAll('[data-row="0"]')].map((cell) => cell.textContent.trim()).join()"""
IMAGES = "[...document.querySelectorAll('img')].map((image) => [image.naturalWidth, image.naturalHeight].join())"


def shows(tab, result: Result) -> None:
    """Waits until the table begins with the first row of a result."""
    row = [str(value) for value in demo.table(result)['data'][0]]
    tab.wait(f'{ROW} === {",".join(row)!r}')


def click(tab, label: str) -> None:
    tab.evaluate(
        f"[...document.querySelectorAll('label')].find((each) => each.innerText.includes({label!r}))"
        ".querySelector('input').click()"
    )


@needs_gradio
@pytest.mark.slow
def test_models_are_tried_out(running, exported, pictures, tmp_path):
    """A detector in torch with its attention, then exported models; nothing comes from elsewhere or goes there."""
    detector = exported('instance').model
    info = replace(detector.info, thresholds={'default': 0.3, 'per_class': {'class 3': 1.0}})
    write_folder(tmp_path / 'detector', info, detector.module.state_dict())
    files = [str(exported(task).path) for task in ('classification', 'segmentation')]
    address, log = running(str(tmp_path / 'detector'), *files)
    path = tmp_path / 'picture.png'
    Image.fromarray(pictures[0]).save(path)
    with chromium.page(tmp_path / 'browser') as tab:
        tab.open(address, height=2400)  # a table that is not seen is not filled
        tab.wait("document.querySelector('input[type=file]') !== null")
        tab.choose('input[type=file]', path)
        model = load_model(tmp_path / 'detector')
        result = model.predict(path)
        shows(tab, result)
        drawn = result.draw(legible=True)
        tab.wait(f'{IMAGES}.includes("{drawn.shape[1]},{drawn.shape[0]}")')

        click(tab, 'own thresholds')
        everything = model.predict(path, score_thr=0.3)
        assert everything.names[0] != result.names[0]  # class 3 had been held back
        shows(tab, everything)

        click(tab, 'global tokens')
        sheet = explain(model, everything)
        tab.wait(f'{IMAGES}.includes("{sheet.shape[1]},{sheet.shape[0]}")')

        for file in files:
            tab.evaluate("document.querySelector('input[aria-label=Model]').focus()")
            tab.wait("document.querySelectorAll('[role=option]').length === 3")
            tab.evaluate(
                f"[...document.querySelectorAll('[role=option]')].find((each) => each.innerText.includes({file!r}))"
                ".dispatchEvent(new MouseEvent('mousedown', { bubbles: true }))"
            )
            shows(tab, load_model(file).predict(path))
        assert tab.errors == []
        local = address, address.replace('http', 'ws'), f'blob:{address}', 'data:'
        assert [request for request in tab.requests if not request.startswith(local)] == []
    asked = [line for line in log.read_text().splitlines() if line.startswith('asks')]
    assert asked and [line for line in asked if "'127.0.0.1'" not in line] == []


@needs_gradio
@pytest.mark.slow
def test_a_space_runs_an_exported_model(exported, tmp_path):
    """Without torch and toolboxes."""
    for name in ('app.py', 'requirements.txt'):
        shutil.copy(ROOT / 'space' / name, tmp_path)
    code = (
        'import runpy, sys\n'
        "for name in ('torch', 'mmengine', 'mmcv', 'cv2'): sys.modules[name] = None\n"
        "page = runpy.run_path('app.py', run_name='app')['page']\n"
        'print(type(page).__name__)'
    )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    run = [sys.executable, '-c', code]
    alone = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert alone.stderr == 'error: put a file of `mmlightvit export` beside app.py\n'
    shutil.copy(exported('instance').path, tmp_path)
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == 'Blocks'
