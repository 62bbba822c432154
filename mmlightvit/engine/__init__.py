# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What trains and tests models: starting processes, wrapping models, checking before, saving and resuming.

Importing the package registers its parts; ``python -m mmlightvit.engine`` is what the ``tools/dist_*.sh`` scripts run.
"""

from .wrappers import AmpOptimWrapper, DistributedDataParallel

__all__ = ['AmpOptimWrapper', 'DistributedDataParallel']
