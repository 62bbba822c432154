# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The process that serves an application: its socket, its patience, its signals."""

from __future__ import annotations

import os
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from mmlightvit.errors import UserError

#: Seconds for what is under way when a signal comes; with the rest of the way out, fewer than 15.
_DRAIN = 14
#: Seconds in which a request has to begin, and in which a body that nobody wants has to end.
_BEGIN = 10
#: Seconds in which an answer has to be taken.
_TAKE = 120


class ImpatientProtocol(H11Protocol):
    """Closes a connection on which no request begins; uvicorn waits for ever for one whose headers come slowly."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect_request()

    def _expect_request(self) -> None:
        self.loop.call_later(_BEGIN, self._give_up, self.cycle)

    def _give_up(self, last: Any) -> None:
        if self.cycle is last:
            self.transport.close()  # once what is written has been taken
            self.loop.call_later(_TAKE, self.transport.abort)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: There is no such address, or it is taken.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ':' in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise UserError(f'cannot listen at {host}, port {port}: {reason}') from None


def run(app: FastAPI, listening: socket.socket) -> int:
    """Serve until a signal comes: then no new requests are taken, and those under way have 15 seconds.

    Args:
        app: Of :func:`~mmlightvit.deploy.serving.app.create_app`.
        listening: Where.

    Returns:
        The exit code, the shell's for the signal. If a thread is still at work, the process ends here.

    Raises:
        Exception: The models could not be loaded.
    """
    service = app.state.service
    config = uvicorn.Config(
        app,
        http=ImpatientProtocol,
        ws='none',
        loop='asyncio',
        lifespan='on',
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN,
    )
    server = uvicorn.Server(config)
    caught: list[int] = []

    def stop(number: int = 0, frame: FrameType | None = None) -> None:
        server.should_exit = True
        caught.append(number)

    service.failed = stop
    # uvicorn takes the signals while it runs, and raises them again here at its end.
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if service.failure is not None:
        raise service.failure
    code = 128 + caught[0]
    if service.busy:
        os._exit(code)  # Python would wait for the thread
    return code
