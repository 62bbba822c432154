# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The stem: image to token grid."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmlightvit.models.arguments import require
from mmlightvit.models.layers.windows import missing


class PatchEmbed(nn.Module):
    """Patch embedding, overlapping (the stem of LightViT) or not (its ablation).

    Overlapping: four 3x3 convolutions at half the width, each followed by BatchNorm and GELU (the first dense, the
    others depthwise), then a dense 3x3 convolution to the full width. Every convolution pads by 1, so any image
    size works: the grid is ceil(height / stride) x ceil(width / stride).
    Not overlapping: one convolution whose kernel is its stride; the image is zero-padded to whole patches.

    Args:
        in_channels: Channels of the image.
        embed_dims: Channels C of the tokens; even.
        stride: Pixels per token side: 8, or 4 for the ablation with four stages.
        overlapping: Whether patches overlap.

    Shape:
        (B, in_channels, height, width) -> (B, H, W, C)

    Raises:
        ValueError: ``stride`` is neither 4 nor 8, or ``embed_dims`` is odd.

    Source: paper section 4.1 "Overlapping patch embedding" and Figure 3.
    Departs: section 4.1 does not give the layers without overlap nor the strides with four stages; both are our
    reading (four stages: the fourth convolution has stride 1).
    """

    def __init__(self, in_channels: int, embed_dims: int, stride: int = 8, overlapping: bool = True) -> None:
        super().__init__()
        require('patch_stride', stride, stride in (4, 8), '4 or 8')
        require('embed_dims', embed_dims, embed_dims % 2 == 0, 'an even width of the first stage')
        self.stride = stride
        self.overlapping = overlapping
        if overlapping:
            half = embed_dims // 2
            self.stem = nn.Sequential(
                *_conv_bn_gelu(in_channels, half, stride=2),
                *_conv_bn_gelu(half, half, stride=1, groups=half),
                *_conv_bn_gelu(half, half, stride=1, groups=half),
                *_conv_bn_gelu(half, half, stride=stride // 4, groups=half),
            )
            self.proj = nn.Conv2d(half, embed_dims, 3, stride=2, padding=1)
        else:
            self.proj = nn.Conv2d(in_channels, embed_dims, stride, stride=stride)
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, image: Tensor) -> Tensor:
        if self.overlapping:
            x = self.stem(image)
        else:
            height, width = image.shape[-2:]
            x = F.pad(image, (0, missing(width, self.stride), 0, missing(height, self.stride)))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


def _conv_bn_gelu(in_channels: int, out_channels: int, stride: int, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.GELU(),
    ]
