# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Layers, backbone, neck and head. Nothing is imported here: the backbone alone needs torch and mmengine only."""
