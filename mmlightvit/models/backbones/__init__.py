# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
from mmlightvit.models.backbones.lightvit import ARCH_ZOO, LightViT

__all__ = ['ARCH_ZOO', 'LightViT']
