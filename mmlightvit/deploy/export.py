# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Exporting a model: trace, verify, and only then write, with the certificate inside of the file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.deploy.export_modules import CUTS, Form, form
from mmlightvit.deploy.runtime import OUTPUTS_KEY, import_openvino, load_exported, open_file
from mmlightvit.deploy.verify import SIZES, TRACED, generated_pictures, verify, verify_maps
from mmlightvit.errors import UserError
from mmlightvit.inference.torch_backend import TorchModel
from mmlightvit.model_folder.info import METADATA_KEY, ModelInfo
from mmlightvit.version import __version__

#: The ending of each format that is a file.
ENDINGS = {'onnx': '.onnx', 'openvino': '.xml', 'pt2': '.pt2'}


@dataclass(frozen=True)
class Plan:
    """What to export.

    Attributes:
        format: ``'onnx'``, ``'openvino'`` or ``'pt2'``.
        cut: One of :data:`~mmlightvit.deploy.export_modules.CUTS`.
        static: Height and width that the file is for; None for any.
        normalise: Whether normalisation and the order of channels go into the graph.
        int8: Whether weights are stored as 8-bit numbers, quantised while running: a smaller file of ONNX Runtime.
    """

    format: str = 'onnx'
    cut: str = 'end2end'
    static: tuple[int, int] | None = None
    normalise: bool = False
    int8: bool = False

    def __post_init__(self) -> None:
        if self.format not in ENDINGS or self.cut not in CUTS:
            raise UserError(f'expected one of {", ".join(ENDINGS)} and one of {", ".join(CUTS)}')
        if self.int8 and (self.format, self.cut) != ('onnx', 'end2end'):
            raise UserError('int8 is for onnx and a whole model')
        if self.static and min(self.static) < 1:
            raise UserError(f'static: expected height and width in pixels, got {self.static}')


def export(
    model: TorchModel,
    out: str | os.PathLike,
    plan: Plan = Plan(),
    pictures: Sequence[NDArray[np.uint8]] = (),
    measure: Callable[[Path], dict[str, Any]] | None = None,
    say: Callable[[str], None] = lambda line: None,
    may_lack_proof: bool = False,
) -> ModelInfo:
    """Export a model and prove the file.

    Args:
        model: On the CPU.
        out: The file; OpenVINO's weights go beside it.
        plan: What to export.
        pictures: Real ones to verify with, RGB (H, W, 3).
        measure: Takes the file and gives what is to stand in its certificate too, or raises.
        say: Takes a line about what is being done.
        may_lack_proof: Whether there is a file all the same where something cannot be compared: the objects of a
            detector that finds none in any picture, or what 8-bit weights cost, without ``measure``.

    Returns:
        What the file says of itself, certificate included.

    Raises:
        UserError: The model cannot be exported, or the file is not the model; then there is no file.
    """
    out = Path(out)
    if out.suffix != ENDINGS[plan.format]:
        raise UserError(f'{out}: expected the ending {ENDINGS[plan.format]}')
    if not out.parent.is_dir():
        raise UserError(f'{out.parent} is no folder')
    if plan.int8 and measure is None and not may_lack_proof:
        raise UserError('int8 needs --data: single answers change, and only labelled pictures show what that costs')
    info = _info(model.info, plan)
    traced = _form(model, plan)
    with tempfile.TemporaryDirectory(prefix='.export-', dir=out.parent) as folder:
        draft = Path(folder) / out.name
        say(f'tracing the {info.task} model{"" if plan.cut == "end2end" else f" up to its {plan.cut}"} (a minute)')
        write = _writer(traced, plan, draft)
        write(info)
        say('verifying it')
        if plan.cut == 'end2end':
            certificate = _verify_whole(model, draft, plan, pictures)
            if certificate.get('objects') == 0 and not may_lack_proof:
                raise UserError(
                    'the model finds no object in any of the pictures, so its objects cannot be proven: '
                    'name pictures with objects by --images; nothing was written'
                )
        else:
            certificate = _verify_maps(model, draft, plan)
        if plan.int8:
            say('storing its weights as 8-bit numbers')
            write = _int8_writer(draft)
            write(info)
            notes = [certificate.get('note'), 'verified before its weights became 8-bit numbers']
            notes += ['what they cost was not measured'] if measure is None else []
            certificate['note'] = ', '.join(filter(None, notes))
        if measure is not None:
            say('measuring it')
            certificate |= measure(draft)
        info = replace(info, extra={**info.extra, 'certificate': certificate})
        write(info)
        for path in sorted(Path(folder).iterdir()):
            os.replace(path, out.parent / path.name)
    return info


def _info(info: ModelInfo, plan: Plan) -> ModelInfo:
    """The model's own information, with what is left to do outside of the graph."""
    spec = info.input
    if plan.normalise:
        if spec.pad_multiple and info.task == 'segmentation':
            raise UserError('a segmenter that pads cannot normalise in the graph: what pads would not stay zero')
        spec = replace(spec, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), channels='rgb')
    if plan.static and plan.static != spec.crop:
        height, width = plan.static
        spec = replace(spec, resize={'height': height, 'width': width}, crop=None, pad_multiple=None)
    exported = {'format': plan.format, 'cut': plan.cut, 'static': plan.static, 'int8': plan.int8, 'by': __version__}
    return replace(info, input=spec, extra={**info.extra, 'export': exported})


def _form(model: TorchModel, plan: Plan) -> Form:
    spec = model.info.input if plan.normalise else None
    return form(model.module, model.task, plan.cut, ordered=plan.format != 'pt2', normalise=spec)


def _onnx_writer(graph: Any, path: Path) -> Callable[[ModelInfo], None]:
    import onnx_ir as ir

    def write(info: ModelInfo) -> None:
        graph.metadata_props[METADATA_KEY] = info.to_json()
        ir.save(graph, path)

    return write


def _writer(traced: Form, plan: Plan, path: Path) -> Callable[[ModelInfo], None]:
    """A function that writes the file with the information in it."""
    example = traced.example(*(plan.static or TRACED))
    dynamic = traced.dynamic()
    if plan.static:
        dynamic = tuple({axis: name for axis, name in axes.items() if name == 'batch'} for axes in dynamic)
    if plan.format == 'pt2':
        return _pt2_writer(traced, example, dynamic, path)
    try:
        import onnx_ir as ir

        from mmlightvit.deploy.graph import to_onnx
    except ModuleNotFoundError as error:
        raise UserError(f'exporting needs {error.name}: pip install "mmlightvit[export]"') from None
    graph = to_onnx(traced.module, example, dynamic, traced.inputs, traced.outputs)
    if plan.format == 'onnx':
        return _onnx_writer(graph, path)
    ov = import_openvino()
    source = path.with_suffix('.onnx')
    ir.save(graph, source)
    converted = ov.convert_model(source)
    source.unlink()

    def write_openvino(info: ModelInfo) -> None:
        converted.set_rt_info(info.to_json(), METADATA_KEY)
        ov.save_model(converted, path, compress_to_fp16=False)

    return write_openvino


def _pt2_writer(traced: Form, example: Any, dynamic: Any, path: Path) -> Callable[[ModelInfo], None]:
    import torch

    from mmlightvit.deploy.graph import silence

    shapes = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in dynamic)
    with torch.no_grad(), silence():
        program = torch.export.export(traced.module, example, dynamic_shapes=shapes)
    # The least sides come of guards on the memory layout of the example's maps; smaller ones are verified too.
    for symbol, sides in program.range_constraints.items():
        program.range_constraints[symbol] = type(sides)(min(sides.lower, 2), sides.upper)

    def write(info: ModelInfo) -> None:
        extra = {METADATA_KEY: info.to_json(), OUTPUTS_KEY: ' '.join(traced.outputs)}
        torch.export.save(program, path, extra_files=extra)

    return write


def _int8_writer(path: Path) -> Callable[[ModelInfo], None]:
    """Writes the graph of a file anew, with the matrices of its products as 8-bit numbers."""
    import onnx_ir as ir
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from mmlightvit.deploy.graph import silence

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
    return _onnx_writer(quantised, path)


def _verify_whole(model: TorchModel, draft: Path, plan: Plan, pictures: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
    exported = load_exported(draft)
    sizes = SIZES if plan.static is None else (plan.static,) * 5
    certificate = verify(model, exported, pictures or generated_pictures(8), sizes)
    if not pictures:
        certificate['note'] = 'verified on generated pictures only'
    return certificate


def _verify_maps(model: TorchModel, draft: Path, plan: Plan) -> dict[str, Any]:
    """What a cut gives, against the same layers in torch."""
    engine = open_file(draft)
    spec = model.info.input if plan.normalise else None
    truth = form(model.module, model.task, plan.cut, ordered=False, normalise=spec).module
    sizes = SIZES if plan.static is None else (plan.static,) * 5
    return verify_maps(truth, engine.run, sizes, 255.0 if plan.normalise else 1.0)
