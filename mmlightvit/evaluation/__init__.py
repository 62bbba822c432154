# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Metrics."""
