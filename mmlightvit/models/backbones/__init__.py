# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
from mmlightvit.checkpoint.install import install as install_loading
from mmlightvit.models.backbones.lightvit import ARCH_ZOO, LightViT

# Whoever builds the backbone, our tools or a toolbox's, gets safe and strict loading.
install_loading()

__all__ = ['ARCH_ZOO', 'LightViT']
