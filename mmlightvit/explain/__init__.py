# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Pictures: predictions, training curves, attention and gates."""
