# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Steps of models, timed in turns: forward, or forward and backward, eager, compiled or as a CUDA graph."""

from __future__ import annotations

import ctypes
import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch._dynamo
from torch import Tensor, nn

from mmlightvit.cost.timing import bootstrap_interval, take_turns
from mmlightvit.errors import UserError

DTYPES: Mapping[str, torch.dtype] = {'float32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
MODES = ('inference', 'training')
FORMS = ('eager', 'compiled', 'graph')


@dataclass(frozen=True)
class Case:
    """One kind of step on one size of input.

    Attributes:
        mode: ``'inference'``, or ``'training'``: forward, backward and clearing of gradients, without an optimizer.
        form: ``'eager'``, ``'compiled'`` (torch.compile), or ``'graph'`` (a replayed CUDA graph, inference only).
        dtype: ``'float32'``, or ``'bf16'`` or ``'fp16'``: cast weights in inference, autocast in training.
        device: A torch device, such as ``'cpu'`` or ``'cuda'``.
        batch: Images per step.
        height, width: Size of an image in pixels.
    """

    mode: str = 'inference'
    form: str = 'eager'
    dtype: str = 'float32'
    device: str = 'cpu'
    batch: int = 1
    height: int = 224
    width: int = 224

    def __post_init__(self) -> None:
        for name, known in (('mode', MODES), ('form', FORMS), ('dtype', DTYPES)):
            if getattr(self, name) not in known:
                raise UserError(f'{name}: expected one of {", ".join(known)}, got {getattr(self, name)!r}')
        if min(self.batch, self.height, self.width) < 1:
            raise UserError(f'batch and size: expected at least 1, got {self.batch}, {self.height}x{self.width}')
        try:
            kind = torch.device(self.device).type
        except RuntimeError as error:
            raise UserError(f'device: expected a torch device such as cpu or cuda, got {self.device!r}') from error
        if kind == 'cuda' and not torch.cuda.is_available():
            raise UserError(f'device {self.device}: no GPU is visible; use cpu')
        if self.form == 'graph' and (self.mode != 'inference' or kind != 'cuda'):
            raise UserError('form graph: expected inference on a CUDA device; use eager or compiled here')

    def __str__(self) -> str:
        return f'{self.mode}, {self.form}, {self.dtype}, {self.device}, {self.batch} x {self.height}x{self.width}'

    def sync(self) -> None:
        """Wait until the device has done what it was given."""
        if torch.device(self.device).type == 'cuda':
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Timing:
    """One model in one case.

    Attributes:
        name: Name of the model.
        case: The case.
        seconds: Seconds per step, one entry per round.
        ratios: The first model's seconds over this model's, round by round: above 1 is faster than the first.
        peak_bytes: Most memory in use during a step beyond what was in use before it; on a CPU the growth of the
            resident set. None where it cannot be told.
    """

    name: str
    case: Case
    seconds: tuple[float, ...]
    ratios: tuple[float, ...]
    peak_bytes: int | None

    @property
    def median(self) -> float:
        """Median seconds per step."""
        return statistics.median(self.seconds)

    @property
    def images_per_second(self) -> float:
        """Images per second at the median."""
        return self.case.batch / self.median

    @property
    def spread(self) -> float:
        """Interquartile range of the seconds over their median."""
        low, high = np.quantile(self.seconds, [0.25, 0.75])
        return float(high - low) / self.median

    @property
    def ratio(self) -> float:
        """Median of the paired ratios."""
        return statistics.median(self.ratios)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the median ratio."""
        return bootstrap_interval(self.ratios)


def compare(
    models: Mapping[str, nn.Module],
    case: Case,
    rounds: int = 15,
    seconds: float = 0.3,
    forms: Mapping[str, str] = MappingProxyType({}),
    progress: Callable[[str], None] = lambda line: None,
    processor_time: bool = False,
) -> list[Timing]:
    """Time models in turns.

    Args:
        models: Name to model; the first is what the others are compared with. They are moved and cast in place.
        case: The case.
        rounds: Rounds, >= 1; every model runs once in each.
        seconds: About how long a model runs in each round.
        forms: Name to form, for the models that run in another one than the case says.
        progress: Takes a line about what is being timed.
        processor_time: Whether to count the processor's time, which other programs on it do not change.
    """
    steps, peaks = {}, {}
    cases = {name: replace(case, form=forms.get(name, case.form)) for name in models}
    if 'compiled' in {each.form for each in cases.values()}:
        # Earlier cases do not count against torch's limit of graphs, beyond which it would go on uncompiled.
        torch._dynamo.reset()
        if hasattr(torch._dynamo.config, 'fail_on_recompile_limit_hit'):  # since torch 2.7
            torch._dynamo.config.fail_on_recompile_limit_hit = True
    for name, model in models.items():
        progress(f'{cases[name]}: preparing {name}')
        steps[name] = make_step(model, cases[name])
        steps[name]()
        peaks[name] = _peak_memory(steps[name], cases[name])
    laps = take_turns(steps, rounds, seconds, sync=case.sync, progress=lambda line: progress(f'{case}: {line}'))
    times = {name: tuple(lap.processor if processor_time else lap.wall for lap in laps[name]) for name in models}
    first = times[next(iter(models))]
    return [
        Timing(name, cases[name], own, tuple(a / b for a, b in zip(first, own)), peaks[name])
        for name, own in times.items()
    ]


def make_step(model: nn.Module, case: Case) -> Callable[[], Any]:
    """A function that does one step of the case with a model, which is moved and cast in place."""
    is_training = case.mode == 'training'
    dtype = torch.float32 if is_training else DTYPES[case.dtype]
    model.to(device=case.device, dtype=dtype).train(is_training)
    run = torch.compile(model, dynamic=False) if case.form == 'compiled' else model  # one graph for its one size
    image = torch.randn(case.batch, 3, case.height, case.width, device=case.device, dtype=dtype)

    def infer() -> None:
        with torch.inference_mode():
            run(image)

    def train() -> None:
        # As in training: the casts of the weights belong to each step.
        with torch.autocast(image.device.type, DTYPES[case.dtype], enabled=case.dtype != 'float32'):
            outputs = run(image)
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        sum(out.float().mean() for out in outputs).backward()
        model.zero_grad(set_to_none=True)

    if case.form == 'graph':
        return _capture(model, image)
    return train if is_training else infer


@torch.inference_mode()
def _capture(model: nn.Module, image: Tensor) -> Callable[[], Any]:
    """A CUDA graph of the forward pass; the step keeps what the graph reads and writes alive."""
    with torch.cuda.device(image.device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                model(image)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = model(image)
    tensors = (image, outputs)

    def replay() -> tuple:
        graph.replay()
        return tensors

    return replay


def _peak_memory(step: Callable[[], Any], case: Case) -> int | None:
    """Bytes in use at most during a step, beyond those before it; None where it cannot be told."""
    if case.form == 'graph':
        return None  # its memory was taken when it was captured
    gc.collect()
    if torch.device(case.device).type == 'cuda':
        torch.cuda.reset_peak_memory_stats(case.device)
        before = torch.cuda.memory_allocated(case.device)
        step()
        case.sync()
        return torch.cuda.max_memory_allocated(case.device) - before
    status, reset = Path('/proc/self/status'), Path('/proc/self/clear_refs')
    if not (status.is_file() and reset.is_file() and hasattr(ctypes.CDLL(None), 'malloc_trim')):
        return None

    def read(field: str) -> int:
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f'{field}:'))

    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps would hide what the step takes
    reset.write_text('5')  # sets the high-water mark back to what is resident now
    before = read('VmRSS')
    step()
    return max(read('VmHWM') - before, 0)


def speed_line(timings: Sequence[Timing], ours: str) -> str:
    """How fast one model of a case is compared with each of the others, in a sentence; above 1 is faster."""
    own = next(timing for timing in timings if timing.name == ours)
    parts = []
    for other in timings:
        if other is not own:
            ratios = [theirs / mine for theirs, mine in zip(other.seconds, own.seconds)]
            low, high = bootstrap_interval(ratios)
            ratio = f'{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})'
            parts.append(f'{ratio} times as fast as {other.name} ({other.case.form})')
    return f'{own.case}: {ours} is ' + ', '.join(parts) if parts else ''


_HEADERS = (
    'model', 'mode', 'form', 'dtype', 'batch', 'size', 'images/s', 'ms per step', 'spread', 'peak MB', 'ratio', '95 %',
)  # fmt: skip


def cells(timings: Sequence[Timing]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Headers and rows of the table."""
    rows = []
    for t in timings:
        low, high = t.interval
        peak = '-' if t.peak_bytes is None else f'{t.peak_bytes / 1e6:.0f}'
        rows.append([
            t.name, t.case.mode, t.case.form, t.case.dtype, str(t.case.batch), f'{t.case.height}x{t.case.width}',
            f'{t.images_per_second:.1f}', f'{1e3 * t.median:.2f}', f'{100 * t.spread:.0f} %', peak, f'{t.ratio:.2f}',
            f'{low:.2f} to {high:.2f}',
        ])  # fmt: skip
    return _HEADERS, rows
