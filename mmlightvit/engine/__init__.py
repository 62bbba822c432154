# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What trains and tests models: starting processes, wrapping models, checking before, saving and resuming.

Importing the package registers its parts; ``python -m mmlightvit.engine`` is what the ``tools/dist_*.sh`` scripts run.
"""

from ..checkpoint import secure_loading
from .compile import CompileBackboneHook, compile_backbones
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .nonfinite import NonFiniteError, NonFiniteGuard, OptimWrapper
from .runner import Runner
from .samplers import DrawSampler, ResumableBatchSampler
from .saving import CheckpointHook, atomic_save, find_newest, verify
from .wrappers import AmpOptimWrapper, DistributedDataParallel

secure_loading()

__all__ = [
    'AmpOptimWrapper',
    'CheckpointHook',
    'CompileBackboneHook',
    'DistributedDataParallel',
    'DrawSampler',
    'EpochBasedTrainLoop',
    'IterBasedTrainLoop',
    'NonFiniteError',
    'NonFiniteGuard',
    'OptimWrapper',
    'ResumableBatchSampler',
    'Runner',
    'atomic_save',
    'compile_backbones',
    'find_newest',
    'verify',
]
