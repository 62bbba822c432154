# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The parts and settings that a model folder may ask for: what computes, and no file.

MMEngine's registries import and call whatever name they do not know, and among the parts that they know are some that
open files or run code of others. So a folder gets the parts of a list alone, and no setting of it may name a file.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmlightvit.errors import UserError
from mmlightvit.model_folder.info import FILE, SCOPES, ModelInfo

#: Where the parts of a toolbox's ordinary models are defined.
_HOMES = (
    'torch.nn.modules',
    'mmcv.cnn.bricks',
    'mmcv.ops',
    'mmengine.model.base_model.data_preprocessor',
    'mmengine.utils.dl_utils.parrots_wrapper',
    *(
        f'mmdet.models.{room}'
        for room in ('backbones', 'data_preprocessors', 'dense_heads', 'detectors', 'layers', 'losses', 'necks',
                     'roi_heads', 'seg_heads', 'task_modules.assigners', 'task_modules.coders',
                     'task_modules.prior_generators', 'task_modules.samplers')
    ),
    *(
        f'mmpretrain.models.{room}'
        for room in ('backbones', 'classifiers.image', 'heads', 'losses', 'necks', 'peft', 'utils.attention',
                     'utils.data_preprocessor', 'utils.norm', 'utils.res_layer_extra_norm', 'utils.sparse_modules')
    ),
    *(
        f'mmseg.models.{room}'
        for room in ('assigners', 'backbones', 'data_preprocessor', 'decode_heads', 'losses', 'necks', 'segmentors')
    ),
    'mmseg.structures.sampler',
    'mmlightvit.models',
    'mmlightvit.examples',
)  # fmt: skip
#: Modules therein whose parts open files, fetch, or run other packages' models.
_EXCEPTIONS = (
    'mmdet.models.dense_heads.atss_vlfusion_head',
    'mmdet.models.detectors.d2_wrapper',
    'mmdet.models.detectors.glip',
    'mmdet.models.detectors.grounding_dino',
    'mmdet.models.detectors.kd_one_stage',
    'mmdet.models.detectors.lad',
    'mmpretrain.models.heads.vqa_head',
    'mmseg.models.backbones.vpd',
    'mmseg.models.decode_heads.san_head',
    'mmseg.models.decode_heads.vpd_depth_head',
    'mmseg.models.segmentors.multimodal_encoder_decoder',
)
#: Names that mmdet, mmcv and torch look up elsewhere than in a registry, by the key under which they stand.
_NOT_REGISTERED = {
    'nms': ('nms', 'soft_nms'),
    'roi_layer': ('RoIAlign', 'RoIPool', 'SimpleRoIAlign'),
    'padding_mode': ('zeros', 'circular'),
}
#: Settings whose text is the name of a part, as that of `type` is.
_NAMES_PART = ('norm_layer', 'conv_type', 'padding_mode')
#: Settings that name a file, an address or whose code is to be run; unset they do no harm.
_NAMES_FILE = ('pretrained', 'checkpoint', 'checkpoint_path', 'pretrained_cfg', 'pretrained_cfg_overlay', 'cache_dir',
               'trust_remote_code')  # fmt: skip
#: Settings that may be numbers, and as text would be the name of a file.
_NUMBERS_ALONE = ('class_weight',)
#: The only scopes that a part may be of.
_SCOPES = (*SCOPES, 'mmengine', 'mmcv', 'mmlightvit')
#: What the text of a setting looks like: words, with a dot before a digit alone, so never a path, address or module.
_WORDS = re.compile(r'[\w +-]*(\.\d[\w +-]*)*')
#: timm's names of models: with a tag of the weights behind the dot.
_TIMM_NAME = re.compile(r'\w+(\.\w+)?')


def may_hold(key: str, value: Any) -> bool:
    """Whether a folder may set something, parts aside: not if it names a file, an address or a module."""
    if key in _NAMES_FILE:
        return not value
    if not isinstance(value, str):
        return True
    if key in _NUMBERS_ALONE:
        return False
    return key in ('type', '_scope_') or bool((_TIMM_NAME if key == 'model_name' else _WORDS).fullmatch(value))


def without_files(value: Any, key: str = '') -> Any:
    """A config without what a folder may not hold, and without how weights start."""
    if isinstance(value, Mapping):
        return {
            name: without_files(item, name)
            for name, item in value.items()
            if name != 'init_cfg' and name not in _NAMES_FILE and may_hold(name, item)
        }
    if isinstance(value, list | tuple):
        return [without_files(item, key) for item in value if may_hold(key, item)]
    return value


def checked_model(info: ModelInfo) -> dict[str, Any]:
    """``model`` of model.json, once everything in it is on the list; without how it is initialised and trained.

    Raises:
        UserError: It asks for what is not on the list; nothing has been imported or built for it.
    """
    model = _checked(info.model, 'model', '', info.scope)
    assert isinstance(model, dict)
    return model


@contextlib.contextmanager
def registered_parts_alone() -> Iterator[None]:
    """While a model is built, no registry of MMEngine imports a name that it does not know.

    A name on the list may be unknown to the registry that is asked for it, and then a file of that name would be run.
    """
    from mmengine.registry import registry

    imported = registry.get_object_from_string
    registry.get_object_from_string = lambda name: None
    try:
        yield
    finally:
        registry.get_object_from_string = imported


def _checked(value: Any, place: str, key: str, scope: str) -> Any:
    """A copy of a value.

    Args:
        value: What stands in model.json.
        place: Where, for messages.
        key: The key under which it stands; that of a list is its items'.
        scope: The toolbox that it belongs to.
    """
    if isinstance(value, Mapping):
        # MMEngine's mark for a part that another scope's base config brought.
        inside = value.get('_scope_', scope)
        if inside not in _SCOPES:
            raise UserError(f'{FILE} asks for {inside!r}, which is no model part')
        if 'type' in value:
            _check_part(value['type'], place, key, inside)
        copy = {}
        for name, item in value.items():
            if name == 'init_cfg' and not _starts_from_file(item):
                continue
            if name == 'init_cfg' or not may_hold(name, item):
                raise UserError(_names_file(item, f'{place}.{name}'))
            if name not in _NAMES_FILE:
                copy[name] = None if name == 'train_cfg' else _checked(item, f'{place}.{name}', name, inside)
        return copy
    if isinstance(value, list | tuple):
        wrong = next((item for item in value if not may_hold(key, item)), None)
        if wrong is not None:
            raise UserError(_names_file(wrong, place))
        return [_checked(item, f'{place}[{index}]', key, scope) for index, item in enumerate(value)]
    if key in _NAMES_PART and isinstance(value, str):
        _check_part(value, place, key, scope)
    return value


def _names_file(value: Any, place: str) -> str:
    return (
        f'{FILE} asks for {value!r} ({place}), and a model folder may name no file, address, module or code: '
        'take it out, or give the checkpoint with its config (--config FILE)'
    )


def _starts_from_file(value: Any) -> bool:
    """Whether an ``init_cfg`` takes weights from somewhere; any other says how weights start that are loaded anyway."""
    if isinstance(value, list | tuple):
        return any(map(_starts_from_file, value))
    return isinstance(value, Mapping) and (bool(value.get('checkpoint')) or any(map(_starts_from_file, value.values())))


def _check_part(name: Any, place: str, key: str, scope: str) -> None:
    """A part is on the list, wherever the registries would find it."""
    if not isinstance(name, str):
        raise UserError(f'{FILE} asks for {name!r}, which is no model part')
    if name in _NOT_REGISTERED.get(key, ()):
        return
    written, dot, short = name.rpartition('.')
    parts = []
    if key != 'nms' and (not dot or written in _SCOPES):
        parts = [
            table.module_dict[short] for table in _tables(written or scope, bool(dot)) if short in table.module_dict
        ]
    if not parts:
        raise UserError(f'{FILE} asks for {name!r}, which is no model part')
    for part in parts:
        if not _is_under(part.__module__, _HOMES) or _is_under(part.__module__, _EXCEPTIONS):
            raise UserError(
                f'{FILE} asks for {name!r} ({place}), which is no model part for a folder: it may open files or run '
                'code of others; if you trust it, give the checkpoint with its config (--config FILE)'
            )


def _is_under(module: str, homes: tuple[str, ...]) -> bool:
    return any(module == home or module.startswith(f'{home}.') for home in homes)


def _tables(scope: str, alone: bool) -> list[Any]:
    """The registries of a scope, and behind them the roots, to which mmcv's parts belong."""
    from mmengine.registry import MODELS, TASK_UTILS

    from mmlightvit import registry
    from mmlightvit.toolboxes import import_toolbox

    registry.MODELS.import_from_location()
    if scope in SCOPES:
        import_toolbox(scope)
    tables = [MODELS, TASK_UTILS] if not alone or scope in ('mmengine', 'mmcv') else []
    for root in (MODELS, TASK_UTILS):
        child = root.children.get(scope)
        if child is not None:
            child.import_from_location()
            tables.append(child)
    return tables
