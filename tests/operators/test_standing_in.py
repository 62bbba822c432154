# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""When torchvision's operators stand in for mmcv's: not by themselves, not too late, not for a broken build.

Each case is a process whose mmcv is a copy without compiled operators, so they run beside a compiled build too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip('mmcv')

import mmcv

from mmlightvit import operators
from mmlightvit.errors import UserError


@pytest.fixture(scope='module')
def pure(tmp_path_factory) -> Path:
    """A folder with mmcv as plain pip installs it."""
    folder = tmp_path_factory.mktemp('pure')
    leave = shutil.ignore_patterns('csrc', '*.so', '*.pyd', '__pycache__')
    shutil.copytree(Path(mmcv.__file__).parent, folder / 'mmcv', ignore=leave)
    return folder


def run(*command: str, path: list[Path], cwd: Path) -> SimpleNamespace:
    """A Python process with folders in front of its path; gives its code and its last lines."""
    variables = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, path)), 'PYTHONWARNINGS': 'ignore'}
    done = subprocess.run(
        [sys.executable, *command], env=variables, cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
    last = ['', *done.stderr.splitlines()][-1]
    return SimpleNamespace(code=done.returncode, out=done.stdout, error=last, text=done.stdout + done.stderr)


UNTOUCHED = """
import sys
before = list(sys.meta_path)
import mmlightvit, mmlightvit.operators, mmlightvit.registry, mmlightvit.toolboxes
assert sys.meta_path == before and 'torch' not in sys.modules or 'mmengine' in sys.modules
try:
    import mmcv.ops
except ModuleNotFoundError as error:
    print(error)
"""
TOO_LATE = """
import {first}
import mmlightvit.operators.installed
"""
EARLY = """
import mmlightvit.operators.installed
assert 'torch' not in __import__('sys').modules
import mmseg.utils, mmdet.utils.large_image
from mmengine.utils.dl_utils import mmcv_full_available
assert mmcv_full_available()
from mmcv.ops import point_sample, batched_nms
assert mmseg.utils.mask_classification.point_sample is point_sample
assert mmdet.utils.large_image.batched_nms is batched_nms
import mmcv.ops
from mmlightvit import operators
operators.install()
print(operators.describe())
mmcv.ops.RoIAlignRotated((3, 3), 1.0, 2)(mmcv.ops.bbox.torch.zeros(1, 1, 4, 4), mmcv.ops.bbox.torch.zeros(1, 6))
"""


def test_importing_the_package_changes_nothing(pure, repo, tmp_path):
    seen = run('-c', UNTOUCHED, path=[pure, repo], cwd=tmp_path)
    assert (seen.code, seen.out) == (0, "No module named 'mmcv._ext'\n"), seen.text


@pytest.mark.parametrize(
    ('first', 'held'),
    [
        ('mmseg.utils', 'mmseg.utils.mask_classification.point_sample'),
        ('mmdet.structures.mask', 'mmdet.structures.mask.structures.roi_align'),
    ],
)
def test_too_late_is_refused_in_one_line(pure, repo, tmp_path, first, held):
    pytest.importorskip(first.partition('.')[0])
    seen = run('-c', TOO_LATE.format(first=first), path=[pure, repo], cwd=tmp_path)
    assert seen.code == 1
    assert seen.error.startswith(f'mmlightvit.errors.UserError: {held} was left without an operator of mmcv'), seen.text
    assert 'put the line "import mmlightvit.operators.installed" at the top of the program' in seen.error


def test_early_enough_the_toolboxes_have_operators_and_a_missing_one_is_named(pure, repo, tmp_path):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    seen = run('-c', EARLY, path=[pure, repo], cwd=tmp_path)
    assert seen.out.startswith('torchvision ') and 'roi_align, roi_pool' in seen.out, seen.text
    assert seen.code == 1
    line = 1 + next(number for number, text in enumerate(EARLY.splitlines()) if 'RoIAlignRotated' in text)
    assert f'UserError: roi_align_rotated_forward of mmcv, called by __main__, line {line}, is not among' in seen.error
    assert '--no-build-isolation' in seen.error and 'onedl-mmcv' in seen.error


#: What is said of a module in the place of the compiled one, by its text.
BROKEN = {
    "raise ImportError('/x/mmcv/_ext.so: undefined symbol: _ZN3c10')": 'were compiled for another PyTorch than',
    "raise ImportError('bad magic')": "mmcv's operators cannot be loaded: bad magic",
    'def nms(): ...': 'are of another version than mmcv: active_rotated_filter_forward miss in module _ext',
}
DOOR = """
import pathlib, sys
sys.dont_write_bytecode = True
from mmlightvit.errors import UserError
from mmlightvit.toolboxes import import_toolbox
for extension in {extensions}:
    pathlib.Path({file!r}).write_text(extension)
    for name in [name for name in sys.modules if name.startswith(('mmcv.ops', 'mmcv._ext'))]:
        del sys.modules[name]
    try:
        import_toolbox('mmpretrain')
    except UserError as error:
        print(error)
"""


def test_a_broken_build_is_one_line_with_both_commands(pure, repo, tmp_path):
    pytest.importorskip('mmpretrain')
    broken = shutil.copytree(pure, tmp_path / 'broken')
    code = DOOR.format(extensions=[*BROKEN], file=str(broken / 'mmcv' / '_ext.py'))
    seen = run('-c', code, path=[broken, repo], cwd=tmp_path)
    messages = seen.out.splitlines()
    assert len(messages) == len(BROKEN), seen.text
    for message, cause in zip(messages, BROKEN.values()):
        assert message.startswith('mmcv') and cause in message
        assert message.count('pip install') == 2


def test_a_torchvision_without_operators_is_named(pure, repo, tmp_path):
    fake = tmp_path / 'torchvision' / '__init__.py'
    fake.parent.mkdir()
    fake.write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    code = 'import mmlightvit.operators.installed\nimport mmcv.ops'
    seen = run('-c', code, path=[tmp_path, pure, repo], cwd=tmp_path)
    assert 'cannot be imported (operator torchvision::nms does not exist); install the torchvision' in seen.error


def test_a_torchvision_for_the_cpu_beside_a_gpu_is_named(monkeypatch):
    pytest.importorskip('torchvision')  # it defines the operator that is replaced
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(torch.ops.torchvision, '_cuda_version', lambda: -1)
    with pytest.raises(UserError, match=r'is a build for the CPU beside a PyTorch for CUDA 13\.0'):
        operators._check_torchvision()


PROBE = """
import pkgutil, sys, mmcv.ops
name = '{held}'
assert pkgutil.resolve_name(name.replace('.nms', ':nms')) is getattr(mmcv.ops, name.rpartition('.')[2])
print('there')
sys.exit(3)
"""


@pytest.mark.parametrize(
    ('toolbox', 'held'),
    [
        ('mmpretrain', 'mmcv.ops.nms'),
        ('mmseg', 'mmseg.utils.mask_classification.point_sample'),
        ('mmdet', 'mmdet.structures.mask.structures.roi_align'),
    ],
)
def test_the_toolboxes_own_programs_have_them_by_a_line_of_the_config(pure, repo, tmp_path, toolbox, held):
    """The config looks for an operator where the toolbox holds it, and ends the program."""
    folder = Path(pytest.importorskip(toolbox).__file__).parent / '.mim' / 'tools'
    (tmp_path / 'probe.py').write_text(PROBE.format(held=held))
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['mmlightvit.operators.installed', 'probe'])\n")
    seen = run(str(folder / 'train.py'), str(config), path=[pure, repo, tmp_path], cwd=tmp_path)
    assert (seen.code, seen.out.splitlines()[-1:]) == (3, ['there']), seen.text


def test_a_line_in_site_packages_is_enough_for_all_programs(pure, repo, tmp_path):
    (tmp_path / 'mmlightvit_operators.pth').write_text('import mmlightvit.operators.installed\n')
    code = f"import site, sys; site.addsitedir({str(tmp_path)!r}); assert 'torch' not in sys.modules; import mmcv.ops"
    seen = run('-c', code, path=[pure, repo], cwd=tmp_path)
    assert seen.code == 0, seen.text


WORKER = """
import multiprocessing, sys
{line}

def work():
    import mmcv.ops

if __name__ == '__main__':
    worker = multiprocessing.get_context('spawn').Process(target=work)
    worker.start()
    worker.join()
    sys.exit(worker.exitcode)
"""


def test_a_spawned_worker_has_them_by_the_line_at_the_top_of_the_program(pure, repo, tmp_path):
    """A spawned process imports the main program again, and nothing of what that did later."""
    (tmp_path / 'program.py').write_text(WORKER.format(line=operators.LINE))
    seen = run('program.py', path=[pure, repo], cwd=tmp_path)
    assert seen.code == 0, seen.text
