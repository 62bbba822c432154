# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The formats of exported files, one module each: how one is traced, written and opened.

Importing this imports no runtime and no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from mmlightvit.deploy.formats import onnx, openvino, pt2
from mmlightvit.deploy.formats.base import Engine, ExportFormat
from mmlightvit.errors import UserError

#: By name. A new format is a module and a row; the first is the default.
FORMATS: Mapping[str, ExportFormat] = MappingProxyType(
    {export_format.name: export_format for export_format in (onnx.FORMAT, openvino.FORMAT, pt2.FORMAT)}
)
#: Endings of exported files.
ENDINGS = tuple(export_format.ending for export_format in FORMATS.values())


def ending_of(path: Path) -> str:
    """A file's ending as it stands in :data:`ENDINGS`, however it is written."""
    return path.suffix.lower()


def open_file(path: Path, device: str | None = None, threads: int | None = None, *, trust: bool = False) -> Engine:
    """The engine for a file.

    Args:
        path: Of one of :data:`ENDINGS`; others are taken for the first.
        device: As :func:`~mmlightvit.deploy.runtime.load_exported` takes it; a runtime that names itself in it opens
            the file, others open files with their ending.
        threads: For one picture; None takes what the runtime takes.
        trust: Whether a ``.pt2`` file may be opened: torch runs whatever code stands in it.

    Raises:
        UserError: It cannot be opened, or is a program that nobody trusts.
    """
    if ending_of(path) == pt2.FORMAT.ending and not trust:
        raise UserError(
            f'{path} is a program of torch.export, and opening one can run any code, as a config can: if you trust '
            'where it comes from, say so by --trust (trust=True in Python); .onnx and .xml files are data'
        )
    by_ending = {export_format.ending: export_format for export_format in FORMATS.values()}
    runtime = FORMATS['openvino'] if (device or '').startswith('openvino') else by_ending.get(ending_of(path))
    return (runtime or next(iter(FORMATS.values()))).open(path, device, threads)
