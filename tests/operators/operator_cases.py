# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""mmcv's operators on small inputs, the odd ones too: what compiled operators and ours have to agree on.

``compiled_outputs.npz`` holds what the compiled build gives, written by tools/maintenance/operator_outputs.py.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

STORED = Path(__file__).with_name('compiled_outputs.npz')
Outputs = list[Tensor]


def stand_in() -> ModuleType:
    """The module that stands in for mmcv's compiled one, whether that is there or not."""
    from mmlightvit.operators import EXTENSION, StandIn

    module = ModuleType(EXTENSION)
    StandIn().exec_module(module)
    return module


@contextlib.contextmanager
def extension(module: ModuleType) -> Iterator[None]:
    """All functions of mmcv.ops call the module's operators."""
    import mmcv.ops  # noqa: F401

    holders = [
        held for name, held in sys.modules.items() if name.startswith('mmcv.ops.') and 'ext_module' in vars(held)
    ]
    before = [held.ext_module for held in holders]
    for held in holders:
        held.ext_module = module
    try:
        yield
    finally:
        for held, old in zip(holders, before):
            held.ext_module = old


def boxes(number: int, seed: int, span: float = 100, whole: bool = False) -> tuple[Tensor, Tensor]:
    """Overlapping boxes, and scores that are all different."""
    random = np.random.RandomState(seed)
    corner, size = random.rand(number, 2) * span, random.rand(number, 2) * span / 3 + 1
    found = np.concatenate([corner, corner + size], 1)
    scores = random.permutation(number) / max(number, 1) + 0.001
    return torch.tensor(np.round(found) if whole else found).float(), torch.tensor(scores).float()


def values(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normally distributed numbers."""
    return torch.tensor(np.random.RandomState(seed).standard_normal(shape)).to(dtype)


def with_gradients(function: Callable[..., Tensor], *inputs: Tensor, rest: tuple = ()) -> Outputs:
    """The output of a function, and the gradients by its inputs of the output times fixed numbers."""
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    output = function(*inputs, *rest)
    output.backward(values(*output.shape, seed=99, dtype=output.dtype))
    return [output.detach(), *(tensor.grad for tensor in inputs)]


def rois(number: int, seed: int, batch: int, size: float) -> Tensor:
    """RoIs of several images, some of them partly or wholly outside of a map of this size."""
    found = boxes(number, seed, span=1.5 * size)[0] - size / 4
    return torch.cat([(torch.arange(number) % batch).float()[:, None], found], 1)


def nms(number: int, seed: int, threshold: float = 0.5, **options: Any) -> Callable[[Any], Outputs]:
    """Suppression: boxes with scores, and indices."""
    whole = options.pop('whole', False)
    return lambda ops: list(ops.nms(*boxes(number, seed, whole=whole), threshold, **options))


def tied(ops: Any) -> Outputs:
    """Of ties the order differs, so the indices are sorted; boxes of one score do not overlap here."""
    grid = torch.arange(12.0) * 10
    found = torch.cat([torch.stack([grid, grid, grid + 8, grid + 8], 1)] * 2)
    scores = torch.cat([torch.full((12,), 0.5), torch.full((12,), 0.25)])
    return [ops.nms(found, scores, 0.5)[1].sort().values]


def exactly(ops: Any) -> Outputs:
    """Overlaps of exactly the threshold, which float32 rounds up (0.6) or down (0.7), do not suppress."""
    pairs = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 6], [50, 0, 60, 10], [50, 0, 60, 7.0]])
    return [ops.nms(pairs, torch.tensor([0.9, 0.8, 0.7, 0.6]), threshold)[1] for threshold in (0.6, 0.7)]


def batched(ops: Any) -> Outputs:
    """By class, and with the limits of a detector's configuration."""
    found, scores = boxes(150, 5)
    classes = torch.arange(150) % 4
    config = dict(type='nms', iou_threshold=0.6, score_threshold=0.1, max_num=60)
    soft = dict(type='soft_nms', iou_threshold=0.3, min_score=0.05)
    return [*ops.batched_nms(found, scores, classes, config), *ops.batched_nms(found, scores, classes, soft)]


def soft(method: str, number: int = 120, **options: Any) -> Callable[[Any], Outputs]:
    """Soft suppression."""
    return lambda ops: list(ops.soft_nms(*boxes(number, 6), 0.3, sigma=0.5, method=method, **options))


def match(ops: Any) -> Outputs:
    """Groups of boxes that suppress each other."""
    return list(ops.nms_match(torch.cat([boxes(80, 7)[0], boxes(80, 7)[1][:, None]], 1), 0.4))


def align(
    ratio: int, aligned: bool, number: int = 9, dtype: torch.dtype = torch.float32, scale: float = 0.25
) -> Callable[[Any], Outputs]:
    """RoIAlign of two images."""

    def run(ops: Any) -> Outputs:
        maps, where = values(2, 3, 11, 13, seed=1, dtype=dtype), rois(number, 2, 2, 12 / scale).to(dtype)
        settings = (where, (3, 4), scale, ratio, 'avg', aligned)
        return with_gradients(ops.roi_align, maps, rest=settings)

    return run


def levels(ops: Any) -> Outputs:
    """RoIs of an image on the maps of a pyramid, as a detector's extractor takes them."""
    where = rois(12, 3, 1, 64)
    outputs = []
    for stride, side in ((4, 16), (8, 8), (16, 4), (32, 2)):
        maps = values(1, 2, side, side, seed=stride)
        outputs += with_gradients(ops.roi_align, maps, rest=(where, (7, 7), 1 / stride, 0, 'avg', True))
    return outputs


def deform(version: int, batch: int = 3, dtype: torch.dtype = torch.float32, **sizes: int) -> Callable[[Any], Outputs]:
    """Deformable convolution, with offsets that leave the map."""
    groups, parts = sizes.get('groups', 1), sizes.get('parts', 1)
    stride, dilation = sizes.get('stride', 1), sizes.get('dilation', 1)

    def run(ops: Any) -> Outputs:
        image = values(batch, 4, 7, 6, seed=1, dtype=dtype)
        weight = values(6, 4 // groups, 3, 3, seed=2, dtype=dtype)
        height, width = ((side + 2 - 2 * dilation - 1) // stride + 1 for side in (7, 6))
        offset = 2 * values(batch, 18 * parts, height, width, seed=3, dtype=dtype)
        rest = (stride, 1, dilation, groups, parts)
        if version == 1:
            return with_gradients(ops.deform_conv2d, image, offset, weight, rest=rest)
        mask = values(batch, 9 * parts, height, width, seed=4, dtype=dtype).sigmoid()
        bias = values(6, seed=5, dtype=dtype)
        function = ops.modulated_deform_conv2d
        if sizes.get('biased', 1):
            return with_gradients(function, image, offset, mask, weight, bias, rest=rest)
        return with_gradients(lambda *inputs: function(*inputs, None, *rest), image, offset, mask, weight)

    return run


def attention(kind: str) -> Callable[[Any], Outputs]:
    """The masks of point-wise spatial attention, larger and smaller than the map."""
    return lambda ops: [
        part
        for size, seed in (((3, 5), 1), ((9, 7), 2))
        for part in with_gradients(ops.PSAMask(kind, size), values(2, size[0] * size[1], 5, 4, seed=seed))
    ]


HALF, DOUBLE = torch.float16, torch.float64
#: What the compiled operators take on a CPU. Those that end in a product of matrices are the library's to round.
CASES: dict[str, Callable[[Any], Outputs]] = {
    **{f'nms-{offset}': nms(200, 1, offset=offset) for offset in (0, 1)},
    **{f'nms-whole-{offset}': nms(200, 2, 0.3, offset=offset, whole=True) for offset in (0, 1)},
    **{f'nms-of-{number}': nms(number, 3) for number in (0, 1, 2)},
    'nms-limits': nms(100, 4, score_threshold=0.3, max_num=20),
    'nms-ties': tied,
    'nms-exactly': exactly,
    'nms-batched': batched,
    'nms-match': match,
    **{f'soft-{method}': soft(method) for method in ('naive', 'linear', 'gaussian')},
    'soft-offset': soft('linear', offset=1, min_score=0.2),
    **{f'soft-of-{number}': soft('linear', number) for number in (0, 1)},
    **{f'align-{ratio}-{aligned}': align(ratio, aligned) for ratio in range(4) for aligned in (True, False)},
    **{f'align-of-{number}': align(2, True, number) for number in (0, 1)},
    'align-whole': align(0, True, scale=1.0),
    'align-float64': align(0, True, dtype=DOUBLE),
    'align-float16': align(2, True, dtype=HALF),
    'align-levels': levels,
    **{f'mask-{kind}': attention(kind) for kind in ('collect', 'distribute')},
    **{f'deform-{version}': deform(version) for version in (1, 2)},
    **{f'deform-{version}-parts': deform(version, groups=2, parts=2, stride=2) for version in (1, 2)},
    **{f'deform-{version}-float64': deform(version, dtype=DOUBLE, dilation=2) for version in (1, 2)},
    'deform-2-unbiased': deform(2, batch=1, biased=0),
}


def deformable_attention(ops: Any) -> Outputs:
    """Multi-scale deformable attention, at places outside of the maps too."""
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    sizes, starts = torch.tensor([[4, 5], [2, 3]]), torch.tensor([0, 20])
    places = values(2, 4, 2, 2, 3, 2, seed=2).sigmoid() * 1.4 - 0.2
    weights = values(2, 4, 2, 2, 3, seed=3).flatten(3).softmax(-1).view(2, 4, 2, 2, 3)
    return with_gradients(
        lambda value, *rest: MultiScaleDeformableAttnFunction.apply(value, sizes, starts, *rest, 64),
        *(values(2, 26, 2, 3, seed=1), places, weights),
    )


def focal(name: str) -> Callable[[Any], Outputs]:
    """A focal loss of ten classes."""
    rest = (2.0, 0.25, None, 'sum')
    return lambda ops: with_gradients(
        lambda logits: getattr(ops, name)(logits, torch.arange(40) % 10, *rest), values(40, 10, seed=1)
    )


#: What the compiled operators take on a GPU alone.
WITHOUT_A_CPU_FORM: dict[str, Callable[[Any], Outputs]] = {
    'pool': lambda ops: with_gradients(ops.roi_pool, values(2, 3, 8, 9, seed=1), rest=(rois(8, 2, 2, 32), 3, 0.25)),
    'attention': deformable_attention,
    **{f'focal-{kind}': focal(f'{kind}_focal_loss') for kind in ('sigmoid', 'softmax')},
}
