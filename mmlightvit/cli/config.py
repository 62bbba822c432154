# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Reading a config."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mmlightvit.errors import UserError
from mmlightvit.toolboxes import require_toolbox

if TYPE_CHECKING:
    from mmengine.config import Config

ENDINGS = ('.py', '.json', '.yaml', '.yml')


def require_config(path: str) -> None:
    """The file exists and may be a config; answers before anything is imported.

    Raises:
        UserError: It does not, or may not.
    """
    if not os.path.isfile(path):
        folder = Path(__file__).resolve().parents[2] / 'configs'
        raise UserError(f'config not found: {path}; configs are in {folder}')
    if not path.endswith(ENDINGS):
        raise UserError(f'{path} is no config: its name does not end in {", ".join(ENDINGS)}')


def require_file(path: str, what: str, option: str) -> None:
    """A local file exists; addresses pass.

    Raises:
        UserError: It does not, or is a folder.
    """
    local = os.path.expanduser(path)
    if '://' in path or os.path.isfile(local):
        return
    problem = 'is a folder, not a file' if os.path.isdir(local) else 'not found'
    raise UserError(f'{what} {problem}: {os.path.abspath(local)}; give another with {option}')


def load_config(path: str) -> Config:
    """Read a config without importing what it names.

    Raises:
        UserError: The file, a base of it, or the toolbox its base lies in does not exist; it is no config, or has a
            mistake; or it names no toolbox.
    """
    require_config(path)
    from mmengine.config import Config

    from mmlightvit import config_paths

    config_paths.install()
    try:
        cfg = Config.fromfile(path, import_custom_modules=False)
    except FileNotFoundError as error:
        raise UserError(f'{path} builds on a file that does not exist: {error}') from error
    except ModuleNotFoundError as error:
        raise UserError(f'{path} needs a package that is not installed: {error}; see docs/install.md') from error
    except SyntaxError as error:
        where = f'line {error.lineno}: {(error.text or "").strip()}'
        raise UserError(f'{path}, or a file that it builds on, is no Python: {error.msg} ({where})') from error
    except Exception as error:  # a config is a program of the user's, which may raise anything
        raise UserError(f'{path} cannot be read: {type(error).__name__}: {error}') from error
    require_toolbox(cfg.get('default_scope'), path)
    return cfg
