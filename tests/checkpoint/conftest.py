# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Files with the published layout and reproducible values."""

from __future__ import annotations

from pathlib import Path

import golden
import pytest
import torch
from variants import TEST_ARCH

from mmlightvit.checkpoint import install  # noqa: F401 - from here on mmengine loads by our rules


@pytest.fixture(scope='session')
def published_files(tmp_path_factory) -> dict[str, Path]:
    """Paths of the published layout's classifier, backbone and detector."""
    folder = tmp_path_factory.mktemp('published')
    files = {}
    for name in ('cls_tiny', 'backbone_tiny', 'detector_tiny'):
        files[name] = folder / f'{name}.ckpt'
        torch.save({'state_dict': golden.state_dict(name)}, files[name])
    return files


@pytest.fixture
def backbone():
    """A function that makes a minute backbone with random weights everywhere, norms and statistics included."""
    from mmlightvit.models.backbones import LightViT

    def make(seed: int = 0, arch: str | dict = TEST_ARCH, **kwargs) -> LightViT:
        model = LightViT(arch, **kwargs).eval()
        generator = torch.Generator().manual_seed(seed)
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + 0.1)
        return model

    return make
