# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The OpenMMLab toolboxes, in one table: what each is for, and how what we use of it is called there.

Importing this module imports neither a toolbox nor torch; the functions do when they are called.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from mmlightvit import operators
from mmlightvit.errors import UserError
from mmlightvit.tasks import CLASSIFICATION, DETECTION, SEGMENTATION

if TYPE_CHECKING:
    from torch import nn


class Toolbox(NamedTuple):
    """A toolbox of the OpenMMLab family.

    Attributes:
        task: The task that its configs are for.
        distribution: What to install to have it.
        original: The name of OpenMMLab's own distribution, whose releases stopped.
        draw_switch: Key of its visualization hook (``default_hooks.visualization``) that turns drawing on.
        draw_folder: Key of a config that takes the folder of the pictures.
        draws_input: Whether its hook draws the network's input, of which test-time augmentation has several.
        dump: Its metric that keeps the predictions in a pickle file; None where a metric of its own writes them.
    """

    task: str
    distribution: str
    original: str
    draw_switch: str
    draw_folder: str
    draws_input: bool = False
    dump: str | None = None


#: By ``default_scope``, which is the import name too.
TOOLBOXES: Mapping[str, Toolbox] = MappingProxyType(
    {
        'mmdet': Toolbox(
            task=DETECTION,
            distribution='onedl-mmdetection',
            original='mmdet',
            draw_switch='draw',
            draw_folder='default_hooks.visualization.test_out_dir',
            dump='DumpDetResults',
        ),
        'mmpretrain': Toolbox(
            task=CLASSIFICATION,
            distribution='onedl-mmpretrain',
            original='mmpretrain',
            draw_switch='enable',
            draw_folder='default_hooks.visualization.out_dir',
            draws_input=True,
            dump='DumpResults',
        ),
        'mmseg': Toolbox(
            task=SEGMENTATION,
            distribution='onedl-mmsegmentation',
            original='mmsegmentation',
            draw_switch='draw',
            draw_folder='visualizer.save_dir',
        ),
    }
)


def is_installed(package: str) -> bool:
    """Whether a package can be found; nothing of it is imported."""
    try:
        return find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):  # its parent is missing, or it is half imported
        return False


def require_toolbox(scope: Any, needed_by: str) -> None:
    """The package that a config's ``default_scope`` names is installed: one of the table, or any other with a registry.

    Args:
        scope: ``default_scope`` of the config.
        needed_by: The config's name, for the message.

    Raises:
        UserError: It is not, or no scope is named.
    """
    toolbox = TOOLBOXES.get(scope)
    if toolbox is None and not (isinstance(scope, str) and scope and is_installed(f'{scope}.registry')):
        raise UserError(
            f'{needed_by} sets default_scope={scope!r}; expected one of {", ".join(TOOLBOXES)}, '
            'or an installed package with a module `registry`'
        )
    if toolbox is not None and not is_installed(scope):
        raise UserError(
            f'{needed_by} is a {toolbox.task} config and needs {scope}, which is not installed: '
            f'pip install --no-deps {toolbox.distribution} (see docs/install.md)'
        )


def import_toolbox(scope: str) -> None:
    """Register everything that a toolbox has, with operators for it where mmcv came without.

    Raises:
        UserError: It cannot be imported: the environment is broken, which ``mmlightvit doctor`` explains.
    """
    operators.install()
    try:
        if is_installed('mmcv'):
            operators.check()
        if scope in TOOLBOXES or is_installed(f'{scope}.utils'):
            register = getattr(importlib.import_module(f'{scope}.utils'), 'register_all_modules', None)
            if register is not None:
                register(init_default_scope=False)
                return
        importlib.import_module(f'{scope}.registry')
    except (ImportError, AssertionError) as error:  # the toolboxes assert the versions they can work with
        raise UserError(f'{scope} cannot be imported: {error}; run mmlightvit doctor') from error


def kind_of(part: Any) -> str:
    """The name of the class that a part of a config is to be, without scope and module; '' where it names none."""
    kind = part.get('type') if isinstance(part, Mapping) else None
    name = kind.__name__ if isinstance(kind, type) else str(kind or '')
    return name.rpartition('.')[2]


def build_model(cfg: Mapping[str, Any]) -> nn.Module:
    """Build the model of a config without loading weights or touching data.

    Args:
        cfg: A whole config with ``model`` and, as a rule, ``default_scope``; or the dict of a model.

    Raises:
        UserError: There is no model in it, or it cannot be built.
    """
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope
    from mmengine.utils import import_modules_from_strings

    model_cfg = cfg.get('model', cfg)
    if not isinstance(model_cfg, Mapping) or 'type' not in model_cfg:
        raise UserError(f'expected a config with model=dict(type=...), got the keys {sorted(cfg)}')
    operators.install()
    if cfg.get('custom_imports'):
        import_modules_from_strings(**cfg['custom_imports'])
    try:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            built = Config(dict(model=copy.deepcopy(dict(model_cfg)))).model
            if cfg.get('data_preprocessor') is not None:
                built.setdefault('data_preprocessor', copy.deepcopy(cfg['data_preprocessor']))  # as the runner does
            return MODELS.build(built)
    except (ValueError, TypeError, KeyError, ImportError) as error:
        raise UserError(f'the model of the config cannot be built ({type(error).__name__}: {error})') from error


def task_of(model: nn.Module) -> str:
    """``'detector'``, ``'segmenter'``, ``'classifier'`` or ``'backbone'``, read off the heads."""
    if any(hasattr(model, name) for name in ('roi_head', 'bbox_head', 'rpn_head', 'mask_head', 'panoptic_head')):
        return 'detector'
    if hasattr(model, 'decode_head'):
        return 'segmenter'
    return 'classifier' if hasattr(model, 'head') else 'backbone'
