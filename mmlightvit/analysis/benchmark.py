# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Timing models against each other so that the ratio can be believed on a machine that is not quiet.

All models of a case take turns, round by round and in both directions, and each round gives one ratio per model: what
slows the machine down slows both. Reported are the median ratio and a bootstrap interval of it.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch._dynamo
from torch import Tensor, nn

from mmlightvit.errors import UserError

DTYPES: Mapping[str, torch.dtype] = {'float32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
MODES = ('inference', 'training')
FORMS = ('eager', 'compiled', 'graph')


@dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        mode: ``'inference'``, or ``'training'``: forward, backward and clearing of gradients,
            without an optimizer.
        form: ``'eager'``, ``'compiled'`` (torch.compile), or ``'graph'`` (a replayed CUDA graph, inference only).
        dtype: ``'float32'``, or ``'bf16'`` or ``'fp16'``: cast weights in inference, autocast in training.
        device: A torch device, such as ``'cpu'`` or ``'cuda'``.
        batch: Images per step.
        height: Image height in pixels.
        width: Image width in pixels.
    """

    mode: str = 'inference'
    form: str = 'eager'
    dtype: str = 'float32'
    device: str = 'cpu'
    batch: int = 1
    height: int = 224
    width: int = 224

    def __post_init__(self) -> None:
        for name, value, known in (
            ('mode', self.mode, MODES),
            ('form', self.form, FORMS),
            ('dtype', self.dtype, DTYPES),
        ):
            if value not in known:
                raise UserError(f'{name}: expected one of {", ".join(known)}, got {value!r}')
        if min(self.batch, self.height, self.width) < 1:
            raise UserError(f'batch and size: expected at least 1, got {self.batch}, {self.height}x{self.width}')
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise UserError(f'device: expected a torch device such as cpu or cuda, got {self.device!r}') from error
        if device.type == 'cuda' and not torch.cuda.is_available():
            raise UserError(f'device {self.device}: no GPU is visible; use cpu')
        if self.form == 'graph' and (self.mode != 'inference' or device.type != 'cuda'):
            raise UserError('form graph: expected inference on a CUDA device; use eager or compiled here')

    def __str__(self) -> str:
        return f'{self.mode}, {self.form}, {self.dtype}, {self.device}, {self.batch} x {self.height}x{self.width}'


@dataclass(frozen=True)
class Timing:
    """One model in one case.

    Attributes:
        name: Name of the model.
        case: What was timed.
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


def bootstrap_interval(values: Sequence[float], level: float = 0.95, resamples: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval of the median, with a fixed seed.

    Args:
        values: The sample, at least one value.
        level: Confidence level in (0, 1).
        resamples: Number of resamples.
    """
    draws = np.random.default_rng(0).choice(np.asarray(values), (resamples, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(
    models: Mapping[str, nn.Module],
    case: Case,
    rounds: int = 15,
    seconds: float = 0.3,
    forms: Mapping[str, str] = MappingProxyType({}),
    progress: bool = True,
) -> list[Timing]:
    """Time models in turns.

    Args:
        models: Name to model; the first is what the others are compared with. They are moved and cast in place.
        case: What to time.
        rounds: Rounds, >= 1; every model runs once in each.
        seconds: About how long a model runs in each round.
        forms: Name to form, for the models that run in another one than the case says.
        progress: Whether to say on stderr what is being timed.
    """
    if rounds < 1:
        raise UserError(f'rounds: expected at least 1, got {rounds}')
    steps, repeats, peaks = {}, {}, {}
    cases = {name: replace(case, form=forms.get(name, case.form)) for name in models}
    if 'compiled' in {each.form for each in cases.values()}:
        # Earlier cases do not count against torch's limit of graphs, beyond which it would go on uncompiled.
        torch._dynamo.reset()
        if hasattr(torch._dynamo.config, 'fail_on_recompile_limit_hit'):  # since torch 2.7
            torch._dynamo.config.fail_on_recompile_limit_hit = True
    for name, model in models.items():
        _say(progress, f'{cases[name]}: preparing {name}')
        steps[name] = make_step(model, cases[name])
        steps[name]()
        sync(case)
        repeats[name] = max(1, int(seconds / _time(steps[name], 1, case)))
        peaks[name] = _peak_memory(steps[name], cases[name])
    times: dict[str, list[float]] = {name: [] for name in models}
    for i in range(rounds):
        for name in list(models) if i % 2 == 0 else reversed(list(models)):
            times[name].append(_time(steps[name], repeats[name], case))
        _say(progress, f'{case}: round {i + 1} of {rounds}')
    first = times[next(iter(models))]
    return [
        Timing(name, cases[name], tuple(t), tuple(a / b for a, b in zip(first, t)), peaks[name])
        for name, t in times.items()
    ]


@dataclass(frozen=True)
class Machine:
    """Rates of the machine, measured in the same run.

    Attributes:
        bytes_per_second: Of copying a large tensor, reads and writes counted.
        flops_per_second: Of a large matrix product, two per multiply-add.
    """

    bytes_per_second: float
    flops_per_second: float

    @classmethod
    def measure(cls, case: Case) -> Machine:
        """Measure with the case's device and dtype: the best of ten."""
        device = torch.device(case.device)
        large = device.type == 'cuda'
        source = torch.ones((1 << 28 if large else 1 << 25), device=device)
        target, side = torch.empty_like(source), 8192 if large else 1536
        a = torch.randn(side, side, device=device, dtype=DTYPES[case.dtype])
        copying = min(_time(lambda: target.copy_(source), 1, case) for _ in range(10))
        product = min(_time(lambda: a @ a, 1, case) for _ in range(10))
        return cls(2 * source.numel() * source.element_size() / copying, 2 * side**3 / product)

    def floor(self, macs: int, num_bytes: int) -> float:
        """Seconds that so many multiply-adds and bytes take at least."""
        return max(2 * macs / self.flops_per_second, num_bytes / self.bytes_per_second)


def environment(device: str) -> str:
    """Hardware, versions and threads, in one line."""
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        cpuinfo = Path('/proc/cpuinfo')
        lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
        models = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
        name = f'{models[0] if models else "CPU"}, {torch.get_num_threads()} threads'
    return f'{name}; torch {torch.__version__}, Python {sys.version.split()[0]}'


def plot(timings: Sequence[Timing], path: str | Path) -> None:
    """Bars of the median ratios with their intervals, one group per case, as a picture file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.6 + 0.45 * len(timings)), layout='constrained')
    axes = figure.subplots()
    for i, timing in enumerate(timings):
        low, high = timing.interval
        errors = [[max(timing.ratio - low, 0)], [max(high - timing.ratio, 0)]]
        axes.barh(i, timing.ratio, xerr=errors, capsize=3, color='tab:blue')
    axes.set_yticks(range(len(timings)), [f'{t.name}\n{t.case}' for t in timings], fontsize=7)
    axes.invert_yaxis()
    axes.axvline(1, color='black', linewidth=0.8)
    axes.set_xlabel('speed over the first model of the case (median paired ratio, 95 % interval)')
    figure.savefig(path, dpi=150)


def _say(progress: bool, text: str) -> None:
    if progress:
        print(text, file=sys.stderr, flush=True)


def sync(case: Case) -> None:
    if torch.device(case.device).type == 'cuda':
        torch.cuda.synchronize(case.device)


def _time(step: Callable[[], Any], repeats: int, case: Case) -> float:
    sync(case)
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    sync(case)
    return (time.perf_counter() - start) / repeats


def make_step(model: nn.Module, case: Case) -> Callable[[], Any]:
    """One call of it is one step of the case."""
    is_training = case.mode == 'training'
    dtype = torch.float32 if is_training else DTYPES[case.dtype]
    if model._compiled_call_impl is not None:
        raise UserError('models that were compiled cannot be timed again: build them anew for each case')
    model.to(device=case.device, dtype=dtype).train(is_training)
    if case.form == 'compiled':
        # One graph of the whole model for its one size, for every model alike. The switch of our backbone, with
        # graphs for all sizes, is another thing.
        nn.Module.compile(model, dynamic=False)
    image = torch.randn(case.batch, 3, case.height, case.width, device=case.device, dtype=dtype)
    if case.form == 'graph':
        return _capture(model, image)

    def infer() -> None:
        with torch.inference_mode():
            model(image)

    def train() -> None:
        # As in training: the casts of the weights belong to each step.
        with torch.autocast(image.device.type, DTYPES[case.dtype], enabled=case.dtype != 'float32'):
            outputs = _tensors(model(image))
        sum(out.float().mean() for out in outputs).backward()  # type: ignore[union-attr]
        model.zero_grad(set_to_none=True)

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


def _tensors(outputs: Any) -> Sequence[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _peak_memory(step: Callable[[], Any], case: Case) -> int | None:
    """Bytes in use at most during a step, beyond those before it; None where it cannot be told."""
    if case.form == 'graph':
        return None  # its memory was taken when it was captured
    gc.collect()
    if torch.device(case.device).type == 'cuda':
        torch.cuda.reset_peak_memory_stats(case.device)
        before = torch.cuda.memory_allocated(case.device)
        step()
        sync(case)
        return torch.cuda.max_memory_allocated(case.device) - before
    status, reset = Path('/proc/self/status'), Path('/proc/self/clear_refs')
    if not (status.is_file() and reset.is_file() and hasattr(ctypes.CDLL(None), 'malloc_trim')):
        return None
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps would hide what the step takes
    reset.write_text('5')  # sets the high-water mark back to what is resident now
    before = _status(status, 'VmRSS')
    step()
    return max(_status(status, 'VmHWM') - before, 0)


def _status(path: Path, field: str) -> int:
    lines = path.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f'{field}:'))


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
        size = f'{t.case.height}x{t.case.width}'
        rows.append([
            t.name, t.case.mode, t.case.form, t.case.dtype, str(t.case.batch), size, f'{t.images_per_second:.1f}',
            f'{1e3 * t.median:.2f}', f'{100 * t.spread:.0f} %', peak, f'{t.ratio:.2f}', f'{low:.2f} to {high:.2f}',
        ])  # fmt: skip
    return _HEADERS, rows


def floor_line(model: nn.Module, timing: Timing, machine: Machine) -> str:
    """The share of the roofline that a forward pass of a model reaches, in a sentence."""
    from mmlightvit.analysis.counting import count

    case = timing.case
    rates = f'copy {machine.bytes_per_second / 1e9:.1f} GB/s, matmul {machine.flops_per_second / 1e9:.0f} GFLOP/s'
    if case.mode == 'training':
        return f'{case}: {rates}; the roofline is counted for inference only'
    counted = count(model, (case.height, case.width), DTYPES[case.dtype])
    weights = sum(p.numel() for p in model.parameters()) * DTYPES[case.dtype].itemsize
    per_image = max(counted.bytes - weights, 0)
    floor = machine.floor(case.batch * counted.macs, weights + case.batch * per_image)
    return (
        f'{case}: {counted.macs / 1e9:.3f} G multiply-adds per image, {weights / 1e6:.0f} MB of weights, and '
        f'{per_image / 1e6:.0f} MB that our operators read and write per image; {rates}: '
        f'floor {1e3 * floor:.2f} ms, reached {100 * floor / timing.median:.0f} %'
    )
