# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""From a prepared config to its runner."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from mmlightvit.checkpoint import install as safe_loading
from mmlightvit.cli.config import read_config
from mmlightvit.cli.options import use_compile
from mmlightvit.durable import bfloat16, launch
from mmlightvit.toolboxes import import_toolbox


def read_run_config(args: argparse.Namespace) -> Config:
    """The config with the options applied that training and testing share."""
    cfg = read_config(args)
    if args.compile is not None:
        use_compile(cfg, args.compile)
    cfg.launcher = args.launcher
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    return cfg


def build_runner(cfg: Config) -> Runner:
    """The runner the config asks for (``runner_type``), MMEngine's otherwise."""
    if cfg.get('custom_imports'):
        import_modules_from_strings(**cfg.custom_imports)
    safe_loading.install()
    import_toolbox(cfg.default_scope)
    if (cfg.get('test_cfg') or {}).get('fp16') and get_device() == 'cpu':
        bfloat16.install()  # MMEngine's autocast takes it there; in training, the optimizer wrapper installs it
    env_cfg = cfg.get('env_cfg') or {}
    launch.init_distributed(cfg.launcher, env_cfg.get('dist_cfg'), env_cfg.get('mp_cfg'))
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
