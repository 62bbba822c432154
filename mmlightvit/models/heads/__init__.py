# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
from mmlightvit.models.heads.lightvit_head import LightViTHead

__all__ = ['LightViTHead']
