# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""ONNX: one graph of standard operators, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from mmlightvit.deploy.formats.base import Engine, ExportFormat, package, reason, silence
from mmlightvit.errors import UserError
from mmlightvit.model_folder.info import METADATA_KEY, ModelInfo

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mmlightvit.deploy.export_modules import ExportModule

OPSET = 20
_PROVIDERS = {'cpu': 'CPUExecutionProvider', 'cuda': 'CUDAExecutionProvider'}


def trace(part: ExportModule, static: tuple[int, int] | None) -> Any:
    """The graph of a part of a model, for one size or any."""
    return to_onnx(part.module, part.example(static), part.dynamic(static), part.inputs, part.outputs)


def to_onnx(
    module: nn.Module,
    example: tuple[Tensor, ...],
    dynamic: Sequence[Mapping[int, str]],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> Any:
    """The graph of a module, of opset 20, without functions.

    Args:
        module: In eval mode.
        example: Its arguments. A dimension of 1, or one that needs no padding, would be taken for the only one.
        dynamic: For each argument, the names of the dimensions that may differ.
        inputs, outputs: Names.

    Raises:
        UserError: A package is missing.
    """
    import torch

    try:
        import onnx_ir as ir
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(f'exporting needs {error.name}: pip install "mmlightvit[export]"') from None
    shapes = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in dynamic)
    with torch.no_grad(), silence():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=shapes,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None
    for value, axes in zip(program.model.graph.inputs, dynamic):
        assert value.shape is not None
        value.shape = ir.Shape(axes.get(place, size) for place, size in enumerate(value.shape))
    return program.model


def write(graph: Any, info: ModelInfo, path: Path) -> None:
    """Write a graph, with what the model says of itself."""
    import onnx_ir as ir

    graph.metadata_props[METADATA_KEY] = info.to_json()
    ir.save(graph, path)


def quantise(path: Path) -> Any:
    """The graph of a file with the matrices of its products as 8-bit numbers."""
    import onnx_ir as ir
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = ir.load(path)
    for node in graph.graph:
        for value in node.outputs:
            value.shape = None  # else the quantiser holds them against shapes that it infers itself
    source, target = path.with_suffix('.float.onnx'), path.with_suffix('.int8.onnx')
    ir.save(graph, source)
    with silence():
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
    quantised = ir.load(target)
    ir.external_data.load_to_model(quantised)
    source.unlink()
    target.unlink()
    return quantised


def open_onnx(path: Path, device: str | None, threads: int | None) -> Engine:
    """Open a file in ONNX Runtime.

    Raises:
        UserError: ONNX Runtime or the device is missing, or it is no graph.
    """
    ort = package(FORMAT.package, FORMAT.extra)
    provider = _PROVIDERS.get(device or 'cpu')
    if provider not in ort.get_available_providers():
        raise UserError(f'device {device!r}: ONNX Runtime has {", ".join(ort.get_available_providers())} here')
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    try:
        session = ort.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # it has a class of its own for each thing that can be wrong
        raise UserError(f'{path} cannot be opened: {reason(error)}') from None
    names = [value.name for value in session.get_outputs()]

    def run(inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        try:
            return dict(zip(names, session.run(names, dict(inputs))))
        except Exception as error:
            raise UserError(f'{path} cannot be run: {reason(error)}') from None

    metadata = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    return Engine(metadata, run, [value.name for value in session.get_inputs()])


FORMAT = ExportFormat('onnx', '.onnx', 'onnxruntime', 'runtime', trace, write, open_onnx, quantise)
