# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The feature pyramid of LightViT (paper Figure 5b)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmlightvit.models.arguments import require
from mmlightvit.published import translate_neck
from mmlightvit.registry import MODELS


@MODELS.register_module()
class LightViTFPN(BaseModule):
    """FPN that makes levels finer than its finest input, by transposed convolutions as a rule.

    A 1x1 lateral convolution per input, top-down nearest upsampling and addition, a 3x3 output convolution per input.
    Each finer level is a 2x2 stride-2 transposed convolution of the one below it (of the finest merged lateral for
    the first) with a 3x3 output convolution of its own. Each coarser level halves the one before it.

    Args:
        in_channels: Channels of each input, finest first.
        out_channels: Channels of every level.
        num_outs: Number of levels put out; at least ``num_transposed + len(in_channels)``.
        num_transposed: Levels finer than the finest input, >= 0.
        extra_convs_on: Where the coarser levels come from. None: 1x1 max pooling of stride 2 on the coarsest output
            (Mask R-CNN). ``'input'``, ``'lateral'`` or ``'output'``: 3x3 convolutions of stride 2, the first on the
            coarsest input, merged lateral or output (RetinaNet), each further one on the level before it.
        relu_before_extra_convs: ReLU in front of each of these convolutions but the first.
        conv_cfg: Convolution layer, mmcv style.
        norm_cfg: Norm layer behind lateral and output convolutions, mmcv style.
        act_cfg: Activation behind lateral and output convolutions, mmcv style.
        upsample: How the finer levels are made: ``'transposed'`` convolution, or ``'bilinear'`` interpolation.
        init_cfg: mmengine style; by default 1x1 and 3x3 convolutions Xavier-uniform, transposed ones Kaiming-normal.

    Shape:
        a tuple of (B, in_channels[i], H_i, W_i) -> a tuple of ``num_outs`` maps (B, out_channels, h, w), finest first.

    Raises:
        ValueError: An argument is out of its range, or another number of maps comes in; the message names it.

    Source: paper section 4.1 and Figure 5b.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        num_outs: int = 5,
        num_transposed: int = 1,
        extra_convs_on: str | None = None,
        relu_before_extra_convs: bool = False,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        upsample: str = 'transposed',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = [
                dict(type='Xavier', layer='Conv2d', distribution='uniform'),
                dict(type='Kaiming', layer='ConvTranspose2d', mode='fan_out', nonlinearity='relu'),
            ]
        super().__init__(init_cfg=init_cfg)
        least = num_transposed + len(in_channels)
        sources = (None, 'input', 'lateral', 'output')
        require('in_channels', in_channels, len(in_channels) > 0, 'the channels of at least one input')
        require('num_transposed', num_transposed, num_transposed >= 0, 'an integer >= 0')
        require('num_outs', num_outs, num_outs >= least, f'at least num_transposed + len(in_channels) = {least}')
        require('upsample', upsample, upsample in ('transposed', 'bilinear'), "'transposed' or 'bilinear'")
        require('extra_convs_on', extra_convs_on, extra_convs_on in sources, "None, 'input', 'lateral' or 'output'")
        self.in_channels = list(in_channels)
        self.out_channels = out_channels
        self.num_outs = num_outs
        self.extra_convs_on = extra_convs_on
        self.relu_before_extra_convs = relu_before_extra_convs
        self.num_extra = num_outs - least

        def conv(channels: int, kernel: int, stride: int = 1) -> ConvModule:
            configs = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
            return ConvModule(channels, out_channels, kernel, stride, padding=kernel // 2, **configs)

        self.lateral_convs = nn.ModuleList(conv(channels, 1) for channels in in_channels)
        self.fpn_convs = nn.ModuleList(conv(out_channels, 3) for _ in in_channels)
        self.transposed_convs = nn.ModuleList(
            nn.ConvTranspose2d(out_channels, out_channels, 2, stride=2)
            if upsample == 'transposed'
            else nn.Upsample(scale_factor=2, mode='bilinear', align_corners=False)
            for _ in range(num_transposed)
        )
        self.transposed_fpn_convs = nn.ModuleList(conv(out_channels, 3) for _ in range(num_transposed))
        self.extra_convs = nn.ModuleList()
        if extra_convs_on is not None:
            first = in_channels[-1] if extra_convs_on == 'input' else out_channels
            self.extra_convs.extend(conv(first if i == 0 else out_channels, 3, stride=2) for i in range(self.num_extra))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *reports: Any) -> None:
        translate_neck(self, state_dict, prefix, *reports)
        super()._load_from_state_dict(state_dict, prefix, *reports)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, in_channels[i], H_i, W_i), finest first -> ``num_outs`` maps (B, out_channels, h, w)."""
        channels = [x.shape[1] for x in inputs]
        require('in_channels', self.in_channels, channels == self.in_channels, f'{channels}, as the maps have')
        merged = [lateral(x) for lateral, x in zip(self.lateral_convs, inputs)]
        for i in range(len(merged) - 1, 0, -1):
            merged[i - 1] = merged[i - 1] + F.interpolate(merged[i], size=merged[i - 1].shape[-2:], mode='nearest')
        outs = [conv(x) for conv, x in zip(self.fpn_convs, merged)]
        coarsest = {'input': inputs[-1], 'lateral': merged[-1], 'output': outs[-1], None: outs[-1]}[self.extra_convs_on]

        finer = merged[0]
        for upsample, conv in zip(self.transposed_convs, self.transposed_fpn_convs):
            finer = upsample(finer)
            outs.insert(0, conv(finer))
        if self.extra_convs_on is None:
            for _ in range(self.num_extra):
                outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        for i, conv in enumerate(self.extra_convs):
            x = coarsest if i == 0 else outs[-1]
            outs.append(conv(F.relu(x) if i and self.relu_before_extra_convs else x))
        return tuple(outs)
