# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""bfloat16 where the toolboxes know float16 only.

- mmcv's operators have no bfloat16 kernels: they compute in float32 then.
- mmdet's anchors and RoIs take the type of the maps. bfloat16 has 8 significant bits, so that a coordinate beyond 1024
  pixels would be rounded to a multiple of 8. The maps of anchor heads are handed on in float32; RoI extractors get
  float32 maps, leave the RoIs as they are, and hand bfloat16 on.

float16 and float32 pass through unchanged. Nothing is installed on import.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mmlightvit.durable.patching import patch


def install() -> None:
    """Teach the imported ones of mmcv's operators and mmdet's modules bfloat16. Calling it again changes nothing.

    Raises:
        UnknownVersion: mmcv or mmdet is not of a version that this was written for.
    """
    for package, owner, wrap, signature in _FORWARDS:
        if package in sys.modules:
            patch(owner, 'forward', wrap, signature)


def to_float32(value: Any) -> Any:
    """bfloat16 tensors in ``value``, or in the lists and tuples it consists of, as float32."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype == torch.bfloat16 else value
    if isinstance(value, (list, tuple)):
        return type(value)(to_float32(item) for item in value)
    return value


def _with_float32_inputs(forward: Callable) -> Callable:
    @functools.wraps(forward)
    def wrapped(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        return forward(ctx, *to_float32(args), **kwargs)

    return wrapped


def _through_float32(forward: Callable) -> Callable:
    @functools.wraps(forward)
    def wrapped(self: Any, feats: Sequence[torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        return forward(self, to_float32(feats), *args, **kwargs).to(feats[0].dtype)

    return wrapped


def _with_float32_outputs(forward: Callable) -> Callable:
    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return to_float32(forward(*args, **kwargs))

    return wrapped


_NMS = '(ctx, bboxes, scores, iou_threshold, offset, score_threshold, max_num)'
_SOFT_NMS = '(ctx, boxes, scores, iou_threshold, sigma, min_score, method, offset)'
_FOCAL_LOSS = "(ctx, input, target, gamma=2.0, alpha=0.25, weight=None, reduction='mean')"
_ROIS = '(self, feats, rois, roi_scale_factor=None)'
#: Package that has to be in use, class, and what becomes of its ``forward`` of this signature.
_FORWARDS = (
    ('mmcv.ops', 'mmcv.ops.nms:NMSop', _with_float32_inputs, _NMS),
    ('mmcv.ops', 'mmcv.ops.nms:SoftNMSop', _with_float32_inputs, _SOFT_NMS),
    ('mmcv.ops', 'mmcv.ops.focal_loss:SigmoidFocalLossFunction', _with_float32_inputs, _FOCAL_LOSS),
    ('mmcv.ops', 'mmcv.ops.focal_loss:SoftmaxFocalLossFunction', _with_float32_inputs, _FOCAL_LOSS),
    ('mmdet.models', 'mmdet.models.roi_heads.roi_extractors:SingleRoIExtractor', _through_float32, _ROIS),
    ('mmdet.models', 'mmdet.models.roi_heads.roi_extractors:GenericRoIExtractor', _through_float32, _ROIS),
    ('mmdet.models', 'mmdet.models.dense_heads:AnchorHead', _with_float32_outputs, '(self, x)'),
)
