# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What has to work where a toolbox is not installed, each case in an interpreter that cannot see it."""

from __future__ import annotations

import subprocess
import sys

from variants import TEST_ARCH

WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split('.')[0] in {hidden!r} else super().find_spec(name, path, target)

sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
{code}
"""


def run_without(hidden: set[str], code: str, repo) -> str:
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', WITHOUT.format(hidden=hidden, code=code)],
        capture_output=True,
        text=True,
        cwd=repo,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_no_toolbox_and_needs_no_fcntl(repo):
    code = """
sys.modules['fcntl'] = None
import importlib, pkgutil
import mmlightvit, mmlightvit.registry, mmlightvit.models.backbones
print([name for name in ('mmcv', 'mmdet', 'mmpretrain', 'mmseg') if name in sys.modules])
import mmlightvit.checkpoint, mmlightvit.durable
for package in (mmlightvit.durable, mmlightvit.checkpoint):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):
        importlib.import_module(module.name)
"""
    assert run_without(set(), code, repo).splitlines()[-1] == '[]'


def test_backbone_needs_torch_and_mmengine_only(repo):
    code = f"""
import mmlightvit
from mmengine.registry import MODELS
import torch
model = MODELS.build(dict(type='mmlightvit.LightViT', arch={TEST_ARCH!r})).eval()
print([tuple(f.shape) for f in model(torch.rand(1, 3, 40, 64))])
"""
    out = run_without({'mmcv', 'mmdet', 'mmpretrain', 'mmseg', 'torchvision', 'timm'}, code, repo)
    assert out.splitlines()[-1] == '[(1, 8, 5, 8), (1, 16, 3, 4), (1, 32, 2, 2)]'


def test_detection_works_without_the_other_toolboxes(repo):
    code = f"""
import mmlightvit.operators.installed
from mmengine import Config
from mmengine.registry import init_default_scope
from mmlightvit.durable.runner import Runner
from mmlightvit.registry import HOOKS, DATASETS, RUNNERS
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
register_all_modules()
cfg = Config.fromfile('configs/mask_rcnn_lightvit_t_1x.py')
cfg.model.backbone.init_cfg = None
cfg.model.backbone.arch = {TEST_ARCH!r}
cfg.model.neck.in_channels = [8, 16, 32]
print(type(MODELS.build(cfg.model)).__name__)
"""
    assert run_without({'mmpretrain', 'mmseg'}, code, repo).splitlines()[-1] == 'MaskRCNN'
