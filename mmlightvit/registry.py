# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The registries of scope ``mmlightvit``, children of mmengine's.

A config of mmdet, mmseg or mmpretrain reaches them by scope, ``type='mmlightvit.LightViT'``: mmengine
imports this module by its name and each registry imports its ``locations`` on first use. A failing import
there would break every build, so a location that needs a toolbox is listed only where that is installed.
"""

from importlib.util import find_spec

from mmengine import registry as _root

from . import config_paths as _config_paths

SCOPE = 'mmlightvit'
_config_paths.register()

_MODEL_LOCATIONS = ['mmlightvit.models.backbones']
if find_spec('mmcv') is not None:
    _MODEL_LOCATIONS.append('mmlightvit.models.necks')
if find_spec('mmpretrain') is not None:
    _MODEL_LOCATIONS.append('mmlightvit.models.heads')
_METRIC_LOCATIONS = ['mmlightvit.evaluation'] if find_spec('mmdet') is not None else []

MODELS = _root.Registry('model', parent=_root.MODELS, scope=SCOPE, locations=_MODEL_LOCATIONS)
MODEL_WRAPPERS = _root.Registry(
    'model wrapper', parent=_root.MODEL_WRAPPERS, scope=SCOPE, locations=['mmlightvit.engine']
)
RUNNERS = _root.Registry('runner', parent=_root.RUNNERS, scope=SCOPE, locations=['mmlightvit.engine'])
LOOPS = _root.Registry('loop', parent=_root.LOOPS, scope=SCOPE, locations=['mmlightvit.engine'])
HOOKS = _root.Registry('hook', parent=_root.HOOKS, scope=SCOPE, locations=['mmlightvit.engine', 'mmlightvit.datasets'])
OPTIM_WRAPPERS = _root.Registry(
    'optim_wrapper', parent=_root.OPTIM_WRAPPERS, scope=SCOPE, locations=['mmlightvit.engine']
)
DATA_SAMPLERS = _root.Registry('data sampler', parent=_root.DATA_SAMPLERS, scope=SCOPE, locations=['mmlightvit.engine'])
DATASETS = _root.Registry('dataset', parent=_root.DATASETS, scope=SCOPE, locations=['mmlightvit.datasets'])
TRANSFORMS = _root.Registry('transform', parent=_root.TRANSFORMS, scope=SCOPE, locations=['mmlightvit.datasets'])
METRICS = _root.Registry('metric', parent=_root.METRICS, scope=SCOPE, locations=_METRIC_LOCATIONS)
