# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""bfloat16 where the toolboxes know float16 only.

- mmcv's operators have no bfloat16 kernels: they compute in float32 then.
- mmdet's anchors and RoIs take the type of the maps. bfloat16 has 8 significant bits, so that a coordinate beyond 1024
  pixels would be rounded to a multiple of 8. The maps of anchor heads are handed on in float32; RoI extractors get
  float32 maps, leave the RoIs as they are, and hand bfloat16 on.

float16 and float32 pass through unchanged.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

_MMCV_FUNCTIONS = {
    'mmcv.ops.nms': ('NMSop', 'SoftNMSop'),
    'mmcv.ops.focal_loss': ('SigmoidFocalLossFunction', 'SoftmaxFocalLossFunction'),
}
_ROI_EXTRACTORS = ('SingleRoIExtractor', 'GenericRoIExtractor')
_DONE = 'takes_bfloat16'


def complete_bfloat16() -> None:
    """Complete what is imported of mmcv and mmdet; calling it again changes nothing."""
    for module, names in _MMCV_FUNCTIONS.items():
        for name in names:
            function = getattr(sys.modules.get(module), name, None)
            if function is not None and not hasattr(function.forward, _DONE):
                function.forward = staticmethod(_with_float32_inputs(function.forward))
    for name in _ROI_EXTRACTORS:
        extractor = getattr(sys.modules.get('mmdet.models.roi_heads.roi_extractors'), name, None)
        if extractor is not None and not hasattr(extractor.forward, _DONE):
            extractor.forward = _through_float32(extractor.forward)
    anchor_head = getattr(sys.modules.get('mmdet.models.dense_heads'), 'AnchorHead', None)
    if anchor_head is not None and not hasattr(anchor_head.forward, _DONE):
        anchor_head.forward = _with_float32_outputs(anchor_head.forward)


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

    setattr(wrapped, _DONE, True)
    return wrapped


def _through_float32(forward: Callable) -> Callable:
    @functools.wraps(forward)
    def wrapped(self: Any, feats: Sequence[torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        return forward(self, to_float32(feats), *args, **kwargs).to(feats[0].dtype)

    setattr(wrapped, _DONE, True)
    return wrapped


def _with_float32_outputs(forward: Callable) -> Callable:
    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return to_float32(forward(*args, **kwargs))

    setattr(wrapped, _DONE, True)
    return wrapped
