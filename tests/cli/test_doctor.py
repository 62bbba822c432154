# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The environment check on environments that are made up: each broken in one way, and what it has to say."""

import subprocess
import sys

import pytest

from mmlightvit.cli.doctor import Findings, diagnose, gather, version_table

GOOD = {
    'torch': '2.11.0',
    'torchvision': '0.26.0',
    'numpy': '2.2.6',
    'opencv-python': '4.12.0.88',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmpretrain': '1.3.6',
    'onedl-mmsegmentation': '1.4.2',
}
ORIGINAL = {
    'torch': '2.1.2+cpu',
    'numpy': '1.26.4',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'mmpretrain': '1.2.0',
    'mmsegmentation': '1.2.2',
}
SYMBOL = 'ImportError: /x/mmcv/_ext.so: undefined symbol: _ZN3c1017RegisterOperators'


@pytest.mark.parametrize('versions', [GOOD, ORIGINAL], ids=['maintained', 'original'])
def test_good_environments_have_no_problem(versions):
    assert diagnose(Findings(versions, {})) == ([], [])


@pytest.mark.parametrize(
    ('changes', 'errors', 'said'),
    [
        ({}, {'mmcv.ops': 'AssertionError: nms miss in module _ext'}, ['another version', 'onedl-mmcv==2.3.6']),
        ({}, {'mmcv.ops': SYMBOL}, ['compiled for another PyTorch than the installed 2.11.0', 'Rebuild']),
        ({}, {'mmcv.ops': 'UserError: torchvision 0.26.0 has no operators'}, ['torchvision 0.26.0 has no operators']),
        ({'mmcv': '2.1.0'}, {}, ['Both onedl-mmcv and mmcv', 'pip uninstall -y onedl-mmcv mmcv']),
        ({'mmdet': '3.3.0'}, {}, ['Both onedl-mmdetection and mmdet']),
        ({'mmcv-lite': '2.2.0'}, {}, ['mmcv-lite', 'no compiled operators']),
        ({'torch': '1.13.1'}, {'numpy': 'x'}, ['too old']),
        ({'torch': None}, {}, ['PyTorch is not installed']),
        ({}, {'torch': 'OSError: libcudart.so.12: cannot open shared object file'}, ['PyTorch cannot be imported']),
        ({'onedl-mmcv': None}, {}, ['onedl-mmcv is not installed']),
        ({'torch': '2.1.2', 'numpy': '2.0.1'}, {}, ['built for NumPy 1', 'numpy<2']),
        ({'opencv-python-headless': '4.10.0.84'}, {}, ['OpenCV', 'different versions']),
        ({}, {'cv2': 'ImportError: libGL.so.1: cannot open shared object file'}, ['opencv-python-headless']),
        (
            {},
            {'mmdet.models': 'AssertionError: MMCV==2.2.0 is used but incompatible'},
            ['onedl-mmdetection cannot be imported', 'incompatible'],
        ),
    ],
)
def test_each_fault_is_named(changes, errors, said):
    versions = {name: version for name, version in {**GOOD, **changes}.items() if version is not None}
    problems = diagnose(Findings(versions, errors)).problems
    assert any(all(part in problem for part in said) for problem in problems), problems
    assert all('\n' not in problem for problem in problems)


def test_the_same_opencv_twice_is_harmless():
    assert diagnose(Findings({**GOOD, 'opencv-python-headless': '4.12.0.88'}, {})).problems == []


def test_broken_operators_are_said_once_not_per_toolbox():
    errors = dict.fromkeys(('mmcv.ops', 'mmdet.models', 'mmpretrain.models', 'mmseg.models'), SYMBOL)
    assert len(diagnose(Findings(GOOD, errors)).problems) == 1


def test_a_toolbox_may_be_missing_but_not_all():
    without = {name: version for name, version in GOOD.items() if name != 'onedl-mmsegmentation'}
    assert diagnose(Findings(without, {})) == (
        [],
        ['onedl-mmsegmentation is not installed: segmentation configs cannot be used.'],
    )
    bare = {name: without[name] for name in ('torch', 'numpy', 'onedl-mmengine', 'onedl-mmcv')}
    assert any('No toolbox' in problem for problem in diagnose(Findings(bare, {})).problems)


def test_operators_without_cuda_beside_a_gpu_are_noted():
    compiled = 'compiled (GCC 12.2)'
    assert any(
        'compiled without CUDA' in note for note in diagnose(Findings(GOOD, {}, 2, f'{compiled}, CPU only')).notes
    )
    assert diagnose(Findings(GOOD, {}, 2, f'{compiled}, CUDA 12.8')).notes == []


@pytest.mark.parametrize('torch', ['2.14.0', '2.15.0.dev20260101'])
def test_a_pytorch_is_too_new_to_compile_operators_alone(torch):
    versions = {**GOOD, 'torch': torch}
    assert diagnose(Findings(versions, {}, 0, 'torchvision 0.29.0, CPU only: nms')).problems == []
    (problem,) = diagnose(Findings(versions, {}, 0, 'compiled (GCC 12.2), CPU only')).problems
    assert f'PyTorch {torch} is too new' in problem and '2.14' in problem


def test_gather_reads_metadata_and_survives_a_crashing_import(monkeypatch, tmp_path):
    """A distribution on the path, with a package that prints and one that kills the interpreter."""
    for name, version in (('onedl-mmengine', '9.9'), ('onedl_mmcv', '8.8')):
        info = tmp_path / f'{name}-{version}.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
    (tmp_path / 'mmengine.py').write_text('print("hello")\n')
    (tmp_path / 'mmcv.py').write_text('import os\nos._exit(139)\n')
    monkeypatch.setattr('mmlightvit.cli.doctor.PROBED', ('mmengine', 'mmcv', 'mmdet.models'))
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    found = gather()
    assert found.versions == {'onedl-mmengine': '9.9', 'onedl-mmcv': '8.8'}
    assert found.import_errors == {'mmcv': 'the interpreter crashed (exit code 139)'}
    assert ('onedl-mmcv', '8.8') in version_table(found)
    assert ('mmcv operators', 'not usable') in version_table(found)
    assert ('mmcv operators', 'by hand') in version_table(Findings(GOOD, {}, operators='by hand'))


def test_the_tool_has_help(repo):
    shown = subprocess.run(
        [sys.executable, repo / 'tools/misc/check_env.py', '--help'], capture_output=True, text=True, check=True
    )
    assert 'examples:' in shown.stdout
