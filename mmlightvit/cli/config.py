# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Reading a config and applying the options that every command on a config has."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
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


def read_config(args: argparse.Namespace, first: Callable[[Config], None] | None = None) -> Config:
    """The config of :func:`~mmlightvit.cli.arguments.add_config_arguments`, with its options applied.

    Args:
        args: The command's arguments.
        first: Changes the config before the options do.

    Raises:
        UserError: It cannot be read, or an option does not fit it.
    """
    cfg = load_config(args.config)
    if first is not None:
        first(cfg)
    if args.data_root is not None:
        from mmlightvit.data.data_root import move_data_root

        move_data_root(cfg, os.path.expanduser(args.data_root))
    if args.cfg_options:
        from mmlightvit.cli.settings import change

        change(cfg, args.cfg_options)
    return cfg


def read_run_config(args: argparse.Namespace, first: Callable[[Config], None] | None = None) -> Config:
    """The config of a command with :func:`~mmlightvit.cli.arguments.add_run_arguments`, with its options applied.

    Args:
        args: The command's arguments.
        first: Changes the config before the options do.

    Raises:
        UserError: It cannot be read, or an option does not fit it.
    """
    from mmlightvit.cli import options

    cfg = read_config(args, first)
    options.drop_idle_workers(cfg)
    if args.compile is not None:
        options.use_compile(cfg, args.compile)
    cfg.launcher = args.launcher
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    return cfg
