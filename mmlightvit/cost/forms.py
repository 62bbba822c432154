# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The forms of one model against each other: torch, compiled, and what exports give, in time, size and answers."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from mmlightvit.cost.timing import Lap, bootstrap_interval, take_turns
from mmlightvit.deploy.compile import compile_blocks
from mmlightvit.deploy.export import Plan, export
from mmlightvit.deploy.formats import FORMATS as EXPORT_FORMATS
from mmlightvit.deploy.formats import open_file
from mmlightvit.deploy.formats.onnx import to_onnx
from mmlightvit.deploy.runtime import load_exported
from mmlightvit.deploy.verify import Tolerance, compare
from mmlightvit.errors import UserError
from mmlightvit.inference.preprocess import Prepared
from mmlightvit.inference.torch_backend import TorchModel


class Kind(NamedTuple):
    """A form: how it is exported and opened; neither for torch itself."""

    plan: Plan | None = None
    device: str | None = None


FORMS: Mapping[str, Kind] = {
    'torch': Kind(),
    'compiled': Kind(),
    'onnx': Kind(Plan()),
    'onnx-int8': Kind(Plan(int8=True)),
    'openvino': Kind(Plan(), 'openvino:CPU'),
    'openvino-fastest': Kind(Plan(), 'openvino:CPU:fastest'),
    'pt2': Kind(Plan('pt2')),
}
#: Seconds between two forms: threads of the one before may wait for work on a core for so long.
_REST = 0.1
#: The columns of the table.
COLUMNS = (
    'format', 'file_mb', 'metric', 'ms_median', 'ms_p5', 'ms_p95', 'images_per_s', 'cpu_ms', 'ratio_to_torch',
    'ratio_low', 'ratio_high', 'cpu_ratio', 'max_error', 'status',
)  # fmt: skip


@dataclass
class Form:
    """One form, opened and timed.

    Attributes:
        name: Of the form.
        run: Predicts for the pictures, all at once.
        path: Its file, if it has one.
        status: ``'ok'``, or why it could not be had.
        max_error: Of its answers against torch's; None where they differ by more than any rounding explains.
        laps: Its time in each round.
    """

    name: str
    run: Callable[[], Any] | None = None
    path: Path | None = None
    status: str = 'ok'
    max_error: float | None = None
    laps: list[Lap] = field(default_factory=list)

    def row(self, reference: Form, batch: int, metric: float | None = None) -> dict[str, Any]:
        """Its cells of the table."""
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {'format': self.name, 'status': self.status, 'max_error': self.max_error, 'metric': metric}
        if self.path is not None:
            row['file_mb'] = self.path.stat().st_size / 1e6
        if not self.laps:
            return row
        seconds = [lap.wall for lap in self.laps]
        median = statistics.median(seconds)
        low, high = np.quantile(seconds, [0.05, 0.95])
        row |= {'ms_median': median * 1e3, 'ms_p5': low * 1e3, 'ms_p95': high * 1e3, 'images_per_s': batch / median}
        row['cpu_ms'] = statistics.median(lap.processor for lap in self.laps) * 1e3
        if reference.laps:
            pairs = list(zip(reference.laps, self.laps))
            ratios = [theirs.wall / own.wall for theirs, own in pairs]
            row['ratio_to_torch'] = statistics.median(ratios)
            row['ratio_low'], row['ratio_high'] = bootstrap_interval(ratios)
            row['cpu_ratio'] = statistics.median(theirs.processor / own.processor for theirs, own in pairs)
        return row


def open_forms(
    model: TorchModel, names: Sequence[str], pictures: Sequence[Prepared], folder: Path, threads: int,
    say: Callable[[str], None] = lambda line: None,
) -> list[Form]:  # fmt: skip
    """The forms of a model; one that cannot be had says why, and the others go on.

    Args:
        model: On the CPU.
        names: Of :data:`FORMS`.
        pictures: What is predicted for, of one size.
        folder: For the files that are missing.
        threads: Of each runtime.
        say: Takes a line about what is being done.
    """
    torch.set_num_threads(threads)
    want = model.run(pictures)
    files: dict[Plan, Path] = {}
    forms = []
    for name in names:
        kind = FORMS[name]
        form = Form(name)
        try:
            opened: Any = model
            if name == 'compiled':
                opened = TorchModel(model.info, copy.deepcopy(model.module), model.device)
                compile_blocks(opened.module)
            elif kind.plan is not None:
                if kind.plan not in files:
                    path = folder / f'{name}{EXPORT_FORMATS[kind.plan.format].ending}'
                    export(model, path, kind.plan, say=say, may_lack_proof=True)
                    files[kind.plan] = path
                form.path = files[kind.plan]
                opened = load_exported(form.path, kind.device, threads, trust=True)
            form.run = lambda opened=opened: opened.run(pictures)
            form.max_error = _error(want, form.run())
        except (UserError, RuntimeError) as error:
            form.status, form.run = str(error).splitlines()[0], None
        forms.append(form)
    return forms


def _error(want: Sequence[Any], got: Sequence[Any]) -> float | None:
    anything = Tolerance(logits=np.inf, score=0.1, iou=0.9, matched=0.0, pixels=0.0)
    return max(compare(a, b, anything, 'here') for a, b in zip(want, got))


def open_peer(name: str, batch: int, size: tuple[int, int], folder: Path, device: str | None, threads: int) -> Form:
    """A model of timm, in torch, or exported in the same way; ``device`` is None for torch."""
    try:
        import timm
    except ModuleNotFoundError:
        raise UserError('peers need timm: pip install timm') from None
    module: nn.Module = timm.create_model(name, num_classes=1000).eval()
    image = torch.randn(batch, 3, *size)
    if device is None:

        def run() -> Any:
            with torch.inference_mode():
                return module(image)

        return Form(name, run)
    path = folder / f'{name}.onnx'
    if not path.exists():
        graph = to_onnx(module, (image,), [{}], ['image'], ['logits'])
        ir.save(graph, path)
    engine, inputs = open_file(path, device, threads), {'image': image.numpy()}
    return Form(name, lambda: engine.run(inputs), path)


def time_forms(forms: Sequence[Form], rounds: int) -> None:
    """Time in turns the forms that could be had."""
    steps = {form.name: form.run for form in forms if form.run is not None}
    laps = take_turns(steps, rounds, rest=_REST)
    for form in forms:
        form.laps = laps.get(form.name, [])
