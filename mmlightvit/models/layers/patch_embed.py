# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The stem: image to token grid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mmlightvit.models.layers.cpu_training import batch_norm, can_batch_norm
from mmlightvit.models.layers.kernels import EvalCache, can_fold, conv_gelu, fold_batch_norm


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

    Source: paper section 4.1 "Overlapping patch embedding" and Figure 3.
    Departs: section 4.1 does not give the layers without overlap nor the strides with four stages; both are our
    reading (four stages: the third convolution has stride 1).
    """

    def __init__(self, in_channels: int, embed_dims: int, stride: int = 8, overlapping: bool = True) -> None:
        super().__init__()
        if stride not in (4, 8):
            raise ValueError(f'patch_stride: expected 4 or 8, got {stride}')
        if embed_dims % 2:
            raise ValueError(f'embed_dims: expected an even width of the first stage, got {embed_dims}')
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
        self._folded = EvalCache()

    def forward(self, image: Tensor) -> Tensor:
        if self.overlapping:
            x = self.proj(self._stem(image))
        else:
            bottom, right = -image.shape[-2] % self.stride, -image.shape[-1] % self.stride
            x = self.proj(nn.functional.pad(image, (0, right, 0, bottom)))
        return self.norm(x.permute(0, 2, 3, 1))

    def _stem(self, x: Tensor) -> Tensor:
        """``self.stem`` in the memory layout and with the kernels that suit the device.

        Channels last: depthwise convolutions are several times faster on CPUs, and the tokens come for free. In
        inference BatchNorms are folded into the convolutions in front of them.
        """
        in_channels_last = x.contiguous(memory_format=torch.channels_last)
        if can_fold(self.stem):
            sources = [*self.stem.parameters(), *self.stem.buffers()]
            x = in_channels_last
            for conv, weight, bias in self._folded.get(sources, None, self._fold):
                x = conv_gelu(conv, weight, bias, x)
            return x
        if all(can_batch_norm(norm, x) for _, norm, _ in self._triples()):
            x = in_channels_last
            for conv, norm, gelu in self._triples():
                x = gelu(batch_norm(norm, conv(x)))
            return x
        # A CPU's own kernel sums batch statistics badly in that layout, see batch_norm.
        return self.stem(x if x.device.type == 'cpu' and self.stem[1].training else in_channels_last)

    def _triples(self) -> Iterator[tuple[Any, Any, Any]]:
        """Convolution, norm and activation, one after the other."""
        layers = list(self.stem.children())
        return zip(layers[0::3], layers[1::3], layers[2::3])

    def _fold(self) -> list[tuple[nn.Conv2d, Tensor, Tensor]]:
        return [(conv, *fold_batch_norm(conv, norm)) for conv, norm, _ in self._triples()]

    def train(self, mode: bool = True) -> PatchEmbed:
        self._folded.clear()
        return super().train(mode)


def _conv_bn_gelu(in_channels: int, out_channels: int, stride: int, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.GELU(),
    ]
