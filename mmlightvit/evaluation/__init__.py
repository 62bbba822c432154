# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
from .coco import CocoMetric

__all__ = ['CocoMetric']
