# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Reading checkpoints without executing them, and published weights."""
