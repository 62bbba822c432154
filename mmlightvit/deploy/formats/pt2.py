# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``torch.export``, for programs that have torch."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.deploy.formats.base import Engine, ExportFormat, package, reason, silence
from mmlightvit.errors import UserError
from mmlightvit.model_folder.info import METADATA_KEY, ModelInfo

if TYPE_CHECKING:
    from mmlightvit.deploy.export_modules import ExportModule

#: The key of a file for the names of its outputs.
OUTPUTS_KEY = 'outputs'
#: Bytes of what a file says of itself.
_MOST_METADATA = 1 << 26


def trace(part: ExportModule, static: tuple[int, int] | None) -> tuple[Any, str]:
    """The program of a part of a model, for one size or any, and the names of its outputs."""
    import torch

    shapes = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in part.dynamic(static))
    with torch.no_grad(), silence():
        program = torch.export.export(part.module, part.example(static), dynamic_shapes=shapes)
    # The least sides come of guards on the memory layout of the example's maps; smaller ones are verified too.
    for symbol, sides in program.range_constraints.items():
        program.range_constraints[symbol] = type(sides)(min(sides.lower, 2), sides.upper)
    return program, ' '.join(part.outputs)


def write(traced: tuple[Any, str], info: ModelInfo, path: Path) -> None:
    """Write a program, with what the model says of itself."""
    import torch

    program, outputs = traced
    torch.export.save(program, path, extra_files={METADATA_KEY: info.to_json(), OUTPUTS_KEY: outputs})


def read_metadata(path: Path) -> str | None:
    """What a file says of itself, read out of the archive; the program in it is not opened.

    Raises:
        UserError: It is no archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [item for item in archive.infolist() if item.filename.endswith(f'/extra/{METADATA_KEY}')]
            if len(members) != 1 or members[0].file_size > _MOST_METADATA:
                return None
            return archive.read(members[0]).decode()
    except (OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f'{path} cannot be opened: {reason(error)}') from None


def open_pt2(path: Path, device: str | None, threads: int | None) -> Engine:
    """Open a file in torch, on the CPU.

    Raises:
        UserError: torch is missing, or it is no program.
    """
    torch = package(FORMAT.package, FORMAT.extra)
    if threads:
        torch.set_num_threads(threads)
    extra = {METADATA_KEY: '', OUTPUTS_KEY: ''}
    try:
        program = torch.export.load(path, extra_files=extra)
    except Exception as error:
        raise UserError(f'{path} cannot be opened: {reason(error)}') from None
    # Guards ask for the example's memory layout too; that every size is right has been verified.
    module = program.module(check_guards=False)
    inputs = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == 'USER_INPUT']

    def run(arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
        tensors = [torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in inputs]
        try:
            with torch.inference_mode():
                out = module(*tensors)
        except RuntimeError as error:
            raise UserError(f'{path} cannot be run: {reason(error)}') from None
        values = (out,) if isinstance(out, torch.Tensor) else out
        return {name: value.numpy() for name, value in zip(extra[OUTPUTS_KEY].split(), values)}

    return Engine(extra[METADATA_KEY] or None, run, inputs)


FORMAT = ExportFormat('pt2', '.pt2', 'torch', 'toolboxes', trace, write, open_pt2, needs_torch=True)
