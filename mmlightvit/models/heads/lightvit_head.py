# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The classification head of LightViT."""

from __future__ import annotations

import torch.nn.functional as F
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from mmlightvit.models.arguments import require
from mmlightvit.registry import MODELS


@MODELS.register_module()
class LightViTHead(ClsHead):
    """LN -> Linear -> LN -> GELU -> mean over all tokens -> Linear.

    Args:
        num_classes: Number of classes, >= 1.
        in_channels: Channels C of the last stage.
        hidden_channels: Width of the projection in front of the mean.
        loss: Loss config, mmpretrain style.
        topk: The k of each top-k accuracy that ``cal_acc`` logs.
        cal_acc: Log the accuracy while training; needs plain labels, that is, no mixup or cutmix.
        init_cfg: mmengine style; by default linear layers truncated normal with standard deviation 0.02.

    Shape:
        a tuple whose last entry is the backbone's raw tokens (B, T + L, C) -> scores (B, num_classes)

    Raises:
        ValueError: ``num_classes`` is below 1.

    Source: the published classifier; the paper does not describe its head.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        hidden_channels: int = 1280,
        loss: dict | None = None,
        topk: tuple[int, ...] = (1,),
        cal_acc: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        require('num_classes', num_classes, num_classes >= 1, 'an integer >= 1')
        super().__init__(
            loss=loss or dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0),
            topk=topk,
            cal_acc=cal_acc,
            init_cfg=init_cfg or dict(type='TruncNormal', layer='Linear', std=0.02),
        )
        self.num_classes = num_classes
        self.norm = nn.LayerNorm(in_channels, eps=1e-6)
        self.proj = nn.Linear(in_channels, hidden_channels)
        self.proj_norm = nn.LayerNorm(hidden_channels)
        self.fc = nn.Linear(hidden_channels, num_classes)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Mean over all tokens of the projected last stage, (B, hidden_channels)."""
        return F.gelu(self.proj_norm(self.proj(self.norm(feats[-1])))).mean(dim=1)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Tokens (B, T + L, C) as the last entry -> scores (B, num_classes)."""
        return self.fc(self.pre_logits(feats))
