# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Exported models, run without torch and without a toolbox: numpy and ONNX Runtime, or OpenVINO, are enough.

A form of a model for ``mmlightvit.inference``: what an exported file gives is brought into pixels of the picture by the
same arithmetic as in the toolboxes.

Shape legend: H W picture, h w resized, P Q padded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmlightvit.errors import UserError
from mmlightvit.inference.model import Model, Raw
from mmlightvit.inference.preprocess import Prepared
from mmlightvit.model_folder.info import METADATA_KEY, ModelInfo
from mmlightvit.pictures.masks import paste, tent

_CPU = 'cpu'
#: The key of a ``.pt2`` file for the names of what it gives.
OUTPUTS_KEY = 'outputs'


class Engine(NamedTuple):
    """An opened file.

    Attributes:
        metadata: The text under our key; None where there is none.
        run: Input arrays by name -> output arrays by name.
        inputs: Names.
    """

    metadata: str | None
    run: Callable[[Mapping[str, NDArray]], dict[str, NDArray]]
    inputs: Sequence[str]


class ExportedModel(Model):
    """A file that ``mmlightvit export`` wrote.

    Args:
        info: What it says of itself.
        engine: The opened file.
    """

    def __init__(self, info: ModelInfo, engine: Engine) -> None:
        super().__init__(info)
        self.engine = engine

    def run(self, pictures: Sequence[Prepared]) -> list[Raw]:
        if 'size' in self.engine.inputs:
            return [self._detect(picture) for picture in pictures]
        out = self.engine.run({'image': np.stack([picture.array for picture in pictures])})
        if 'probs' in out:
            return [Raw(probs=probs) for probs in out['probs']]
        if 'logits' not in out:
            raise UserError(f'{self.info.name} gives {", ".join(out)}: it was exported without its head')
        return [Raw(label_map=label_map(logits, picture)) for logits, picture in zip(out['logits'], pictures)]

    def _detect(self, picture: Prepared) -> Raw:
        size = np.array(picture.size, np.int64)
        out = self.engine.run({'image': picture.array[None], 'size': size})
        boxes = out['dets'][:, :4] / np.tile(np.array(picture.scale[::-1], np.float32), 2)
        masks = paste(out['masks'], boxes, *picture.original) if 'masks' in out else None
        return Raw(boxes=boxes, scores=out['dets'][:, 4], labels=out['labels'], masks=masks)


def load_exported(path: str | os.PathLike, device: str | None = None, threads: int | None = None) -> ExportedModel:
    """Open an exported file.

    Args:
        path: ``.onnx``, ``.xml`` or ``.pt2``.
        device: ``'cpu'``, ``'cuda'``, ``'openvino:CPU'`` or, in the precision that the processor is fastest in,
            ``'openvino:CPU:fastest'``; None is the CPU.
        threads: For one picture; None takes what the runtime takes.

    Raises:
        UserError: It is not one of ours, or a package or device is missing.
    """
    path = Path(path)
    engine = open_file(path, device, threads)
    if engine.metadata is None:
        raise UserError(f'{path} was not written by mmlightvit export: it does not say what it is')
    return ExportedModel(ModelInfo.from_json(engine.metadata, str(path)), engine)


def open_file(path: Path, device: str | None = None, threads: int | None = None) -> Engine:
    """The engine for a file."""
    if path.suffix == '.xml' or (device or '').startswith('openvino'):
        return _openvino(path, device or 'openvino:CPU', threads)
    if path.suffix == '.pt2':
        return _torch(path, threads)
    return _onnxruntime(path, device or _CPU, threads)


def _onnxruntime(path: Path, device: str, threads: int | None) -> Engine:
    ort = package('onnxruntime', 'runtime')
    provider = {_CPU: 'CPUExecutionProvider', 'cuda': 'CUDAExecutionProvider'}.get(device)
    if provider not in ort.get_available_providers():
        raise UserError(f'device {device!r}: ONNX Runtime has {", ".join(ort.get_available_providers())} here')
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    try:
        session = ort.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # it has a class of its own for each thing that can be wrong
        raise UserError(f'{path} cannot be opened: {_reason(error)}') from None
    names = [value.name for value in session.get_outputs()]

    def run(inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        try:
            return dict(zip(names, session.run(names, dict(inputs))))
        except Exception as error:
            raise UserError(f'{path} cannot be run: {_reason(error)}') from None

    metadata = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    return Engine(metadata, run, [value.name for value in session.get_inputs()])


def _openvino(path: Path, device: str, threads: int | None) -> Engine:
    ov = import_openvino()
    core = ov.Core()
    target, *fastest = device.split(':')[1:] or ['CPU']
    # Left to itself, it takes bfloat16 where the processor has it, and answers differ in the second digit.
    settings: dict[str, Any] = {'PERFORMANCE_HINT': 'LATENCY'}
    settings |= {} if fastest else {'INFERENCE_PRECISION_HINT': 'f32'}
    settings |= {'INFERENCE_NUM_THREADS': threads} if threads else {}
    try:
        core.get_property(target, 'FULL_DEVICE_NAME')  # refuses a device that is not there
        model = core.read_model(str(path))
    except Exception as error:
        raise UserError(f'{path} cannot be opened on {target}: {_reason(error)}') from None
    metadata = _openvino_metadata(model)
    crop = ModelInfo.from_json(metadata, str(path)).input.crop if metadata else None
    inputs = {value.get_any_name(): value.partial_shape for value in model.inputs}
    names = [output.get_any_name() for output in model.outputs]
    forms: dict[tuple[int, ...] | None, Any] = {}

    def form(shape: tuple[int, ...] | None) -> Any:
        """Compiled for images of this shape, or of any."""
        if shape not in forms:
            fixed = model.clone()
            fixed.reshape({'image': list(shape)} if shape else {})
            forms[shape] = core.compile_model(fixed, target, settings).create_infer_request()
        return forms[shape]

    def run(arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
        shape = arrays['image'].shape
        if not inputs['image'].compatible(ov.PartialShape(list(shape))):
            raise UserError(f'{path} cannot be run: it takes images {inputs["image"]}, and this one is {list(shape)}')
        # Where preprocessing gives one size, that has a form of its own: up to a fifth faster.
        is_own = shape[2:] == crop and set(forms) <= {shape, None}
        try:
            found = form(shape if is_own else None).infer(dict(arrays))
        except Exception as error:
            raise UserError(f'{path} cannot be run on {target}: {_reason(error)}') from None
        return {name: np.array(found[i]) for i, name in enumerate(names)}

    return Engine(metadata, run, list(inputs))


def _openvino_metadata(model: Any) -> str | None:
    for place in (METADATA_KEY, f'framework/{METADATA_KEY}'):  # written as OpenVINO, and read from ONNX
        if model.has_rt_info(place.split('/')):
            return str(model.get_rt_info(place.split('/')).astype(str))
    return None


def _torch(path: Path, threads: int | None) -> Engine:
    torch = package('torch', 'toolboxes')
    if threads:
        torch.set_num_threads(threads)
    extra = {METADATA_KEY: '', OUTPUTS_KEY: ''}
    try:
        program = torch.export.load(path, extra_files=extra)
    except Exception as error:
        raise UserError(f'{path} cannot be opened: {_reason(error)}') from None
    # Guards ask for the example's memory layout too; that every size is right has been verified.
    module = program.module(check_guards=False)
    inputs = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == 'USER_INPUT']

    def run(arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
        tensors = [torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in inputs]
        try:
            with torch.inference_mode():
                found = module(*tensors)
        except RuntimeError as error:
            raise UserError(f'{path} cannot be run: {_reason(error)}') from None
        found = (found,) if isinstance(found, torch.Tensor) else found
        return {name: value.numpy() for name, value in zip(extra[OUTPUTS_KEY].split(), found)}

    return Engine(extra[METADATA_KEY] or None, run, inputs)


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which tells Google Analytics of each import and conversion, unasked.

    Where the package that sends cannot be imported, OpenVINO has a stand-in for it that does nothing.
    """
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
    return package('openvino', 'openvino')


def package(name: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise UserError(f'this file needs {name}: pip install "mmlightvit[{extra}]"') from None


def _reason(error: BaseException) -> str:
    """What an error says, after the places that OpenVINO puts in front."""
    places = ('Exception from ', "Check '", 'While validating ')
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if not line.startswith(places)), lines[0])


# -- into pixels of the picture ---------------------------------------------------------------------------------------
def label_map(logits: NDArray, picture: Prepared) -> NDArray[np.int64]:
    """mmseg's label map: logits (classes, a, b) of the padded picture -> the best class of each pixel, (H, W)."""
    rows, columns = (
        _resizing(size, original) @ _resizing(cells, padded)[:size]
        for size, original, cells, padded in zip(
            picture.size, picture.original, logits.shape[1:], picture.array.shape[1:]
        )
    )
    best = np.full(picture.original, -np.inf, np.float32)
    label = np.zeros(picture.original, np.int64)
    for place, logit in enumerate(logits):
        grown = rows @ logit @ columns.T
        better = grown > best
        np.copyto(best, grown, where=better)
        np.copyto(label, place, where=better)
    return label


def _resizing(size: int, target: int) -> NDArray[np.float32]:
    """torch's bilinear resizing of one axis, (target, size)."""
    place = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * np.float32(size / target) - np.float32(0.5)
    return tent(place.clip(0, size - 1), size)
