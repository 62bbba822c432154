# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Reading checkpoints without executing them, recognising what they hold, and loading them strictly."""

from .atomic import atomic_write
from .loading import LoadReport, load_into
from .reading import CheckpointUnavailable, read_checkpoint
from .recognition import Source, find_state_dict, recognise
from .secure import secure_loading

__all__ = [
    'CheckpointUnavailable',
    'LoadReport',
    'Source',
    'atomic_write',
    'find_state_dict',
    'load_into',
    'read_checkpoint',
    'recognise',
    'secure_loading',
]
