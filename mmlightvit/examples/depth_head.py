# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A small head for dense regression: one number per pixel, such as depth. An example; see docs/configs.md."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.utils import OptConfigType, SampleList
from torch import Tensor

from mmlightvit.models.arguments import require
from mmlightvit.registry import MODELS


@MODELS.register_module()
class DepthHead(BaseDecodeHead):
    """Two convolutions on one map of the pyramid, and a sigmoid that keeps the result in range.

    Args:
        in_channels: Channels of the map.
        channels: Channels between the two convolutions.
        max_depth: Largest depth, in the unit of the labels, > 0; labels beyond it, and of 0, teach nothing.
        in_index: Which map of the pyramid, the finest being 0.
        loss_decode: Loss of (predicted, true) depths of one shape that leaves out pixels whose truth is 0; mmseg's
            ``SiLogLoss`` by default.

    Shape:
        maps (B, C_i, H_i, W_i) -> (B, 1, H, W) of map ``in_index``, in (0, max_depth)

    Raises:
        ValueError: ``max_depth`` is not positive.
    """

    def __init__(
        self,
        in_channels: int = 256,
        channels: int = 64,
        max_depth: float = 10.0,
        in_index: int = 0,
        loss_decode: OptConfigType = None,
    ) -> None:
        require('max_depth', max_depth, max_depth > 0, 'a positive number')
        super().__init__(
            in_channels, channels, num_classes=1, threshold=0.5, dropout_ratio=0, in_index=in_index,
            loss_decode=loss_decode or dict(type='mmseg.SiLogLoss'),
        )  # fmt: skip
        self.max_depth = max_depth
        self.conv = ConvModule(in_channels, channels, 3, padding=1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.max_depth * self.cls_seg(self.conv(self._transform_inputs(inputs))).sigmoid()

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """The loss at the size of the labels; ``seg_logits`` are the depths of :meth:`forward`."""
        truth = torch.stack([sample.gt_depth_map.data for sample in batch_data_samples])
        depth = F.interpolate(seg_logits, truth.shape[-2:], mode='bilinear', align_corners=False)
        truth = truth.masked_fill(truth > self.max_depth, 0)  # padding too, which mmseg fills with a large number
        return {self.loss_decode.loss_name: self.loss_decode(depth, truth)}
