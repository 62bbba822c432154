# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Exported models over HTTP: pictures in, predictions out; neither torch nor a toolbox is imported.

Reading order: the routes -> what surrounds a request.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmlightvit.deploy.serving.service import Asked, Service, log
from mmlightvit.deploy.serving.uploads import MOST_FILES, Limits, Refusal
from mmlightvit.inference.model import Model
from mmlightvit.version import __version__


class Problem(BaseModel):
    """What is wrong: a code for programs, a line for people."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """What every error is answered by."""

    error: Problem


def create_app(load: Callable[[], Mapping[str, Model]], limits: Limits, token: str | None = None) -> FastAPI:
    """The application.

    Args:
        load, limits: Of the :class:`Service`, which is ``app.state.service``.
        token: What requests must carry as ``Authorization: Bearer TOKEN``, those for ``/healthz`` excepted.
    """
    service = Service(load, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.load())
        yield
        loading.cancel()
        service.close()

    # Its pages of documentation load scripts from elsewhere; its telemetry is switched on by the environment.
    silent: Any = {'tracing': False, 'metrics': False, 'logs': False, 'auto_configure': False}
    app = FastAPI(title='mmlightvit', version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
                  telemetry=silent)  # fmt: skip
    app.state.service = service
    app.add_middleware(Surroundings, service=service, token=token)

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return service.refuse(error.status, error.code, str(error), error.headers)

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return service.refuse(422, 'bad_parameter', f'{".".join(map(str, first["loc"][1:]))}: {first["msg"]}')

    @app.exception_handler(HTTPException)
    async def no_such_route(request: Request, error: HTTPException) -> Response:
        code = {404: 'not_found', 405: 'method_not_allowed'}.get(error.status_code, 'bad_request')
        return service.refuse(error.status_code, code, error.detail, error.headers)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return service.refuse(500, 'internal', 'the service failed; its log says why')

    @app.get('/healthz', responses=_errors(503))
    async def health() -> dict[str, str]:
        service.loaded()
        return {'status': 'ok'}

    @app.get('/v1/models', responses=_errors(401, 503))
    async def models() -> dict[str, list[dict[str, Any]]]:
        return {'models': [_about(name, model) for name, model in service.loaded().items()]}

    file = {'type': 'string', 'format': 'binary'}
    files = {'type': 'array', 'items': file, 'minItems': 1, 'maxItems': MOST_FILES}
    form = {'schema': {'type': 'object', 'required': ['file'], 'properties': {'file': files}}}
    body = {'required': True, 'content': {'multipart/form-data': form, 'image/*': {'schema': file}}}

    @app.post(
        '/v1/models/{name}/predict',
        responses=_errors(400, 401, 404, 408, 413, 415, 422, 429, 500, 503),
        openapi_extra={'requestBody': body},
    )
    async def predict(name: str, asked: Annotated[Asked, Query()], request: Request) -> Response:
        return await service.predict(name, asked, request)

    @app.get('/metrics', response_class=PlainTextResponse, responses=_errors(401))
    async def metrics() -> str:
        return service.metrics.text()

    return app


def _about(name: str, model: Model) -> dict[str, Any]:
    info = model.info
    spec = asdict(info.input)
    return dict(name=name, task=info.task, classes=info.classes, input=spec, sha256=info.weights_sha256)


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {'model': ErrorAnswer} for status in statuses}


# -- what surrounds a request -----------------------------------------------------------------------------------------
class Surroundings:
    """Asks for the token, counts, and writes a line into the log."""

    def __init__(self, app: ASGIApp, service: Service, token: str | None) -> None:
        self._app, self._service = app, service
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            return await self._app(scope, receive, send)
        start, size, status = time.perf_counter(), 0, 500

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get('body', b''))
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get('status', status)
            await send(message)

        try:
            app = self._app if self._may_enter(scope) else self._service.refuse(
                401, 'unauthorized', 'expected Authorization: Bearer TOKEN', {'WWW-Authenticate': 'Bearer'}
            )  # fmt: skip
            await app(scope, counted, noted)
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get('route'), 'path', 'none')
            self._service.metrics.count('mmlightvit_requests_total', route=route, status=status)
            self._service.metrics.observe('mmlightvit_request_seconds', seconds, route=route)
            # As it was sent, so that it has no line breaks; without the query, and without the picture.
            path = scope['raw_path'][:200].decode('ascii', 'replace')
            log.info('%s %s %d, %d bytes, %.0f ms', scope['method'][:10], path, status, size, seconds * 1000)

    def _may_enter(self, scope: Scope) -> bool:
        if self._token is None or scope['path'] == '/healthz':
            return True
        scheme, _, given = dict(scope['headers']).get(b'authorization', b'').partition(b' ')
        return scheme.lower() == b'bearer' and hmac.compare_digest(given.strip(), self._token)
