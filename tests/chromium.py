# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, driven over the pipe of its DevTools protocol, and a server of files that notes its requests."""

from __future__ import annotations

import contextlib
import functools
import http.server
import itertools
import json
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-extensions', '--disable-sync',
    '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream', '--remote-debugging-pipe',
)  # fmt: skip


class Page:
    """A tab.

    Attributes:
        requests: The addresses that it and its workers asked for.
        errors: What was logged as such.
        workers: The session of each worker.
    """

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._rest = send, receive, b''
        self._ids = itertools.count(1)
        self._session: str | None = None  # of the tab, once there is one
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.workers: list[str] = []
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self._session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Network', 'Runtime', 'Log', 'DOM'):
            self.call(f'{domain}.enable')
        self.call('Target.setAutoAttach', autoAttach=True, waitForDebuggerOnStart=True, flatten=True)

    def call(self, method: str, timeout: float = 120, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One command, and its answer."""
        number = self._post(method, session or self._session, params)
        end = time.monotonic() + timeout
        while True:
            message = self._message(end - time.monotonic())
            if message.get('id') == number:
                assert 'error' not in message, (method, message['error'])
                return message['result']

    def _post(self, method: str, session: str | None, params: dict[str, Any]) -> int:
        number = next(self._ids)
        message = {'id': number, 'method': method, 'params': params} | ({'sessionId': session} if session else {})
        os.write(self._send, json.dumps(message).encode() + b'\0')
        return number

    def _message(self, seconds: float) -> dict[str, Any]:
        while b'\0' not in self._rest:
            if not select.select([self._receive], [], [], max(0, seconds))[0]:
                raise TimeoutError('the browser does not answer')
            self._rest += os.read(self._receive, 1 << 20)
        line, _, self._rest = self._rest.partition(b'\0')
        message = json.loads(line)
        self._note(message.get('method'), message.get('params', {}))
        return message

    def _note(self, event: str | None, params: dict[str, Any]) -> None:
        if event == 'Network.requestWillBeSent':
            self.requests.append(params['request']['url'])
        elif event == 'Runtime.exceptionThrown':
            self.errors.append(json.dumps(params['exceptionDetails']))
        elif event == 'Log.entryAdded' and params['entry']['level'] == 'error':
            self.errors.append(json.dumps(params['entry']))
        elif event == 'Target.attachedToTarget' and self._session:  # a worker, which waits until it is watched
            self.workers.append(params['sessionId'])
            for method in ('Network.enable', 'Runtime.enable', 'Runtime.runIfWaitingForDebugger'):
                self._post(method, params['sessionId'], {})

    def open(self, address: str, width: int = 1280, height: int = 900) -> None:
        self.call(
            'Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call('Page.navigate', url=address)
        self.wait('document.readyState === "complete"')

    def evaluate(self, expression: str, timeout: float = 120, session: str | None = None) -> Any:
        """The value of an expression; a promise is waited for."""
        settings = {'awaitPromise': True, 'returnByValue': True}
        found = self.call('Runtime.evaluate', timeout, session, expression=expression, **settings)
        assert 'exceptionDetails' not in found, found['exceptionDetails']
        return found['result'].get('value')

    def wait(self, expression: str, seconds: float = 120) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f'{expression} stays {value!r}; errors: {self.errors}'
            time.sleep(0.1)
        return value

    def choose(self, selector: str, path: Path) -> None:
        """A file in a file chooser."""
        root = self.call('DOM.getDocument')['root']['nodeId']
        node = self.call('DOM.querySelector', nodeId=root, selector=selector)['nodeId']
        self.call('DOM.setFileInputFiles', nodeId=node, files=[str(path)])

    def press(self, key: str, code: int, text: str = '') -> None:
        """A key of the keyboard, such as Tab (9) and Enter (13)."""
        for kind in ('keyDown', 'keyUp'):
            self.call('Input.dispatchKeyEvent', type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def screenshot(self) -> str:
        """A picture of what is seen, PNG in base 64."""
        return self.call('Page.captureScreenshot')['data']


@contextlib.contextmanager
def page(folder: Path, flags: Sequence[str] = ()) -> Iterator[Page]:
    """A tab of a browser that keeps its things in ``folder``; a test that has no browser skips."""
    program = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if program is None:
        pytest.skip('needs Chromium, which is not installed')
    receive, send = os.pipe()
    answers, answer = os.pipe()
    command = [program, *_FLAGS, *flags, f'--user-data-dir={folder}']
    process = subprocess.Popen(
        # It reads commands from 3 and writes answers to 4.
        ['bash', '-c', f'exec "$0" "$@" 3<&{receive} 4>&{answer}', *command],
        pass_fds=(receive, answer),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, 'HOME': str(folder)},
    )
    os.close(receive)
    os.close(answer)
    try:
        yield Page(send, answers)
    finally:
        process.terminate()
        process.wait(30)
        os.close(send)
        os.close(answers)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a plain server of files on loopback, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f'http://127.0.0.1:{server.server_port}/', asked
        finally:
            server.shutdown()
            thread.join()
