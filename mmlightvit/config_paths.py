# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Makes ``_base_ = 'mmlightvit::mask_rcnn_lightvit_t_1x.py'`` and mmengine's hub find our configs.

mmengine knows the packages that may stand before ``::`` by a fixed table, wants a folder in the name behind it, and
builds whatever it finds there in the scope of the package. Our configs lie in one folder and belong to the scope of
the toolbox they are for, which each names as its ``default_scope``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.config import utils as _utils

PACKAGE = 'mmlightvit'

_stock_config_path = Config._get_cfg_path
_stock_package = _utils._get_package_and_cfg_path


def configs_folder() -> Path:
    """The folder of our configs: in an installation ``mmlightvit/.mim/configs``, in a checkout beside the package."""
    package = Path(__file__).resolve().parent
    installed = package / '.mim' / 'configs'
    return installed if installed.is_dir() else package.parent / 'configs'


def register() -> None:
    """Teach mmengine our package. Calling it again changes nothing."""
    _utils.MODULE2PACKAGE.setdefault(PACKAGE, PACKAGE)
    Config._get_cfg_path = staticmethod(_config_path)
    _utils._get_package_and_cfg_path = _package_and_config
    hub = sys.modules.get('mmengine.hub.hub')
    if hub is not None:  # It has taken the function by name; imported later, it takes ours.
        hub._get_package_and_cfg_path = _package_and_config  # type: ignore[attr-defined]


def _config_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
    package, separator, name = cfg_path.partition('::')
    if separator and package == PACKAGE:
        return str(configs_folder() / name), None
    return _stock_config_path(cfg_path, filename)


def _package_and_config(cfg_path: str) -> tuple[str, str]:
    package, separator, name = cfg_path.partition('::')
    return (package, name) if separator and package == PACKAGE else _stock_package(cfg_path)
