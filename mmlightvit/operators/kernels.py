# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The operators themselves, with the names and arguments of mmcv's compiled module, which writes into its arguments.

Each equals the compiled operator to the last bit where that takes the type (docs/configs.md says where it does not). A
type that neither takes is computed in float32 and rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor

from mmlightvit.errors import UserError
from mmlightvit.operators import missing_message

_C = torch.ops.torchvision


def get_compiler_version() -> str:
    """What takes the compiler's place in mmcv's report on the environment."""
    return f'torchvision {torchvision.__version__}'


def get_compiling_cuda_version() -> str:
    """The CUDA version of torchvision's kernels, which is PyTorch's."""
    return 'not available' if _C._cuda_version() == -1 else str(torch.version.cuda)


def _wide(*tensors: Tensor) -> list[Tensor]:
    """The tensors in one type, float32 or wider."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]


def _computable(*tensors: Tensor) -> list[Tensor]:
    """The tensors in one type that mmcv's and torchvision's kernels take both: float16, float32 or float64."""
    return list(tensors) if {tensor.dtype for tensor in tensors} == {torch.float16} else _wide(*tensors)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that stay, the best first; of equal scores, the lower index first."""
    boxes, scores = _wide(boxes, scores)
    if offset == 0:
        # mmcv compares in float32: an overlap of exactly 0.6 is not above the threshold 0.6.
        is_double = boxes.dtype == torch.float64
        return _C.nms(boxes, scores, iou_threshold if is_double else float(np.float32(iou_threshold)))
    groups = _greedy_groups(boxes, scores, offset, lambda overlap: overlap > overlap.new_tensor(iou_threshold))
    return torch.tensor([group[0] for group in groups], dtype=torch.long, device=boxes.device)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """The boxes that stay, each with those it suppresses behind it."""
    boxes, scores = _wide(dets[:, :4], dets[:, 4])
    return _greedy_groups(boxes, scores, 0, lambda overlap: overlap >= overlap.new_tensor(iou_threshold))


def _greedy_groups(
    boxes: Tensor, scores: Tensor, offset: int, suppressed: Callable[[Tensor], Tensor]
) -> list[list[int]]:
    """Greedy suppression in the order of operations of mmcv's loops, each box against all that are left at once."""
    x1, y1, x2, y2 = boxes.cpu().unbind(1)
    areas = (x2 - x1 + offset) * (y2 - y1 + offset)
    order = scores.cpu().sort(descending=True, stable=True).indices
    groups = []
    while len(order):
        best, rest = order[0], order[1:]
        width = (torch.minimum(x2[best], x2[rest]) - torch.maximum(x1[best], x1[rest]) + offset).clamp(min=0)
        height = (torch.minimum(y2[best], y2[rest]) - torch.maximum(y1[best], y1[rest]) + offset).clamp(min=0)
        inter = width * height
        drop = suppressed(inter / (areas[best] + areas[rest] - inter))
        groups.append([int(best), *rest[drop].tolist()])
        order = rest[~drop]
    return groups


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, method: int, offset: int, **limits: float) -> Tensor:
    """Indices of the boxes that stay, whose boxes and lowered scores go into ``dets``; on the CPU, as mmcv's."""
    boxes, scores = _wide(boxes, scores)
    x1, y1, x2, y2 = (column.numpy() for column in boxes.unbind(1))
    areas = (x2 - x1 + offset) * (y2 - y1 + offset)
    score = scores.numpy().copy()
    index = np.arange(len(score))
    threshold, sigma, min_score = map(score.dtype.type, _by_name(limits, ('iou_threshold', 'sigma', 'min_score')))
    i, count = 0, len(score)
    while i < count:
        best = i + int(score[i:count].argmax())
        for array in (score, index):
            array[[i, best]] = array[[best, i]]
        top, rest = index[i], index[i + 1 : count]
        width = np.maximum(np.minimum(x2[top], x2[rest]) - np.maximum(x1[top], x1[rest]) + offset, 0)
        height = np.maximum(np.minimum(y2[top], y2[rest]) - np.maximum(y1[top], y1[rest]) + offset, 0)
        inter = width * height
        with np.errstate(invalid='ignore', divide='ignore'):  # boxes without an area
            overlap = inter / (areas[top] + areas[rest] - inter)
        if method == 2:  # in float64, so that the exponential is rounded once, as the C library's
            weight = np.exp((-(overlap * overlap) / sigma).astype(np.float64)).astype(score.dtype)
        else:
            lowered = 1 - overlap if method == 1 else np.zeros_like(overlap)
            weight = np.where(overlap >= threshold, lowered, 1).astype(score.dtype)
        score[i + 1 : count] *= weight
        # mmcv puts the last box into the place of one that it discards, which decides between equal scores later.
        stays = ~(score[i + 1 : count] < min_score)
        number = int(stays.sum())
        moved = np.arange(number)
        moved[~stays[:number]] = number + np.flatnonzero(stays[number:])[::-1]
        for array in (score, index):
            array[i + 1 : i + 1 + number] = array[i + 1 : count][moved]
        i, count = i + 1, i + 1 + number
    kept = torch.from_numpy(index[:count].copy())
    dets[:count, :4] = boxes[kept].to(dets.dtype)
    dets[:count, 4] = torch.from_numpy(score[:count]).to(dets.dtype)
    return kept


def bbox_overlaps(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Overlaps of boxes on a GPU, by the form that mmcv has for the CPU."""
    from mmcv.ops.bbox import _bbox_overlaps_cpu

    boxes1, boxes2 = _wide(boxes1, boxes2)
    ious.copy_(_bbox_overlaps_cpu(boxes1, boxes2, ('iou', 'iof')[mode], aligned, offset))


_ROI_ALIGN = ('spatial_scale', 'aligned_height', 'aligned_width', 'sampling_ratio', 'aligned')
_ROI_POOL = ('spatial_scale', 'pooled_height', 'pooled_width')
#: The settings of a deformable convolution in torchvision's order, by the names of mmcv's two versions.
_DEFORM = ('dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW', 'group', 'deformable_group')
_MODULATED = ('stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w', 'group', 'deformable_group')
_PSA_MASK = ('h_feature', 'w_feature', 'h_mask', 'w_mask', 'half_h_mask', 'half_w_mask')


def _by_name(settings: dict[str, Any], names: Sequence[str]) -> list[Any]:
    return [settings[name] for name in names]


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, **settings: Any
) -> None:
    """RoIAlign by averages."""
    if settings['pool_mode'] == 0:
        raise UserError(missing_message("roi_align with pool_mode='max'"))
    scale, height, width, ratio, aligned = _by_name(settings, _ROI_ALIGN)
    maps, rois = _computable(input, rois)
    output.copy_(_C.roi_align(maps, rois, scale, height, width, ratio, aligned))


def roi_align_backward(*tensors: Tensor, **settings: Any) -> None:
    """The gradient of RoIAlign by averages."""
    grad_output, rois, _, _, grad_input = tensors
    scale, height, width, ratio, aligned = _by_name(settings, _ROI_ALIGN)
    grad, rois = _computable(grad_output, rois)
    grad_input.copy_(_C._roi_align_backward(grad, rois, scale, height, width, *grad_input.shape, ratio, aligned))


def roi_pool_forward(input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, **settings: Any) -> None:
    """RoIPool as mmcv defines it, which does not round the RoI as torchvision's does."""
    height, width = input.shape[2:]
    spatial_scale, pooled_height, pooled_width = _by_name(settings, _ROI_POOL)
    maps, rois = _wide(input, rois)
    for number, (image, x1, y1, x2, y2) in enumerate(rois.unbind(0)):
        start_x, start_y = x1 * spatial_scale, y1 * spatial_scale
        size_x, size_y = (x2 + 1) * spatial_scale - start_x, (y2 + 1) * spatial_scale - start_y
        argmax[number] = -1
        if size_x <= 0 or size_y <= 0:
            continue
        in_column = _bins(start_x, size_x, pooled_width, width)[None, None]
        in_row = _bins(start_y, size_y, pooled_height, height)[None, :, None]
        # The first greatest value of each row in each column of bins, then the first greatest of these rows.
        values = maps[int(image)][:, :, None]
        by_row = values.masked_fill(~in_column, -torch.inf).max(3)
        pooled = by_row.values.transpose(1, 2)[:, None].masked_fill(~in_row, -torch.inf).max(3)
        columns = by_row.indices.transpose(1, 2)[:, None].expand(-1, pooled_height, -1, -1)
        at = pooled.indices * width + columns.gather(3, pooled.indices[..., None])[..., 0]
        empty = ~(in_row.any(-1) & in_column.any(-1)[0])
        output[number] = pooled.values.masked_fill(empty, 0)
        argmax[number] = at.masked_fill(empty, -1)


def _bins(start: Tensor, size: Tensor, number: int, length: int) -> Tensor:
    """Which of ``length`` places belong to each of the bins, which may overlap, as booleans."""
    edges = torch.arange(number + 1, device=start.device, dtype=start.dtype) * (size / number) + start
    place = torch.arange(length, device=start.device)
    return (place >= edges[:-1, None].floor()) & (place < edges[1:, None].ceil())


def roi_pool_backward(grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, **settings: Any) -> None:
    """The gradient of RoIPool goes to the places the maxima came from."""
    grad, rois = _wide(grad_output.contiguous(), rois)
    grad_input.copy_(_C._roi_pool_backward(grad, rois, argmax, *_by_name(settings, _ROI_POOL), *grad_input.shape))


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """The focal loss of each row and class."""
    p, is_target = _sigmoid(input, target)
    positive = -alpha * ((1 - p) ** gamma * _log(p))
    negative = -(1 - alpha) * (p**gamma * _log(1 - p))
    output.copy_(_weighted(torch.where(is_target, positive, negative), target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Its gradient."""
    p, is_target = _sigmoid(input, target)
    positive = -alpha * ((1 - p) ** gamma * (1 - p - gamma * p * _log(p)))
    negative = -(1 - alpha) * (p**gamma * (gamma * (1 - p) * _log(1 - p) - p))
    grad_input.copy_(_weighted(torch.where(is_target, positive, negative), target, weight))


def _sigmoid(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    classes = torch.arange(input.shape[1], device=input.device)
    return 1 / (1 + torch.exp(-_wide(input)[0])), target[:, None] == classes


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=torch.finfo(torch.float32).tiny).log()


def _weighted(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Values by row, times the weight of the row's class if there are weights."""
    if not weight.numel():
        return values
    return values * weight[target].reshape(-1, *[1] * (values.dim() - 1))


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """The focal loss of each row; ``input`` has the probabilities. A negative class is ignored."""
    p = _of_target(input, target)
    loss = _weighted(-alpha * (1 - p) ** gamma * _log(p), target.clamp(min=0), weight)
    output.copy_(loss.masked_fill(target < 0, 0))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Its gradient by the logits; ``buff`` takes the factor of each row."""
    p = _of_target(input, target)
    slope = alpha * (-((1 - p) ** gamma) + gamma * (1 - p) ** (gamma - 1) * p * _log(p))
    slope = _weighted(slope, target.clamp(min=0), weight).masked_fill(target < 0, 0)
    buff.copy_(slope)
    classes = torch.arange(input.shape[1], device=input.device)
    grad_input.copy_(slope[:, None] * ((target[:, None] == classes).to(slope) - _wide(input)[0]))


def _of_target(probabilities: Tensor, target: Tensor) -> Tensor:
    return _wide(probabilities)[0].gather(1, target.clamp(min=0)[:, None])[:, 0]


def modulated_deform_conv_forward(*tensors: Tensor, **settings: Any) -> None:
    """Deformable convolution, version 2, one image at a time as mmcv's: the sums are in the same order."""
    input, weight, bias, _, offset, mask, output, _ = tensors
    bias = bias if settings['with_bias'] else weight.new_zeros(len(weight))
    output.copy_(_convolved(1, weight, bias, input, offset, mask, _by_name(settings, _MODULATED)))


def modulated_deform_conv_backward(*tensors: Tensor, **settings: Any) -> None:
    """Its gradients."""
    input, weight, _, _, offset, mask, _, *outputs, grad_output = tensors
    gradients = _gradients(1, weight, grad_output, input, offset, mask, _by_name(settings, _MODULATED))
    by_input, by_weight, by_offset, by_mask, by_bias = gradients
    for out, gradient in zip(outputs, (by_input, by_weight, by_bias, by_offset, by_mask)):
        if gradient is not by_bias or settings['with_bias']:
            out.copy_(gradient)


def deform_conv_forward(*tensors: Tensor, **settings: Any) -> None:
    """Deformable convolution, version 1."""
    input, weight, offset, output, _, _ = tensors
    bias, step = weight.new_zeros(len(weight)), settings['im2col_step']
    output.copy_(_convolved(step, weight, bias, input, offset, None, _by_name(settings, _DEFORM)))


def deform_conv_backward_input(*tensors: Tensor, **settings: Any) -> None:
    """Its gradients by input and offset."""
    input, offset, grad_output, grad_input, grad_offset, weight, _ = tensors
    step = settings['im2col_step']
    gradients = _gradients(step, weight, grad_output, input, offset, None, _by_name(settings, _DEFORM))
    grad_input.copy_(gradients[0])
    grad_offset.copy_(gradients[2])


def deform_conv_backward_parameters(*tensors: Tensor, **settings: Any) -> None:
    """Its gradient by the weight, which depends on the weight's shape alone; torchvision computes all, so all again."""
    input, offset, grad_output, grad_weight, _, _ = tensors
    step = settings['im2col_step']
    gradients = _gradients(step, grad_weight, grad_output, input, offset, None, _by_name(settings, _DEFORM))
    grad_weight.add_(gradients[1], alpha=settings['scale'])


def _convolved(
    step: int, weight: Tensor, bias: Tensor, input: Tensor, offset: Tensor, mask: Tensor | None, settings: list[int]
) -> Tensor:
    """The output of a deformable convolution, of which ``step`` images go into one matrix product."""
    weight, bias, *tensors = _computable(weight, bias, input, offset, _mask(mask, input))
    parts = zip(*(tensor.split(step) for tensor in tensors))
    use_mask = mask is not None
    return torch.cat([_C.deform_conv2d(part[0], weight, *part[1:], bias, *settings, use_mask) for part in parts])


def _gradients(
    step: int, weight: Tensor, grad: Tensor, input: Tensor, offset: Tensor, mask: Tensor | None, settings: list[int]
) -> list[Tensor]:
    """Gradients by input, weight, offset, mask and bias."""
    weight, *tensors = _computable(weight, grad, input, offset, _mask(mask, input))
    bias, use_mask = weight.new_zeros(len(weight)), mask is not None
    parts = [
        _C._deform_conv2d_backward(*part[:2], weight, *part[2:], bias, *settings, use_mask)
        for part in zip(*(tensor.split(step) for tensor in tensors))
    ]
    by_input, by_weight, by_offset, by_mask, by_bias = zip(*parts)
    return [torch.cat(by_input), sum(by_weight), torch.cat(by_offset), torch.cat(by_mask), sum(by_bias)]


def _mask(mask: Tensor | None, input: Tensor) -> Tensor:
    return input.new_zeros(len(input), 1) if mask is None else mask


def ms_deform_attn_forward(value: Tensor, shapes: Tensor, *tensors: Tensor, im2col_step: int) -> Tensor:
    """Multi-scale deformable attention, by the form that mmcv has for the CPU."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    _, sampling_locations, attention_weights = tensors  # the first says where each level starts
    value_, *rest = _wide(value, sampling_locations, attention_weights)
    return multi_scale_deformable_attn_pytorch(value_, shapes.tolist(), *rest).to(value.dtype)


def ms_deform_attn_backward(value: Tensor, shapes: Tensor, starts: Tensor, *tensors: Tensor, im2col_step: int) -> None:
    """Its gradients; the forward pass is computed again."""
    sampling_locations, attention_weights, grad_output, *outputs = tensors
    inputs = [tensor.detach().requires_grad_() for tensor in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = ms_deform_attn_forward(inputs[0], shapes, starts, *inputs[1:], im2col_step=im2col_step)
    for out, gradient in zip(outputs, torch.autograd.grad(output, inputs, grad_output)):
        out.copy_(gradient)


def psamask_forward(input: Tensor, output: Tensor, psa_type: int, **sizes: int) -> None:
    """Point-wise spatial attention: the masks of all places, laid over the map."""
    for of_mask, of_map in _overlaps(input, output, psa_type, _by_name(sizes, _PSA_MASK)):
        of_map.copy_(of_mask)


def psamask_backward(grad_output: Tensor, grad_input: Tensor, psa_type: int, **sizes: int) -> None:
    """Its gradient."""
    for of_mask, of_map in _overlaps(grad_input, grad_output, psa_type, _by_name(sizes, _PSA_MASK)):
        of_mask.copy_(of_map)


def _overlaps(masks: Tensor, maps: Tensor, psa_type: int, sizes: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """For each place, views of its mask's part that lies on the map and of the map's part under it."""
    height, width, mask_height, mask_width, half_height, half_width = sizes
    masks = masks.view(len(masks), mask_height, mask_width, height, width)
    maps = maps.view(len(maps), height, width, height, width)
    for y in range(height):
        for x in range(width):
            top, left = y - half_height, x - half_width  # of the mask, on the map
            rows = slice(max(top, 0), min(top + mask_height, height))
            columns = slice(max(left, 0), min(left + mask_width, width))
            of_map = maps[:, y, x, rows, columns] if psa_type == 1 else maps[:, rows, columns, y, x]
            in_mask = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
            yield masks[:, in_mask[0], in_mask[1], y, x], of_map


#: The names of mmcv's compiled module that are here.
OPERATORS = tuple(
    name
    for name, value in vars().items()
    if callable(value) and getattr(value, '__module__', None) == __name__ and not name.startswith('_')
)
