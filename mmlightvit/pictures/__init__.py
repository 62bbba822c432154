# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Pictures and the objects on them: reading, masks, labels and predictions, COCO files, drawing; no model."""
