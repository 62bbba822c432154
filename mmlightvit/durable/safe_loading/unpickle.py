# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Unpickling of tensors and plain data alone.

``torch.load(weights_only=True)`` interprets the pickle itself and calls nothing that is not listed. This module adds
to its list what checkpoints of the MM era hold besides tensors. Wherever the real constructor could be talked into
more than holding data, a stand-in takes its place and is exchanged for the plain value afterwards: NumPy's own
``dtype.__setstate__``, for one, takes flags from the file that make raw bytes pass for object pointers.
"""

from __future__ import annotations

import argparse
import contextlib
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

#: What a damaged or hostile pickle makes ``torch.load`` raise.
UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,  # RecursionError and NotImplementedError among them
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    ImportError,
    OSError,
)


#: Before torch 2.6 nothing can be added to the list, and torch.load can be made to execute code in spite of it
#: (CVE-2025-32434): by the formats before the zip format, and by a TorchScript program, which it hands on unasked.
_IS_CURRENT = digit_version(torch.__version__) >= digit_version('2.6.0')
_ZIP_START = b'PK\x03\x04'  # what torch, too, tells the zip format by


class RefusedError(Exception):
    """The file asks for something that is neither a tensor nor plain data."""


def load(file: BinaryIO, map_location: Any) -> Any:
    """Unpickle tensors and plain data; nothing in the file is executed.

    Args:
        file: An open binary file, zip or legacy format.
        map_location: As in ``torch.load``.

    Raises:
        RefusedError: The file names a function or class that is not listed; the message names it.
        UNREADABLE: The file is damaged; or torch is older than 2.6 and the file is a
            TorchScript program or not of the zip format.
    """
    if not _IS_CURRENT:
        start = file.read(len(_ZIP_START))
        file.seek(0)
        if start != _ZIP_START:
            raise ValueError("torch before 2.6 reads nothing safely but torch's zip format, which this file has not")
        # By torch's own reader, so that both see the same archive.
        with torch.serialization._open_zipfile_reader(file) as archive:
            is_program = 'constants.pkl' in archive.get_all_records()
        file.seek(0)
        if is_program:
            raise ValueError('it is a TorchScript program')
    with warnings.catch_warnings():
        # Remarks on the pickle protocol and on typed storages, which are no concern of the person who loads a file.
        warnings.simplefilter('ignore')
        listed = torch.serialization.safe_globals(_ALLOWED) if _IS_CURRENT else contextlib.nullcontext()
        try:
            with listed:
                content = torch.load(file, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError as error:
            name = re.search(r'GLOBAL (\S+)', str(error)) or re.search(r'add_safe_globals\(\[(\S+?)\]\)', str(error))
            if name is None:
                raise
            raise RefusedError(name.group(1)) from None
    return _plain(content, {})


class _DType:
    """Stands in for ``numpy.dtype`` while unpickling."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not re.fullmatch(r'[?biufc]\d*|[SU]\d+', code):
            raise ValueError(f'an array of dtype {code!r} is not plain numbers or text')
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        order = state[1]
        if order not in ('<', '>', '|', '='):
            raise ValueError(f'expected a byte order, got {order!r}')
        self.value = self.value.newbyteorder(order)


class _Array:
    """Stands in for ``numpy.ndarray`` while unpickling."""

    value = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran_order, data = state
        self.value = np.frombuffer(_bytes(data), dtype.value).reshape(shape, order='F' if fortran_order else 'C').copy()


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: _DType, data: bytes | str) -> np.generic:
    (value,) = np.frombuffer(_bytes(data), dtype.value)
    return value


def _bytes(data: bytes | str) -> bytes:
    return data.encode('latin1') if isinstance(data, str) else data


def _history_method(owner: type, name: str) -> Any:
    """A history buffer pickles its four statistics as ``getattr(HistoryBuffer, name)``; only these are given."""
    if owner is not HistoryBuffer or name not in ('mean', 'max', 'min', 'current'):
        raise RefusedError(f'builtins.getattr({owner!r}, {name!r})')
    return getattr(HistoryBuffer, name)


class _Mapping:
    """Stands in for dict subclasses that do more than hold items: the result is an ``OrderedDict``."""

    def __new__(cls, items: Any = ()) -> OrderedDict:  # type: ignore[misc]
        return OrderedDict(items)


def _default_dict(factory: Any = None) -> OrderedDict:
    return OrderedDict()


def _path(*parts: str) -> str:
    return '/'.join(parts).replace('//', '/')


_ALLOWED: list = [
    HistoryBuffer,
    argparse.Namespace,
    slice,
    (_history_method, 'builtins.getattr'),
    *[(kind, f'builtins.{kind.__name__}') for kind in (dict, list, tuple, frozenset, int, float, bool, str)],
    (_default_dict, 'collections.defaultdict'),
    *[
        (_path, f'{module}.{kind}Path')
        for module in ('pathlib', 'pathlib._local')
        for kind in ('Posix', 'PurePosix', 'Windows', 'PureWindows')
    ],
    *[
        (_Mapping, name)
        for name in ('addict.addict.Dict', 'mmcv.utils.config.ConfigDict', 'mmengine.config.config.ConfigDict')
    ],
    (_DType, 'numpy.dtype'),
    (_Array, 'numpy.ndarray'),
    # NumPy 2 renamed its core; files written before and after both load with both.
    *[
        (stand_in, f'numpy.{core}.multiarray.{name}')
        for core in ('core', '_core')
        for name, stand_in in (('_reconstruct', _reconstruct), ('scalar', _scalar))
    ],
]


def _plain(value: Any, done: dict[int, tuple[Any, Any]]) -> Any:
    """``value`` with each stand-in exchanged for what it stands for; containers are changed in place.

    Args:
        value: What was unpickled.
        done: By ``id``, each container met so far, which keeps the id its own, and what takes its place. A file of a
            kilobyte can nest a container in itself often enough to be met a billion times.
    """
    if isinstance(value, _Array | _DType):
        return value.value
    if id(value) in done:
        return done[id(value)][1]
    if type(value) is tuple:
        plain = tuple(_plain(item, done) for item in value)
        done[id(value)] = value, plain
        return plain
    if isinstance(value, dict | list | HistoryBuffer | argparse.Namespace):
        done[id(value)] = value, value
    if isinstance(value, dict):
        for key in list(dict.keys(value)):
            dict.__setitem__(value, key, _plain(dict.__getitem__(value, key), done))
        if isinstance(value, OrderedDict):
            # Attributes may shadow methods; a state dict's versions are the one that is meant.
            for name in [name for name in vars(value) if name != '_metadata']:
                del vars(value)[name]
    elif isinstance(value, list):
        value[:] = [_plain(item, done) for item in value]
    elif isinstance(value, HistoryBuffer | argparse.Namespace):
        for name in list(vars(value)):
            vars(value)[name] = _plain(vars(value)[name], done)
    return value
