# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The registries of scope ``mmlightvit``, children of mmengine's.

A config of mmdet, mmseg or mmpretrain reaches them by scope, ``type='mmlightvit.LightViT'``: mmengine
imports this module by its name and each registry imports its ``locations`` on first use. A failing import
there would break every build, so a module that needs more than mmengine is a row with the package that it needs, and
is listed only where that is installed.
"""

from mmengine import registry as _root

from mmlightvit.toolboxes import is_installed

SCOPE = 'mmlightvit'

_D = 'mmlightvit.durable'


def _found(*rooms: tuple[str, str]) -> list[str]:
    """The modules, each named with the package that it needs, whose package is installed."""
    return [module for module, package in rooms if is_installed(package)]


MODELS = _root.Registry(
    'model',
    parent=_root.MODELS,
    scope=SCOPE,
    locations=_found(
        ('mmlightvit.models.backbones.lightvit', 'mmengine'),
        ('mmlightvit.models.necks.lightvit_fpn', 'mmcv'),
        ('mmlightvit.models.heads.lightvit_head', 'mmpretrain'),
    ),
)
MODEL_WRAPPERS = _root.Registry('model wrapper', parent=_root.MODEL_WRAPPERS, scope=SCOPE, locations=[f'{_D}.wrappers'])
RUNNERS = _root.Registry(
    'runner',
    parent=_root.RUNNERS,
    scope=SCOPE,
    # A config that names our runner asks for our rules of loading too; both modules are imported when it is built.
    locations=[f'{_D}.runner', 'mmlightvit.checkpoint.install'],
)
LOOPS = _root.Registry('loop', parent=_root.LOOPS, scope=SCOPE, locations=[f'{_D}.loops'])
HOOKS = _root.Registry(
    'hook',
    parent=_root.HOOKS,
    scope=SCOPE,
    locations=[
        f'{_D}.checkpoint_hook',
        f'{_D}.data_guard',
        f'{_D}.early_stopping',
        f'{_D}.results',
        f'{_D}.time_budget',
        'mmlightvit.deploy.compile',
        'mmlightvit.model_folder.hook',
    ],
)
OPTIM_WRAPPERS = _root.Registry(
    'optim_wrapper', parent=_root.OPTIM_WRAPPERS, scope=SCOPE, locations=[f'{_D}.nonfinite', f'{_D}.wrappers']
)
DATA_SAMPLERS = _root.Registry('data sampler', parent=_root.DATA_SAMPLERS, scope=SCOPE, locations=[f'{_D}.samplers'])
DATASETS = _root.Registry('dataset', parent=_root.DATASETS, scope=SCOPE, locations=[f'{_D}.samplers'])
#: What a model asks for by name, so that the room of models knows nothing of the rooms that read files.
FUNCTIONS = _root.Registry(
    'function', parent=_root.FUNCTIONS, scope=SCOPE, locations=['mmlightvit.checkpoint.pretrained']
)
VISBACKENDS = _root.Registry('vis_backend', parent=_root.VISBACKENDS, scope=SCOPE, locations=[f'{_D}.trackers'])
METRICS = _root.Registry(
    'metric',
    parent=_root.METRICS,
    scope=SCOPE,
    locations=_found(('mmlightvit.evaluation.write', 'mmengine'), ('mmlightvit.evaluation.coco', 'mmdet')),
)
