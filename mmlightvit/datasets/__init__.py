# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Data sets: the digits of the demos, the guard over the data of a run, the check before one.

Importing this needs no toolbox.
"""

from mmlightvit.datasets.guard import BadDataError, DataGuardHook

__all__ = ['BadDataError', 'DataGuardHook']
