# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
from mmlightvit.models.necks.lightvit_fpn import LightViTFPN

__all__ = ['LightViTFPN']
