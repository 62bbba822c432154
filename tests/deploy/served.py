# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A service in a process of its own, and exported files so small that a test can write them."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from onnx import TensorProto, helper

from mmlightvit.model_folder.info import METADATA_KEY, InputSpec, ModelInfo

#: Starts the command where torch cannot be imported; whom it speaks to and what it writes is in the log.
START = """
import os
import sys

for name in ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg', 'cv2', 'onnx'):
    sys.modules[name] = None

def listen(event, arguments):
    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto'):
        sys.stderr.write(f'SPOKE {event} {arguments[1:]}\\n')
    if event == 'socket.bind':
        sys.stderr.write(f'BOUND {arguments[1]}\\n')
    if event == 'open' and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        sys.stderr.write(f'WROTE {arguments[0]}\\n')

sys.addaudithook(listen)
from mmlightvit.cli import main

sys.exit(main(['serve', *sys.argv[1:]]))
"""


def info(task: str, **changed: object) -> ModelInfo:
    """What a small model says of itself; ``export`` and others as they are given."""
    spec = InputSpec((120.0,) * 3, (60.0,) * 3, resize={'short': 32, 'long': 64}, pad_multiple=32)
    about = dict(task=task, name='tiny', classes=('cat', 'dog'), scope='mmdet', model={'type': 'Tiny'}, input=spec)
    thresholds = {'default': 0.3, 'per_class': {'dog': 0.6}}
    return ModelInfo(**{**about, 'thresholds': thresholds, 'weights_sha256': 'ab' * 32, **changed})


def write_detector(path: Path, said: ModelInfo | None = None, square: bool = False) -> Path:
    """A detector that finds a cat in the middle half and a dog in all of it, both as sure as the picture is bright.

    Args:
        path: The ``.onnx`` file.
        said: What it says of itself.
        square: Whether it breaks at pictures that are no squares.
    """
    constant = {
        'corners': ([0.25, 0.25, 0.75, 0.75, 0.0, 0.0, 1.0, 1.0], TensorProto.FLOAT, [2, 4]),
        'order': ([1, 0, 1, 0], TensorProto.INT64, [4]),
        'labels': ([0, 1], TensorProto.INT64, [2]),
        'twice': ([2, 1], TensorProto.INT64, [2]),
        'shape': ([1, 3, *((32, 32) if square else (-1, 1))], TensorProto.INT64, [4]),
    }
    nodes = [
        *(
            helper.make_node('Constant', [], [name], value=helper.make_tensor(name, kind, shape, values))
            for name, (values, kind, shape) in constant.items()
        ),
        helper.make_node('Reshape', ['image', 'shape'], ['columns']),
        helper.make_node('ReduceMean', ['columns'], ['brightness'], keepdims=1),
        helper.make_node('Sigmoid', ['brightness'], ['score']),
        helper.make_node('Flatten', ['score'], ['flat']),
        helper.make_node('Tile', ['flat', 'twice'], ['scores']),
        helper.make_node('Cast', ['size'], ['real'], to=TensorProto.FLOAT),
        helper.make_node('Gather', ['real', 'order'], ['sides']),
        helper.make_node('Mul', ['corners', 'sides'], ['boxes']),
        helper.make_node('Concat', ['boxes', 'scores'], ['dets'], axis=1),
    ]
    inputs = [
        helper.make_tensor_value_info('image', TensorProto.FLOAT, [1, 3, 'height', 'width']),
        helper.make_tensor_value_info('size', TensorProto.INT64, [2]),
    ]
    outputs = [
        helper.make_tensor_value_info('dets', TensorProto.FLOAT, ['n', 5]),
        helper.make_tensor_value_info('labels', TensorProto.INT64, ['n']),
    ]
    return _write(path, helper.make_graph(nodes, 'tiny', inputs, outputs), said or info('detection'))


def write_classifier(path: Path, said: ModelInfo | None = None) -> Path:
    """A classifier by the brightness of two channels."""
    nodes = [
        helper.make_node(
            'Constant', [], ['channels'], value=helper.make_tensor('channels', TensorProto.INT64, [2], [0, 1])
        ),
        helper.make_node('ReduceMean', ['image'], ['brightness'], axes=[2, 3], keepdims=0),
        helper.make_node('Gather', ['brightness', 'channels'], ['two'], axis=1),
        helper.make_node('Softmax', ['two'], ['probs'], axis=1),
    ]
    inputs = [helper.make_tensor_value_info('image', TensorProto.FLOAT, ['batch', 3, 'height', 'width'])]
    outputs = [helper.make_tensor_value_info('probs', TensorProto.FLOAT, ['batch', 2])]
    return _write(path, helper.make_graph(nodes, 'tiny', inputs, outputs), said or info('classification'))


def _write(path: Path, graph: onnx.GraphProto, said: ModelInfo) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)])
    model.ir_version = 8
    helper.set_model_props(model, {METADATA_KEY: said.to_json()})
    onnx.save(model, path)
    return path


class Reply(NamedTuple):
    """What came back."""

    status: int
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of an error."""
        error = self.json['error']
        assert set(error) == {'code', 'message'} and error['message'] and '\n' not in error['message']
        return error['code']


class Served:
    """``mmlightvit serve`` in a process, from when it is ready.

    Args:
        folder: For its log.
        arguments: Of the command.
    """

    def __init__(self, folder: Path, *arguments: object) -> None:
        self._log = folder / f'log-{time.monotonic_ns()}.txt'
        root = Path(__file__).resolve().parents[2]
        with self._log.open('w') as file:
            self.process = subprocess.Popen(
                [sys.executable, '-c', START, '--port', '0', *map(str, arguments)],
                stderr=file,
                cwd=folder,
                env={**os.environ, 'PYTHONPATH': str(root), 'PYTHONDONTWRITEBYTECODE': '1'},
            )
        try:
            found = self.wait_for(lambda: re.search(r'^http://[^ ]*:(\d+), models: ', self.log, re.MULTILINE))
            self.port = int(found[1])
            self.wait_for(lambda: self.get('/healthz').status == 200)
        except BaseException:
            self.__exit__()
            raise

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        """What a condition gives, once it holds."""
        end = time.monotonic() + 60
        while not (found := condition()):
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.05)
        return found

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str, **headers: str) -> Reply:
        return self.send('GET', path, None, headers)

    def post(self, path: str, body: object, content_type: str = 'image/png', **headers: str) -> Reply:
        return self.send('POST', path, body, {'Content-Type': content_type, **headers})

    def send(self, method: str, path: str, body: object, headers: dict[str, str]) -> Reply:
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return Reply(reply.status, reply.read())
        finally:
            connection.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
