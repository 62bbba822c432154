# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""LightViT for timm: importing this module registers ``lightvit_tiny``, ``lightvit_small`` and ``lightvit_base``.

The backbone is the one of this project; the head has the names that it has in mmpretrain's classifier, so weights of
the one load into the other, and published files into both.

Example:
    >>> import timm, mmlightvit.timm_models
    >>> model = timm.create_model('lightvit_tiny', num_classes=10)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmlightvit.checkpoint import zoo
from mmlightvit.models.backbones.lightvit import ARCH_ZOO, LightViT

try:
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
    from timm.models._features import feature_take_indices
except ImportError as error:
    raise ImportError('mmlightvit.timm_models needs timm: pip install timm') from error

__all__ = ['TimmLightViT', 'lightvit_base', 'lightvit_small', 'lightvit_tiny']


class _Head(nn.Module):
    """The published classifier's head: LN -> Linear -> LN -> GELU -> mean over tokens -> dropout -> Linear."""

    def __init__(self, channels: int, hidden: int, num_classes: int, drop_rate: float) -> None:
        super().__init__()
        self.norm: nn.Module = nn.LayerNorm(channels, eps=1e-6)
        self.proj: nn.Module = nn.Linear(channels, hidden)
        self.proj_norm: nn.Module = nn.LayerNorm(hidden)
        self.drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(hidden, num_classes) if num_classes else nn.Identity()

    def forward(self, x_BLC: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.drop(F.gelu(self.proj_norm(self.proj(self.norm(x_BLC)))).mean(dim=1))
        return pooled if pre_logits else self.fc(pooled)


class TimmLightViT(nn.Module):
    """A LightViT classifier with timm's interface.

    Args:
        arch: ``'tiny'``, ``'small'`` or ``'base'``.
        num_classes: 0 for no classifier: the model then gives the pooled features.
        in_chans: Channels of the image.
        global_pool: ``'avg'``, the only pooling that the model has.
        hidden: Width of the pooled features.
        drop_rate: Dropout in front of the classifier.
        drop_path_rate: Largest stochastic-depth rate.

    Shape:
        (B, in_chans, height, width), any size -> (B, num_classes)
    """

    def __init__(
        self,
        arch: str = 'tiny',
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = 'avg',
        hidden: int = 1280,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if global_pool != 'avg':
            raise ValueError(f"global_pool: expected 'avg', got {global_pool!r}")
        dims = ARCH_ZOO[arch]['embed_dims']
        self.backbone = LightViT(
            arch,
            in_channels=in_chans,
            out_indices=range(len(dims)),
            out_type='raw',
            drop_path_rate=drop_path_rate,
        )
        self.head = _Head(dims[-1], hidden, num_classes, drop_rate)
        self.num_classes = num_classes
        self.num_features = dims[-1]
        self.head_hidden_size = hidden
        self.num_global_tokens = ARCH_ZOO[arch]['num_global_tokens']
        self.feature_info = [
            {'num_chs': channels, 'reduction': 8 * 2**stage, 'module': f'backbone.stages.{stage}'}
            for stage, channels in enumerate(dims)
        ]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers for rates that fall with depth."""
        stem = r'^backbone\.(?:patch_embed|global_token)'
        head = (r'^head\.(?!fc)', (99999,))
        if coarse:
            return {'stem': stem, 'blocks': [(r'^backbone\.stages\.(\d+)', None), head]}
        merging = (r'^backbone\.stages\.(\d+)\.downsample', (0,))
        return {'stem': stem, 'blocks': [(r'^backbone\.stages\.(\d+)\.blocks\.(\d+)', None), merging, head]}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks in the backward pass."""
        stages: Any = self.backbone.stages
        for stage in stages:
            stage.with_cp = enable

    def no_weight_decay(self) -> set[str]:
        """Parameters that are not decayed."""
        names = {name for name, _ in self.named_parameters()}
        return {name for name in names if name.endswith(('relative_position_bias_table', 'global_token'))}

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier; 0 for none."""
        if global_pool not in (None, 'avg'):
            raise ValueError(f"global_pool: expected 'avg', got {global_pool!r}")
        self.num_classes = num_classes
        self.head.fc = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, T + L, C): the tokens of the last stage, global ones first, before the head's norm."""
        return self.backbone(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """What follows :meth:`forward_features`."""
        return self.head(x, pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> Any:
        """The stages' feature maps (B, C, H, W), and the last tokens unless only the maps are wanted.

        Args:
            x: Images.
            indices: Stages; a number n for the last n; None for all.
            norm: Of the last stage, take the tokens behind the head's norm.
            stop_early: Leave the stages behind the last one wanted undone; the last tokens are then those of that one.
            output_fmt: ``'NCHW'``, the only form.
            intermediates_only: Leave the last tokens out.
        """
        if output_fmt != 'NCHW':
            raise ValueError(f"output_fmt: expected 'NCHW', got {output_fmt!r}")
        take, last = feature_take_indices(len(self.feature_info), _listed(indices))
        stages = (self._up_to(last) if stop_early else self.backbone)(x)
        maps = []
        for stage in take:
            tokens = stages[stage]
            if norm and stage == len(self.feature_info) - 1:
                tokens = self.head.norm(tokens)
            height, width = (-(-side // self.feature_info[stage]['reduction']) for side in x.shape[-2:])
            image = tokens[:, self.num_global_tokens :]
            maps.append(image.transpose(1, 2).unflatten(2, (height, width)))
        return maps if intermediates_only else (stages[-1], maps)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Leave out what the intermediates do not need: later stages, the head's norm, and the rest of the head."""
        take, last = feature_take_indices(len(self.feature_info), _listed(indices))
        self.backbone = self._up_to(last)
        if prune_norm:
            self.head.norm = nn.Identity()
        if prune_head:
            self.head.proj, self.head.proj_norm = nn.Identity(), nn.Identity()
            self.reset_classifier(0)
        return take

    def _up_to(self, last: int) -> LightViT:
        """The backbone, with its parameters, up to a stage."""
        shorter = copy.copy(self.backbone)
        stages: Any = self.backbone.stages
        shorter._modules = {**self.backbone._modules, 'stages': stages[: last + 1]}
        return shorter


def _listed(indices: int | Sequence[int] | None) -> int | list[int] | None:
    return indices if indices is None or isinstance(indices, int) else list(indices)


def _cfg(url: str = '', **changes: Any) -> dict[str, Any]:
    return {
        'url': url,
        'num_classes': 1000,
        'input_size': (3, 224, 224),
        'pool_size': None,
        'crop_pct': 0.875,
        'interpolation': 'bicubic',
        'fixed_input_size': False,
        'mean': IMAGENET_DEFAULT_MEAN,
        'std': IMAGENET_DEFAULT_STD,
        'first_conv': 'backbone.patch_embed.stem.0',
        'classifier': 'head.fc',
        'license': 'apache-2.0',
        'paper_ids': 'arXiv:2207.05557',
        'origin_url': 'https://github.com/hunto/LightViT',
        **changes,
    }


def _published(size: str) -> str:
    return zoo.find(f'lightvit_{size[0]}_imagenet').address or ''


default_cfgs = generate_default_cfgs(
    {f'lightvit_{size}.in1k': _cfg(_published(size)) for size in ('tiny', 'small', 'base')}
)


def _filter(state: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """A published file's weights under our names."""
    from mmlightvit.checkpoint.identify import find_state_dict, recognise

    return dict(recognise(find_state_dict(state)).state)


def _create(name: str, pretrained: bool, **kwargs: Any) -> Any:
    return build_model_with_cfg(
        TimmLightViT,
        name,
        pretrained,
        pretrained_filter_fn=_filter,
        feature_cfg={'out_indices': (0, 1, 2), 'feature_cls': 'getter'},
        arch=name.removeprefix('lightvit_'),
        **kwargs,
    )


@register_model
def lightvit_tiny(pretrained: bool = False, **kwargs: Any) -> Any:
    """LightViT-T, 78.7 % on ImageNet (published)."""
    return _create('lightvit_tiny', pretrained, **kwargs)


@register_model
def lightvit_small(pretrained: bool = False, **kwargs: Any) -> Any:
    """LightViT-S, 80.8 % on ImageNet (published)."""
    return _create('lightvit_small', pretrained, **kwargs)


@register_model
def lightvit_base(pretrained: bool = False, **kwargs: Any) -> Any:
    """LightViT-B, 82.1 % on ImageNet (published)."""
    return _create('lightvit_base', pretrained, **kwargs)
