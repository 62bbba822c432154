# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Makes ``_base_ = 'mmlightvit::mask_rcnn_lightvit_t_1x.py'`` and mmengine's hub find our configs.

mmengine knows the packages that may stand before ``::`` by a fixed table, wants a folder in the name behind it, and
builds whatever it finds there in the scope of the package. Our configs lie in one folder and belong to the scope of
the toolbox they are for, which each names as its ``default_scope``. The table also takes mmseg for a part of the
distribution ``mmsegmentation`` and does not find it in another one.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from mmlightvit.durable.patching import patch

PACKAGE = 'mmlightvit'


def configs_folder() -> Path:
    """The folder of our configs: in an installation ``mmlightvit/.mim/configs``, in a checkout beside the package."""
    package = Path(__file__).resolve().parent
    installed = package / '.mim' / 'configs'
    return installed if installed.is_dir() else package.parent / 'configs'


def install() -> None:
    """Teach mmengine our package, for this process. Calling it again changes nothing.

    Raises:
        UnknownVersion: mmengine is not of a version that this was written for.
    """
    from mmengine.config import utils

    utils.MODULE2PACKAGE.setdefault(PACKAGE, PACKAGE)
    if not _is_distribution('mmsegmentation'):
        utils.MODULE2PACKAGE['mmseg'] = 'mmseg'
    patch('mmengine.config:Config', '_get_cfg_path', _with_our_folder, '(cfg_path, filename)')
    patch('mmengine.config.utils', '_get_package_and_cfg_path', _with_our_name, '(cfg_path)')
    hub = sys.modules.get('mmengine.hub.hub')
    if hub is not None:  # It has taken the function by name; imported later, it takes ours.
        hub._get_package_and_cfg_path = utils._get_package_and_cfg_path  # type: ignore[attr-defined]


def _is_distribution(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _with_our_folder(stock: Callable) -> Callable:
    @functools.wraps(stock)
    def config_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, separator, name = cfg_path.partition('::')
        if separator and package == PACKAGE:
            return str(configs_folder() / name), None
        return stock(cfg_path, filename)

    return config_path


def _with_our_name(stock: Callable) -> Callable:
    @functools.wraps(stock)
    def package_and_config(cfg_path: str) -> tuple[str, str]:
        package, separator, name = cfg_path.partition('::')
        return (package, name) if separator and package == PACKAGE else stock(cfg_path)

    return package_and_config
