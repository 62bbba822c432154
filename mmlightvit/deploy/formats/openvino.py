# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""OpenVINO: ``.xml`` with its ``.bin`` beside it; the runtime opens ONNX files as well."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.deploy.formats import onnx
from mmlightvit.deploy.formats.base import Engine, ExportFormat, package, reason
from mmlightvit.errors import UserError
from mmlightvit.model_folder.info import METADATA_KEY, ModelInfo

if TYPE_CHECKING:
    from mmlightvit.deploy.export_modules import ExportModule


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which tells Google Analytics of each import and conversion, unasked.

    Where the package that sends cannot be imported, OpenVINO has a stand-in for it that does nothing.
    """
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
    return package(FORMAT.package, FORMAT.extra)


def trace(part: ExportModule, static: tuple[int, int] | None) -> Any:
    """The graph of a part of a model, for one size or any; by way of ONNX."""
    ov = import_openvino()
    graph = onnx.trace(part, static)
    import onnx_ir as ir

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'model.onnx'
        ir.save(graph, source)
        return ov.convert_model(source)


def write(graph: Any, info: ModelInfo, path: Path) -> None:
    """Write a graph, with what the model says of itself."""
    graph.set_rt_info(info.to_json(), METADATA_KEY)
    import_openvino().save_model(graph, path, compress_to_fp16=False)


def open_openvino(path: Path, device: str | None, threads: int | None) -> Engine:
    """Open a file in OpenVINO; ``device`` is ``openvino:DEVICE`` or ``openvino:DEVICE:fastest``.

    Raises:
        UserError: OpenVINO or the device is missing, or it is no graph.
    """
    ov = import_openvino()
    core = ov.Core()
    target, *fastest = (device or '').split(':')[1:] or ['CPU']
    # Left to itself, it takes bfloat16 where the processor has it, and answers differ in the second digit.
    settings: dict[str, Any] = {'PERFORMANCE_HINT': 'LATENCY'}
    settings |= {} if fastest else {'INFERENCE_PRECISION_HINT': 'f32'}
    settings |= {'INFERENCE_NUM_THREADS': threads} if threads else {}
    try:
        core.get_property(target, 'FULL_DEVICE_NAME')  # refuses a device that is not there
        model = core.read_model(str(path))
    except Exception as error:
        raise UserError(f'{path} cannot be opened on {target}: {reason(error)}') from None
    metadata = _metadata(model)
    crop = ModelInfo.from_json(metadata, str(path)).input.crop if metadata else None
    inputs = {value.get_any_name(): value.partial_shape for value in model.inputs}
    names = [output.get_any_name() for output in model.outputs]
    requests: dict[tuple[int, ...] | None, Any] = {}

    def request(shape: tuple[int, ...] | None) -> Any:
        """Compiled for images of this shape, or of any."""
        if shape not in requests:
            reshaped = model.clone()
            reshaped.reshape({'image': list(shape)} if shape else {})
            requests[shape] = core.compile_model(reshaped, target, settings).create_infer_request()
        return requests[shape]

    def run(arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
        shape = arrays['image'].shape
        if not inputs['image'].compatible(ov.PartialShape(list(shape))):
            raise UserError(f'{path} cannot be run: it takes images {inputs["image"]}, and this one is {list(shape)}')
        # Where preprocessing gives one size, that has a request of its own: up to a fifth faster.
        is_own = shape[2:] == crop and set(requests) <= {shape, None}
        try:
            out = request(shape if is_own else None).infer(dict(arrays))
        except Exception as error:
            raise UserError(f'{path} cannot be run on {target}: {reason(error)}') from None
        return {name: np.array(out[place]) for place, name in enumerate(names)}

    return Engine(metadata, run, list(inputs))


def _metadata(model: Any) -> str | None:
    for place in (METADATA_KEY, f'framework/{METADATA_KEY}'):  # written as OpenVINO, and read from ONNX
        if model.has_rt_info(place.split('/')):
            return str(model.get_rt_info(place.split('/')).astype(str))
    return None


FORMAT = ExportFormat('openvino', '.xml', 'openvino', 'openvino', trace, write, open_openvino)
