# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Reading files without executing them, and writing them whole."""
