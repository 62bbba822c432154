# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit serve``: exported models over HTTP."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlightvit.cli.arguments import Parser
from mmlightvit.deploy.formats import FORMATS, ending_of
from mmlightvit.errors import UserError

if TYPE_CHECKING:
    from mmlightvit.inference.model import Model

_ENDINGS = tuple(each.ending for each in FORMATS.values() if not each.needs_torch)
_MOST_PIXELS = 89_478_485
#: A photograph of 4032 x 3024: the pictures of two threads, the waiting bodies and a model fit into 4 GB.
_PIXELS = 12_500_000


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'serve',
        'Answer over HTTP what exported models find in pictures, without torch. A model has the name of its file: '
        'POST a picture to /v1/models/NAME/predict. GET /v1/models, /healthz, /metrics and /openapi.json say the rest.',
        ['pets.onnx', 'pets.onnx cars.onnx --host 0.0.0.0 --token-file token.txt'],
    )
    add: Any = parser.add_argument
    add('model', metavar='MODEL', nargs='+', help=f'file that `mmlightvit export` wrote, {" or ".join(_ENDINGS)}')
    add('--host', default='127.0.0.1', metavar='H', help='address to listen at (default 127.0.0.1, this machine alone)')
    add('--port', type=int, default=8000, metavar='N', help='default 8000; 0 takes a free one')
    add('--max-upload-mb', type=float, default=20, metavar='N', help='most of the body of a request (default 20)')
    add('--max-pixels', type=int, default=_PIXELS, metavar='N', help=f'of a picture (default {_PIXELS})')
    add('--queue', type=int, default=32, metavar='N', help='requests that wait for a model; more get 429 (default 32)')
    add('--threads', type=int, metavar='N', help="threads for one picture (default: the runtime's choice)")
    add('--token-file', metavar='FILE', help='what requests must carry: Authorization: Bearer TOKEN')
    return parser


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    paths = _named(args.model)
    token = None if args.token_file is None else _token(Path(args.token_file))
    for name, least, most in (('max_upload_mb', 0.001, 10_000), ('max_pixels', 1, _MOST_PIXELS), ('queue', 1, 10_000),
                              ('threads', 1, 1024), ('port', 0, 65_535)):  # fmt: skip
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise UserError(f'--{name.replace("_", "-")}: expected {least} to {most}, got {value}')
    try:
        from mmlightvit.deploy.serving import server
        from mmlightvit.deploy.serving.app import create_app
        from mmlightvit.deploy.serving.uploads import Limits
    except ModuleNotFoundError as error:
        raise UserError(f'mmlightvit serve needs {error.name}: pip install "mmlightvit[serve]"') from None
    limits = Limits(int(args.max_upload_mb * 1e6), args.max_pixels, args.queue)
    app = create_app(partial(_load, paths, args.threads), limits, token)
    listening = server.listen(args.host, args.port)
    if token is None and not _is_loopback(args.host):
        print(f'warning: {args.host} can be reached by others, and without --token-file all may ask', file=sys.stderr)
    host = f'[{args.host}]' if ':' in args.host else args.host
    print(f'http://{host}:{listening.getsockname()[1]}, models: {", ".join(paths)}', file=sys.stderr)
    _write_log()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # what Pillow says of strangers' pictures would be kept for ever
        return server.run(app, listening)


def _named(models: Sequence[str]) -> dict[str, Path]:
    """The files by the names that they have in addresses."""
    paths: dict[str, Path] = {}
    for model in models:
        path = Path(model)
        if ending_of(path) in _ENDINGS and not path.exists():
            raise UserError(f'no file {model}')
        if ending_of(path) not in _ENDINGS or not path.is_file():
            raise UserError(
                f'{model} is no exported file ({", ".join(_ENDINGS)}); export it first: mmlightvit export {model}'
            )
        name = re.sub(r'[^a-z0-9_-]+', '-', path.stem.lower()).strip('-')
        if not name or name in paths:
            reason = f'has the same name as {paths[name]}' if name else 'has no letter of a-z or digit in its name'
            raise UserError(f'{model} {reason}, and the name is a part of the address: rename it')
        paths[name] = path
    return paths


def _load(paths: Mapping[str, Path], threads: int | None) -> dict[str, Model]:
    import numpy as np

    from mmlightvit.deploy.runtime import load_exported

    models: dict[str, Model] = {}
    for name, path in paths.items():
        model = load_exported(path, threads=threads)
        cut = model.info.extra.get('export', {}).get('cut', 'end2end')
        if cut != 'end2end':
            raise UserError(f'{path} was exported with --cut {cut}, so it predicts nothing')
        model.predict(np.zeros((64, 64, 3), np.uint8))  # a service is ready when its models are known to run
        models[name] = model
    return models


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding='utf-8').strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read: {getattr(error, "strerror", None) or error}') from None
    if not token:
        raise UserError(f'{path} is empty: it has to hold the token')
    return token


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


def _write_log() -> None:
    """A line for each request, and of other packages what is wrong alone, to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
    for name, level in (('mmlightvit.serve', logging.INFO), ('uvicorn.error', logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger('python_multipart').setLevel(logging.CRITICAL)  # it is about the sender's form
