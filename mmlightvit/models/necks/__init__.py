# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
from .lightvit_fpn import LightViTFPN

__all__ = ['LightViTFPN']
