# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Whether the environment forbids to open a connection."""

from __future__ import annotations

import os


def is_offline(*others: str) -> bool:
    """Whether ``MMLIGHTVIT_OFFLINE``, or another variable, is set to anything but 0."""
    return any(os.environ.get(name, '0') not in ('', '0') for name in ('MMLIGHTVIT_OFFLINE', *others))
