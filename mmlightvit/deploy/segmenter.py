# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""mmseg's segmenters so that they can be traced for every picture size.

Two of mmseg's layers do their arithmetic on sizes in a way that a trace freezes to the example's, without a word: the
upsampling between the levels of a head, and the adaptive pooling of a pooling pyramid. Each is exchanged for one that
computes the same from sizes that stay open.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models import EncoderDecoder, FCNHead, FPNHead, UPerHead
from mmseg.models.utils import Upsample
from torch import Tensor, nn

from mmlightvit.errors import UserError


class Segmenter(nn.Module):
    """An mmseg segmenter.

    Shape:
        image (1, 3, height, width) -> logits (1, classes, h, w), at the size at which the head decides.

    Raises:
        UserError: A part of it is none that has been compared with mmseg.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        head = model.decode_head
        known = (FPNHead, UPerHead, FCNHead)
        if type(model) is not EncoderDecoder or type(head) not in known:
            raise UserError(
                f'a {type(model).__name__} with a {type(head).__name__} cannot be exported end to end: only '
                f'{", ".join(kind.__name__ for kind in known)} have been compared with mmseg; --cut features leaves '
                'the head out'
            )
        if model.test_cfg.get('mode', 'whole') != 'whole' or head.align_corners or head.out_channels == 1:
            raise UserError('sliding windows, align_corners, or one class alone cannot be exported')
        self.backbone, self.neck = model.backbone, model.neck if model.with_neck else nn.Identity()
        self.head = with_open_sizes(head)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.neck(self.backbone(image)))


class OpenUpsample(nn.Module):
    """mmseg's ``Upsample`` by a whole factor."""

    def __init__(self, layer: Upsample) -> None:
        super().__init__()
        if layer.size or layer.scale_factor != int(layer.scale_factor):
            raise UserError(f'upsampling by {layer.scale_factor} cannot be exported, only by whole factors')
        self.factor, self.mode, self.align_corners = int(layer.scale_factor), layer.mode, layer.align_corners

    def forward(self, x: Tensor) -> Tensor:
        size = [length * self.factor for length in x.shape[-2:]]
        return F.interpolate(x, size, mode=self.mode, align_corners=self.align_corners)


class OpenAdaptivePool(nn.Module):
    """``AdaptiveAvgPool2d`` as a product with the shares of each row and one with those of each column."""

    def __init__(self, layer: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        size: Any = layer.output_size
        self.size = size if isinstance(size, tuple) else (size, size)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (_shares(length, bins) for length, bins in zip(x.shape[-2:], self.size))
        return rows @ x @ columns.t()


def _shares(length: int, bins: int) -> Tensor:
    """The share of each cell in each bin, (bins, length); bin i covers floor(i n / b) to ceil((i + 1) n / b)."""
    first = torch.arange(bins)[:, None] * length
    last = first + length + bins - 1
    cell = torch.arange(length)[None]
    first, last = (torch.div(bound, bins, rounding_mode='trunc') for bound in (first, last))
    inside = ((cell >= first) & (cell < last)).float()
    return inside / inside.sum(dim=1, keepdim=True)


def with_open_sizes(head: nn.Module) -> nn.Module:
    """A copy of a head in which no size is frozen by a trace."""
    head = copy.deepcopy(head)
    for parent in list(head.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Upsample):
                setattr(parent, name, OpenUpsample(child))
            elif isinstance(child, nn.AdaptiveAvgPool2d):
                setattr(parent, name, OpenAdaptivePool(child))
    return head
