# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Reading a checkpoint from wherever it is, without executing anything in it."""

from __future__ import annotations

import http.client
import io
import os
import re
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

import torch
from filelock import FileLock
from mmengine.logging import print_log

from mmlightvit.durable.safe_loading import unpickle as restricted
from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.durable.safe_loading.offline import is_offline
from mmlightvit.errors import UserError

_TIMEOUT = 30  # seconds without a byte
_CHUNK = 1 << 20


class CheckpointUnavailable(UserError):
    """There is no file at the path, or the address gives none."""


def read_checkpoint(path: str | os.PathLike, map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a checkpoint: a pickle of torch in either format, or safetensors; a path or an address.

    Tensors and plain data alone are unpickled. A file that asks for more is refused, and nothing of it has run.
    Configuration text inside stays text.

    Args:
        path: A local path, an ``http(s)://`` address (kept in ``torch.hub``'s folder, as torch and mmengine do), or
            one of mmengine's schemes: ``torchvision://``, ``open-mmlab://``, ``mmcls://``, ``s3://``, ``petrel://``.
        map_location: As in ``torch.load``; None means the CPU.

    Returns:
        The checkpoint's dictionary, as saved. A safetensors file gives ``{'state_dict': ..., 'meta': ...}``.

    Raises:
        UserError: The file is missing, empty, damaged, refused, or no dictionary; or the address can't be had.
    """
    name = os.fspath(path)
    scheme = re.match(r'(?:\S+:)?([a-z0-9-]+)://', name)
    if scheme is None:
        return read_local(Path(name).expanduser(), map_location)
    if scheme.group(1) in ('http', 'https'):
        return read_local(download(name), map_location)
    if scheme.group(1) in ('s3', 'petrel'):
        from mmengine.fileio import get_file_backend

        content = get_file_backend(name, backend_args={'backend': 'petrel'}).get(name)
        return _read(io.BytesIO(content), name, map_location)
    checkpoint = read_checkpoint(_zoo_address(scheme.group(1), name[scheme.end() :], name), map_location)
    if scheme.group(1) == 'mmcls':
        from mmengine.runner.checkpoint import _process_mmcls_checkpoint

        checkpoint = _process_mmcls_checkpoint(checkpoint)
    return checkpoint


def read_local(path: Path, map_location: Any = 'cpu') -> dict[str, Any]:
    """:func:`read_checkpoint` of a file."""
    if not path.exists():
        raise CheckpointUnavailable(f'{path}: no such checkpoint file.')
    if not path.is_file():
        raise UserError(f'{path}: expected a checkpoint file, got a directory.')
    try:
        with path.open('rb') as file:
            return _read(file, str(path), map_location)
    except PermissionError:
        raise CheckpointUnavailable(f'{path}: no permission to read it.') from None


def _read(file: BinaryIO, name: str, map_location: Any) -> dict[str, Any]:
    head = file.read(9)
    file.seek(0)
    if not head:
        raise UserError(f'{name}: the checkpoint file is empty.')
    try:
        checkpoint = _read_safetensors(file) if _is_safetensors(head) else restricted.load(file, map_location or 'cpu')
    except restricted.RefusedError as error:
        raise UserError(
            f'{name}: refused. It asks for {error}, which is neither a tensor nor plain data; nothing in it was '
            'executed. If you trust where it comes from, save its state_dict alone.'
        ) from None
    except restricted.UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition('. ')[0]
        raise UserError(
            f'{name}: not a readable checkpoint: it is damaged, cut off, or something else ({reason}).'
        ) from None
    if not isinstance(checkpoint, dict):
        raise UserError(f'{name}: expected a checkpoint dictionary, got {type(checkpoint).__name__}.')
    return checkpoint


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes of header length, then JSON; a pickle starts with 0x80 and a zip with PK."""
    return len(head) == 9 and head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < 100_000_000


def _read_safetensors(file: BinaryIO) -> dict[str, Any]:
    import json

    import safetensors
    from safetensors.torch import load

    content = file.read()
    try:
        state = load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from None
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], 'little')])
    return {'state_dict': state, 'meta': header.get('__metadata__', {})}


def cached_path(address: str) -> Path:
    """Where a download of ``address`` is kept: ``torch.hub``'s rule."""
    return Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(address).path).name


def download(address: str) -> Path:
    """The local file of an address, fetched once per machine.

    It is written beside its final name and renamed when complete. Processes of one machine wait for the one that
    fetches, without a collective call, so that a failure ends each of them with its reason and leaves none waiting.

    Raises:
        CheckpointUnavailable: The address can't be reached or may not be asked, or the file can't be kept.
    """
    path = cached_path(address)
    if path.is_file():
        return path
    if is_offline():
        raise CheckpointUnavailable(
            f'{address} is not here and MMLIGHTVIT_OFFLINE is set. Put it at {path}, or give the path of your copy '
            'instead of the address.'
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / f'.{path.name}.lock'):
            if not path.is_file():
                print_log(f'Downloading {address} to {path}', logger='current')
                with urllib.request.urlopen(address, timeout=_TIMEOUT) as response:
                    atomic_write(path, lambda file: _receive(response, file))
    except (OSError, http.client.HTTPException) as error:  # urllib's own errors are OSErrors
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise CheckpointUnavailable(
            f'{address} cannot be had ({reason}). Fetch it on another machine and put it at {path}, or give the '
            'path of your copy instead of the address.'
        ) from None
    return path


def _receive(response: Any, file: BinaryIO) -> None:
    """Copy a response in full; urllib takes a broken connection for the end of the file."""
    received = 0
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        received += len(chunk)
    announced = response.headers.get('Content-Length')
    if announced is not None and received != int(announced):
        raise OSError(f'the connection broke off after {received} of {announced} bytes')


def _zoo_address(scheme: str, model: str, name: str) -> str:
    """The address behind a name of one of mmengine's model zoos."""
    from mmengine.runner import checkpoint as zoo

    lists = {
        'torchvision': zoo.get_torchvision_models,
        'modelzoo': zoo.get_torchvision_models,
        'open-mmlab': zoo.get_external_models,
        'openmmlab': zoo.get_external_models,
        'mmcls': zoo.get_mmcls_models,
    }
    if scheme not in lists:
        raise UserError(f'{name}: expected a path, http(s)://, s3://, petrel:// or one of {sorted(lists)}.')
    addresses = lists[scheme]()
    if model not in addresses and 'mmlab' in scheme:
        model = zoo.get_deprecated_model_names().get(model, model)
    if model not in addresses:
        raise UserError(f'{name}: {scheme} has no model of that name.')
    address = addresses[model]
    return address if '://' in address else str(Path(zoo._get_mmengine_home()) / address)
