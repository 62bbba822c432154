# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The wheel carries what mim and ``_base_ = 'mmlightvit::...'`` look for; a clean environment finds it."""

from __future__ import annotations

import sys
import sysconfig
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import licences
import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mmlightvit import config_paths
from mmlightvit.config_paths import configs_folder

config_paths.install()

CONFIG = 'mask_rcnn_lightvit_t_1x.py'


def test_wheel_carries_configs_tools_and_index(repo, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    # Of the tools, what users call.
    unshipped = {'paper', 'visualization', 'maintenance', 'evidence', 'benchmark.py', 'paper_tables.py'}
    expected = {
        f'mmlightvit/.mim/{path.relative_to(repo)}'
        for folder in ('configs', 'tools', 'requirements')
        for path in (repo / folder).rglob('*')
        if path.is_file() and path.suffix != '.pyc' and not unshipped & set(path.relative_to(repo).parts)
    }
    assert len(expected) > 50
    assert {name for name in names if name.startswith('mmlightvit/.mim/tools/')} <= expected
    assert names >= expected | {'mmlightvit/.mim/model-index.yml'}
    assert names >= {
        f'{path.relative_to(repo)}' for path in (repo / 'mmlightvit').rglob('*.py') if '.mim' not in path.parts
    }
    assert {'mmlightvit/deploy/page/static/index.html', 'mmlightvit/deploy/page/static/page.js'} <= names
    assert not any('__pycache__' in name or name.startswith('tests') for name in names)


def test_wheel_requires_no_distribution_that_excludes_another(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith('METADATA'))
        metadata = archive.read(name).decode()
    required = [line for line in metadata.splitlines() if line.startswith('Requires-Dist') and 'extra ==' not in line]
    names = {line.removeprefix('Requires-Dist: ') for line in required}
    assert names == {'numpy', 'pillow', 'packaging', 'rich', 'safetensors'}
    assert 'Requires-Python: >=3.11' in metadata


def test_train_has_all_that_the_toolboxes_require(repo):
    extras = licences.requirements(repo / 'setup.py')
    toolboxes = [Requirement(line).name for line in extras['toolboxes.txt']]
    assert len(toolboxes) == 6
    requirements = [Requirement(line) for name in toolboxes for line in distribution(name).requires or ()]
    needed = {
        canonicalize_name(requirement.name)
        for requirement in requirements
        if not requirement.marker or requirement.marker.evaluate({'extra': '', 'sys_platform': 'win32'})
    }
    there = {canonicalize_name(Requirement(line).name) for line in [*extras[''], *extras['train']]}
    left_out = {*toolboxes, 'opencv-python-headless', 'imagecorruptions-imaug'}
    assert needed - left_out <= there
    assert not left_out & there


SCRIPT = """
import importlib.metadata, pathlib, runpy, sys
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.utils import get_installed_path
import mmlightvit
from mmlightvit import config_paths

config_paths.install()
package = pathlib.Path(mmlightvit.__file__).parent
assert pathlib.Path(sys.prefix) in package.parents, package
assert pathlib.Path(get_installed_path('mmlightvit')) == package
assert importlib.metadata.version('mmlightvit') == mmlightvit.__version__
cfg = Config.fromfile('user.py')
assert cfg.model.backbone.type == 'mmlightvit.LightViT'
assert cfg.model.backbone.arch == 'small'
assert cfg.model.type == 'MaskRCNN'
assert cfg.default_scope == 'mmdet'
cfg = get_config('mmlightvit::lightvit_t_imagenet.py', pretrained=True)
assert cfg.filename == str(package / '.mim' / 'configs' / 'lightvit_t_imagenet.py')
assert '://' in cfg.model_path
print('found')
sys.argv = ['train.py', '--help']
runpy.run_path(str(package / '.mim' / 'tools' / 'train.py'), run_name='__main__')
"""


def test_a_clean_environment_finds_configs(run, wheel, tmp_path):
    run(sys.executable, '-m', 'venv', '--without-pip', tmp_path / 'venv', cwd=tmp_path)
    python = tmp_path / 'venv' / 'bin' / 'python'
    site = Path(run(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))', cwd=tmp_path).strip())
    # The toolboxes of this environment, behind the clean one's own packages.
    (site / 'toolboxes.pth').write_text(sysconfig.get_path('purelib') + '\n')
    run(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index', wheel, cwd=tmp_path)
    (tmp_path / 'user.py').write_text(f"_base_ = 'mmlightvit::{CONFIG}'\nmodel = dict(backbone=dict(arch='small'))\n")
    assert 'commands:' in run(tmp_path / 'venv' / 'bin' / 'mmlightvit', '--help', cwd=tmp_path)
    out = run(python, '-W', 'ignore', '-c', SCRIPT, cwd=tmp_path)
    assert 'found\n' in out
    assert 'usage: ' in out


def test_in_a_checkout_too(repo, tmp_path):
    assert configs_folder() in (repo / 'configs', repo / 'mmlightvit' / '.mim' / 'configs')
    (tmp_path / 'user.py').write_text("_base_ = 'mmlightvit::ablation/table6_2_global_tokens.py'\n")
    cfg = Config.fromfile(tmp_path / 'user.py')
    assert cfg.model.backbone.num_global_tokens == 2
    # Our types are named with our scope; all others are left to the toolbox of the config.
    assert '_scope_' not in cfg.model
    assert Config.fromfile(repo / 'configs' / 'ablation' / 'table6_2_global_tokens.py').model == cfg.model


def test_other_packages_are_found_as_before():
    with pytest.raises(ValueError, match='please specify the package name'):
        get_config('mmdet::no_folder.py')


@pytest.mark.parametrize(
    ('base', 'model'),
    [('mmseg::_base_/models/fpn_r50.py', 'EncoderDecoder'), ('mmdet::_base_/models/mask-rcnn_r50_fpn.py', 'MaskRCNN')],
)
def test_bases_of_the_toolboxes_are_found_in_either_distribution(base, model, tmp_path):
    pytest.importorskip(base.partition('::')[0])
    (tmp_path / 'user.py').write_text(f"_base_ = '{base}'\n")
    assert Config.fromfile(tmp_path / 'user.py').model.type == model
