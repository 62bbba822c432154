# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Entry points of ``torch.hub``: ``torch.hub.load('OWNER/mmlightvit', 'lightvit_tiny', pretrained=True)``."""

from __future__ import annotations

from typing import Any

dependencies = ['torch', 'mmengine', 'numpy', 'PIL', 'safetensors', 'yaml']


def _backbone(arch: str, pretrained: bool, **kwargs: Any) -> Any:
    from mmlightvit.models.backbones import LightViT

    return (
        LightViT.from_pretrained(f'lightvit_{arch[0]}_imagenet', **kwargs) if pretrained else LightViT(arch, **kwargs)
    )


def lightvit_tiny(pretrained: bool = False, **kwargs: Any) -> Any:
    """The backbone LightViT-T; with ``pretrained``, the published ImageNet weights."""
    return _backbone('tiny', pretrained, **kwargs)


def lightvit_small(pretrained: bool = False, **kwargs: Any) -> Any:
    """The backbone LightViT-S; with ``pretrained``, the published ImageNet weights."""
    return _backbone('small', pretrained, **kwargs)


def lightvit_base(pretrained: bool = False, **kwargs: Any) -> Any:
    """The backbone LightViT-B; with ``pretrained``, the published ImageNet weights."""
    return _backbone('base', pretrained, **kwargs)


def predictor(model: str, **kwargs: Any) -> Any:
    """What ``mmlightvit.load_model`` gives: a whole model, from pictures to results."""
    from mmlightvit import load_model

    return load_model(model, **kwargs)
