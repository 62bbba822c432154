# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What a model costs, and the paper's tables beside it."""
