# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Models at work for many: what a request asks, the threads that answer it, and what waits for them.

Reading order: what is asked -> the work of a thread -> the service.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, NamedTuple

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from PIL import Image
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from mmlightvit.deploy.serving.prometheus import Metrics
from mmlightvit.deploy.serving.uploads import Limits, Refusal, files_of, pictures_of
from mmlightvit.errors import UserError
from mmlightvit.inference.model import OF_OBJECTS, Model, Options
from mmlightvit.pictures.result import Result, class_places
from mmlightvit.tasks import TASKS

log = logging.getLogger('mmlightvit.serve')

#: Seconds in which a body has to arrive.
_BODY_SECONDS = 120
#: Threads of a model: one reads and draws while the network is at another's picture.
_THREADS = 2
_BUSY = {'Retry-After': '1'}


class Asked(BaseModel, extra='forbid'):
    """The query of a prediction."""

    score_thr: float | None = Field(None, ge=0, le=1, description='one threshold for all classes')
    max_det: int | None = Field(None, ge=1, description='most objects of a picture, best first')
    classes: list[str] | None = Field(None, description='only these; repeated, or with commas between them')
    format: Literal['json', 'coco', 'picture'] = 'json'


class Answer(NamedTuple):
    """To a prediction, for so many pictures."""

    response: Response
    pictures: int


def answer(name: str, model: Model, content: bytes, content_type: str, asked: Asked, most_pixels: int) -> Answer:
    """Predict for the pictures in the body of a request."""
    files = files_of(content, content_type)
    drawn = asked.format == 'picture'
    if drawn and len(files) > 1:
        raise Refusal(422, 'bad_parameter', 'format: picture takes one file')
    options = Options(asked.score_thr, asked.classes, asked.max_det, keep_image=drawn)
    found: list[Any] = []
    for number, result in enumerate(model.stream(pictures_of(files, model.input, most_pixels), options), 1):
        assert isinstance(result, Result)
        if drawn:
            jpeg = io.BytesIO()
            Image.fromarray(result.draw()).save(jpeg, 'JPEG', quality=95)
            return Answer(Response(jpeg.getvalue(), media_type='image/jpeg'), 1)
        found += result.to_coco(number) if asked.format == 'coco' else [result.to_dict()]
    said = {'model': name, 'weights_sha256': model.info.weights_sha256, 'results': found}
    return Answer(JSONResponse(said), len(files))


class Service:
    """The models, the threads that they run in, and what waits for them.

    Args:
        load: Gives the models by name; called in a thread when the service starts.
        limits: What it takes.

    Attributes:
        failed: Is called when the models cannot be loaded; ``failure`` then says why.
    """

    def __init__(self, load: Callable[[], Mapping[str, Model]], limits: Limits) -> None:
        self.limits, self.metrics = limits, Metrics()
        self.failed: Callable[[], None] = lambda: None
        self.failure: Exception | None = None
        self._load = load
        self._models: Mapping[str, Model] = {}
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._jobs: dict[str, set[Future]] = {}
        self._held = 0

    async def load(self) -> None:
        """Load the models."""
        try:
            self._models = await self._run('', self._load)
        except Exception as error:  # whatever it is, it is raised where the service was started
            self.failure = error
            self.failed()
        else:
            log.info('ready: %s', ', '.join(self._models))

    def loaded(self) -> Mapping[str, Model]:
        """The models by name; refused before they are there."""
        if not self._models:
            raise Refusal(503, 'loading', 'the models are not loaded yet')
        return self._models

    @property
    def busy(self) -> bool:
        """Whether a thread is at work."""
        return any(self._jobs.values())

    def close(self) -> None:
        """Take no more work; what is running ends by itself."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
        """The answer to a request that is refused."""
        self.metrics.count('mmlightvit_errors_total', code=code)
        return JSONResponse({'error': {'code': code, 'message': message}}, status, headers)

    async def predict(self, name: str, asked: Asked, request: Request) -> Response:
        """Answer a request for a prediction."""
        model = self.loaded().get(name)
        if model is None:
            raise Refusal(404, 'not_found', f'no such model; there are {", ".join(self.loaded())}')
        asked = _checked(asked, model)
        content_type = request.headers.get('content-type', '')
        kind = content_type.partition(';')[0].strip().lower()
        if kind != 'multipart/form-data' and not kind.startswith('image/'):
            raise Refusal(415, 'unsupported_type', 'content-type: expected multipart/form-data or image/*')
        chunks: list[bytes] = []
        body = b''
        try:
            await self._receive(request, chunks)
            body = b''.join(chunks)
            chunks.clear()
            work = partial(answer, name, model, body, content_type, asked, self.limits.pixels)
            done = await self._run(name, work)
        except asyncio.CancelledError:
            raise Refusal(503, 'stopping', 'the service has to stop before this is done') from None
        finally:
            self._held -= len(body) or sum(map(len, chunks))
        self.metrics.count('mmlightvit_pictures_total', done.pictures, model=name)
        return done.response

    async def _receive(self, request: Request, chunks: list[bytes]) -> None:
        """Take the body of a request, within the limits while it arrives."""
        most, size = self.limits.upload_bytes, 0
        too_large = Refusal(413, 'too_large', f'the body has more than {most:,} bytes')
        if int(request.headers.get('content-length', 0)) > most:
            raise too_large
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for chunk in request.stream():
                    chunks.append(chunk)
                    size += len(chunk)
                    self._held += len(chunk)
                    if size > most:
                        raise too_large
                    if self._held > self.limits.queue * most:
                        raise Refusal(429, 'busy', 'too many bytes wait already', _BUSY)
        except TimeoutError:
            raise Refusal(408, 'timeout', f'the body did not arrive within {_BODY_SECONDS} s') from None
        except ClientDisconnect:
            raise Refusal(400, 'bad_request', 'the body is cut off') from None

    async def _run(self, name: str, work: Callable[[], Any]) -> Any:
        """Do some work in a thread of a model."""
        jobs = self._jobs.setdefault(name, set())
        if len(jobs) >= _THREADS + self.limits.queue:
            raise Refusal(429, 'busy', f'{self.limits.queue} requests wait already', _BUSY)
        if name not in self._pools:
            self._pools[name] = ThreadPoolExecutor(_THREADS)
        future = self._pools[name].submit(work)
        jobs.add(future)
        future.add_done_callback(jobs.discard)
        return await asyncio.wrap_future(future)


def _checked(asked: Asked, model: Model) -> Asked:
    """What is asked, if the model has it."""
    if not TASKS[model.task].has_objects:
        unread = [name for name in OF_OBJECTS if getattr(asked, name) is not None]
        unread += ['format=coco'] if asked.format == 'coco' else []
        if unread:
            raise Refusal(422, 'bad_parameter', f'{unread[0]}: a model of {model.task} has no objects')
    if asked.classes is None:
        return asked
    parts = [[value] if value in model.classes else value.split(',') for value in asked.classes]
    classes = [name for several in parts for name in several]
    try:
        class_places(classes, model.classes)
    except UserError as error:
        raise Refusal(422, 'bad_parameter', str(error)) from None
    return asked.model_copy(update={'classes': classes})
