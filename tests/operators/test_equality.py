# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The operators that stand in for mmcv's against compiled ones, and against loops where those take no CPU tensors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip('mmcv.ops')

from mmcv import ops
from operator_cases import CASES, STORED, boxes, extension, rois, stand_in, values, with_gradients

from mmlightvit import operators

FLOAT32 = dict(rtol=1e-4, atol=1e-6)  # log(1 - p) loses digits where p is near 1, as the compiled one does
IS_COMPILED = operators.describe().startswith('compiled')


@pytest.fixture(scope='module', autouse=True)
def _ours():
    """Ours take the place, also of compiled operators; one thread, so that sums have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with extension(stand_in()):
        yield
    torch.set_num_threads(threads)


def outputs(case) -> list[np.ndarray]:
    return [output.numpy() for output in case(ops)]


def assert_equal(name: str, ours: list[np.ndarray], theirs: list[np.ndarray], on_this_machine: bool) -> None:
    """To the last bit, but for deformable convolution: of that, the output alone, and where one library multiplies."""
    assert [array.dtype for array in ours] == [array.dtype for array in theirs]
    for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        if name.startswith('deform') and (index or not on_this_machine):
            np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize('name', CASES)
def test_a_compiled_build_gave_the_same(name):
    ours = outputs(CASES[name])
    with np.load(STORED) as file:
        theirs = [file[f'{name}/{index}'] for index in range(sum(key.rpartition('/')[0] == name for key in file))]
    assert_equal(name, ours, theirs, on_this_machine=False)


@pytest.mark.skipif(not IS_COMPILED, reason='mmcv has no compiled operators here')
@pytest.mark.parametrize('name', CASES)
def test_the_compiled_operator_beside_it_gives_the_same(name):
    import mmcv._ext

    ours = outputs(CASES[name])
    with extension(mmcv._ext):
        theirs = outputs(CASES[name])
    assert_equal(name, ours, theirs, on_this_machine=True)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_boxes_of_a_short_type_are_suppressed_as_their_float32_values(dtype):
    found, scores = (tensor.to(dtype) for tensor in boxes(200, 1))
    for function in (ops.nms, ops.soft_nms):
        short, wide = function(found, scores, 0.5), function(found.float(), scores.float(), 0.5)
        assert torch.equal(short[1], wide[1])
        assert torch.equal(short[0], wide[0].to(dtype))


@pytest.mark.parametrize('function', ['roi_align', 'deform_conv2d', 'sigmoid_focal_loss'])
def test_bfloat16_is_the_float32_answer_rounded(function):
    inputs = {
        'roi_align': (values(2, 3, 9, 9, seed=1), rois(5, 2, 2, 32), (3, 3), 0.25, 0, 'avg', True),
        'deform_conv2d': (values(2, 4, 6, 6, seed=1), values(2, 18, 6, 6, seed=2), values(5, 4, 3, 3, seed=3), 1, 1),
        'sigmoid_focal_loss': (values(20, 5, seed=1), torch.arange(20) % 5, 2.0, 0.25, None, 'none'),
    }[function]
    floating = [item for item in inputs if isinstance(item, torch.Tensor) and item.is_floating_point()]
    rest = inputs[len(floating) :]
    short = [tensor.bfloat16() for tensor in floating]
    wide = [tensor.float() for tensor in short]
    outputs = [
        with_gradients(lambda first, others=part[1:]: getattr(ops, function)(first, *others, *rest), part[0])
        for part in (short, wide)
    ]
    assert torch.equal(outputs[0][0], outputs[1][0].bfloat16())
    assert outputs[0][1].dtype == torch.bfloat16


def test_of_equal_scores_the_lower_index_comes_first_and_stays():
    found = torch.tensor([[0, 0, 10, 10], [50, 0, 60, 10], [1, 0, 10, 10], [50, 0, 60, 11.0]])
    for offset in (0, 1):
        assert ops.nms(found, torch.full((4,), 0.5), 0.5, offset=offset)[1].tolist() == [0, 1]


def pooled(maps, where, size, scale):
    """RoIPool by loops: the places of a bin from its rounded-down begin to its rounded-up end."""
    output = torch.zeros(len(where), maps.shape[1], *size)
    at = torch.full(output.shape, -1)
    for n, (image, x1, y1, x2, y2) in enumerate(where.tolist()):
        left, top = x1 * scale, y1 * scale
        width, height = (x2 + 1) * scale - left, (y2 + 1) * scale - top
        if width <= 0 or height <= 0:
            continue
        for row, column, channel in np.ndindex(*size, maps.shape[1]):
            best = -math.inf
            for y in range(math.floor(row * height / size[0] + top), math.ceil((row + 1) * height / size[0] + top)):
                for x in range(math.floor(column * width / size[1] + left),
                               math.ceil((column + 1) * width / size[1] + left)):  # fmt: skip
                    if 0 <= y < maps.shape[2] and 0 <= x < maps.shape[3] and maps[int(image), channel, y, x] > best:
                        best = float(maps[int(image), channel, y, x])
                        at[n, channel, row, column] = y * maps.shape[3] + x
            output[n, channel, row, column] = 0 if best == -math.inf else best
    return output, at


def test_roi_pool_by_loops():
    maps = values(2, 3, 8, 9, seed=1).round(decimals=1)  # equal values in a bin: the first counts
    where = rois(8, 2, 2, 32)
    where[-1] = torch.tensor([0, 20, 20, 5, 30])  # its width is negative: nothing is pooled
    output, gradient = with_gradients(ops.roi_pool, maps, rest=(where, (2, 3), 0.25))
    expected, at = pooled(maps, where, (2, 3), 0.25)
    assert torch.equal(output, expected)
    assert (at == -1).any() and (at != -1).any()
    by_loops = torch.zeros_like(maps).flatten(2)
    weights = values(*output.shape, seed=99)
    for n, channel, row, column in np.ndindex(*output.shape):
        if at[n, channel, row, column] >= 0:
            by_loops[int(where[n, 0]), channel, at[n, channel, row, column]] += weights[n, channel, row, column]
    torch.testing.assert_close(gradient.flatten(2), by_loops)


@pytest.mark.parametrize('weighted', [False, True])
def test_focal_losses_are_their_formulas(weighted):
    """Against automatic differentiation in float64; the class behind the last one is the background's."""
    logits, target = 3 * values(40, 5, seed=1), torch.arange(40) % 5
    weight = torch.tensor([0.5, 1, 2, 3, 4.0]) if weighted else None
    if not weighted:
        target[::3] = 5
    exact = logits.double().requires_grad_()
    chosen = torch.nn.functional.one_hot(target, 6)[:, :5].bool()
    p = torch.where(chosen, exact.sigmoid(), 1 - exact.sigmoid())
    alpha = torch.where(chosen, 0.25, 0.75).double()
    loss = -alpha * (1 - p) ** 2 * p.log() * (1 if weight is None else weight[target][:, None])
    loss.mean(1).mul(5).mean().backward()
    output = ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, 'none')
    torch.testing.assert_close(output, loss.detach().float(), **FLOAT32)
    scalar = ops.sigmoid_focal_loss(leaf := logits.clone().requires_grad_(), target, 2.0, 0.25, weight, 'mean')
    scalar.backward()
    torch.testing.assert_close(leaf.grad, exact.grad.float(), **FLOAT32)

    target = torch.arange(40) % 5
    exact = logits.double().requires_grad_()
    p = exact.softmax(1).gather(1, target[:, None])[:, 0]
    loss = -0.25 * (1 - p) ** 2 * p.log() * (1 if weight is None else weight[target])
    loss.sum().backward()
    scalar = ops.softmax_focal_loss(leaf := logits.clone().requires_grad_(), target, 2.0, 0.25, weight, 'sum')
    scalar.backward()
    torch.testing.assert_close(scalar.detach(), loss.sum().detach().float(), **FLOAT32)
    torch.testing.assert_close(leaf.grad, exact.grad.float(), **FLOAT32)


def sampled(image, y, x):
    """Bilinear value of a map ``[C, H, W]``, zero outside."""
    top, left = math.floor(y), math.floor(x)
    value = torch.zeros(len(image), dtype=image.dtype)
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
            value += image[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return value


def test_multi_scale_deformable_attention_by_loops():
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch

    shapes = [(4, 5), (2, 3)]
    value = values(2, 26, 2, 3, seed=1)
    places = torch.tensor(np.random.RandomState(2).rand(2, 4, 2, 2, 3, 2) * 1.4 - 0.2).float()  # some outside
    weights = values(2, 4, 2, 2, 3, seed=3).flatten(3).softmax(-1).view(2, 4, 2, 2, 3)
    rest = (torch.tensor(shapes), torch.tensor([0, 20]))

    def run(value, places, weights):
        return MultiScaleDeformableAttnFunction.apply(value, *rest, places, weights, 64)

    output, *gradients = with_gradients(run, value, places, weights)
    expected = torch.zeros(2, 4, 2, 3)
    for image, query, head, level, point in np.ndindex(*weights.shape):
        height, width = shapes[level]
        start = (0, 20)[level]
        level_map = value[image, start : start + height * width, head].T.reshape(3, height, width)
        x, y = (places[image, query, head, level, point] * torch.tensor([width, height]) - 0.5).tolist()
        expected[image, query, head] += weights[image, query, head, level, point] * sampled(level_map, y, x)
    torch.testing.assert_close(output, expected.flatten(2))
    _, *exact = with_gradients(
        lambda value, places, weights: multi_scale_deformable_attn_pytorch(value, shapes, places, weights),
        *(tensor.double() for tensor in (value, places, weights)),
    )
    for gradient, truth in zip(gradients, exact, strict=True):
        torch.testing.assert_close(gradient, truth.float(), rtol=1e-4, atol=1e-5)
