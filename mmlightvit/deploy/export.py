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

from mmlightvit.deploy.export_modules import CUTS, export_module
from mmlightvit.deploy.formats import FORMATS, open_file
from mmlightvit.deploy.runtime import load_exported
from mmlightvit.deploy.verify import SIZES, generated_pictures, verify, verify_maps
from mmlightvit.errors import UserError
from mmlightvit.inference.torch_backend import TorchModel
from mmlightvit.model_folder.info import ModelInfo
from mmlightvit.tasks import TASKS
from mmlightvit.version import __version__


@dataclass(frozen=True)
class Plan:
    """How to export.

    Attributes:
        format: One of :data:`~mmlightvit.deploy.formats.FORMATS`.
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
        if self.format not in FORMATS or self.cut not in CUTS:
            raise UserError(f'expected one of {", ".join(FORMATS)} and one of {", ".join(CUTS)}')
        if self.int8 and (FORMATS[self.format].quantise is None or self.cut != 'end2end'):
            able = [name for name, export_format in FORMATS.items() if export_format.quantise]
            raise UserError(f'int8 is for {", ".join(able)} and a whole model')
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
        plan: How to export.
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
    out, export_format = Path(out), FORMATS[plan.format]
    if out.suffix != export_format.ending:
        raise UserError(f'{out}: expected the ending {export_format.ending}')
    if not out.parent.is_dir():
        raise UserError(f'{out.parent} is no folder')
    if plan.int8 and measure is None and not may_lack_proof:
        raise UserError('int8 needs --data: single answers change, and only labelled pictures show what that costs')
    info = _info(model.info, plan)
    part = export_module(model.module, model.task, plan.cut, model.info.input if plan.normalise else None)
    with tempfile.TemporaryDirectory(prefix='.export-', dir=out.parent) as folder:
        draft = Path(folder) / out.name
        say(f'tracing the {info.task} model{"" if plan.cut == "end2end" else f" up to its {plan.cut}"} (a minute)')
        graph = export_format.trace(part, plan.static)
        export_format.write(graph, info, draft)
        say('verifying it')
        sizes = SIZES if plan.static is None else (plan.static,) * 5
        if plan.cut != 'end2end':
            certificate = verify_maps(
                part.module, open_file(draft, trust=True).run, sizes, 255.0 if plan.normalise else 1.0
            )
        else:
            certificate = verify(model, load_exported(draft, trust=True), pictures or generated_pictures(8), sizes)
            if not pictures:
                certificate['note'] = 'verified on generated pictures only'
            if certificate.get('objects') == 0 and not may_lack_proof:
                raise UserError(
                    'the model finds no object in any of the pictures, so its objects cannot be proven: '
                    'name pictures with objects by --images; nothing was written'
                )
        if plan.int8 and export_format.quantise is not None:
            say('storing its weights as 8-bit numbers')
            graph = export_format.quantise(draft)
            export_format.write(graph, info, draft)
            notes = [certificate.get('note'), 'verified before its weights became 8-bit numbers']
            notes += ['what they cost was not measured'] if measure is None else []
            certificate['note'] = ', '.join(filter(None, notes))
        if measure is not None:
            say('measuring it')
            certificate |= measure(draft)
        info = replace(info, extra={**info.extra, 'certificate': certificate})
        export_format.write(graph, info, draft)
        for path in sorted(Path(folder).iterdir()):
            os.replace(path, out.parent / path.name)
    return info


def _info(info: ModelInfo, plan: Plan) -> ModelInfo:
    """The model's own information, with what is left to do outside of the graph."""
    spec = info.input
    if plan.normalise:
        if spec.pad_multiple and TASKS[info.task].has_label_map:
            raise UserError('a segmenter that pads cannot normalise in the graph: what pads would not stay zero')
        spec = replace(spec, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), channels='rgb')
    if plan.static and plan.static != spec.crop:
        height, width = plan.static
        spec = replace(spec, resize={'height': height, 'width': width}, crop=None, pad_multiple=None)
    exported = {'format': plan.format, 'cut': plan.cut, 'static': plan.static, 'int8': plan.int8, 'by': __version__}
    return replace(info, input=spec, extra={**info.extra, 'export': exported})
