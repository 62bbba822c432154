# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Models that run on shapes alone: on torch's ``meta`` device, without weights, data or proposals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmlightvit.errors import UserError

#: RoIs that the box head and the mask head see: the number that Mask R-CNN keeps at test time (paper Table 4).
NUM_BOX_ROIS = 1000
NUM_MASK_ROIS = 100


def blank_image(model: nn.Module, height: int, width: int) -> Tensor:
    """An image without values, (1, channels, height, width), in the type of the model's weights."""
    # A stem that rearranges pixels before its first convolution gives it more channels than the image has.
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    channels = first.in_channels if first is not None and first.in_channels in (1, 3, 4) else 3
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    return torch.empty(1, channels, height, width, dtype=dtype, device='meta')


class Run(nn.Module):
    """A model up to the outputs of its heads, as a module.

    A two-stage detector's heads see :data:`NUM_BOX_ROIS` and :data:`NUM_MASK_ROIS` regions.

    Args:
        model: On the meta device.
        task: ``'classifier'``, ``'detector'``, ``'segmenter'`` or ``'backbone'``.

    Shape:
        (1, channels, height, width) -> None
    """

    def __init__(self, model: nn.Module, task: str) -> None:
        super().__init__()
        self.model: Any = model
        self.task = task

    def forward(self, image: Tensor) -> None:
        if self.task == 'backbone':
            self.model(image)
        elif getattr(self.model, 'roi_head', None) is None:
            self.model(image, _data_samples(image) if self.task == 'detector' else None, mode='tensor')
        else:
            features = self.model.extract_feat(image)
            for name in ('rpn_head', 'semantic_head'):
                if getattr(self.model, name, None) is not None:
                    getattr(self.model, name)(features)
            _run_roi_head(self.model.roi_head)


def _run_roi_head(roi_head: Any) -> None:
    """Run each box head and each mask head on fixed regions."""

    def stages(name: str) -> list[Any]:
        module = getattr(roi_head, name, None)
        return list(module) if isinstance(module, nn.ModuleList) else [module] if module is not None else []

    box_extractors = stages('bbox_roi_extractor')
    mask_extractors = stages('mask_roi_extractor') or box_extractors
    boxes, masks = stages('bbox_head'), stages('mask_head')
    if not boxes or len(boxes) != len(box_extractors) or (masks and len(masks) != len(mask_extractors)):
        raise UserError(
            f'roi_head: expected box heads with one RoI extractor each, got {type(roi_head).__name__} with '
            f'{len(boxes)} box heads and {len(box_extractors)} extractors'
        )
    shared = getattr(roi_head, 'shared_head', None)
    for heads, extractors, regions in ((boxes, box_extractors, NUM_BOX_ROIS), (masks, mask_extractors, NUM_MASK_ROIS)):
        for head, extractor in zip(heads, extractors):
            size = extractor.roi_layers[0].output_size
            x = next(head.parameters()).new_empty((regions, extractor.out_channels, *size))
            head(x if shared is None else shared(x))


def _data_samples(image: Tensor) -> list[Any]:
    from mmdet.structures import DetDataSample

    size = tuple(image.shape[-2:])
    meta = dict(img_shape=size, ori_shape=size, batch_input_shape=size, pad_shape=size, scale_factor=(1.0, 1.0))
    return [DetDataSample(metainfo=meta)]
