# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""`make install` by a Python that only notes what it is asked for; and each target has a job of CI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

#: Stands for Python: makes a .venv of itself, and installs by writing for which torch mmcv is compiled, if it is.
PYTHON = r"""#!/bin/bash
site=.venv/lib/python3.11/site-packages/mmcv
case "$*" in
    "-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *" -e .["*) echo "$*" | grep -oE 'torch==[0-9.]+' | head -1 > torch ;;
    *uninstall*) rm -rf $site ;;
    *toolboxes.txt*)
        echo "$*" | grep -oE 'pip-[a-z0-9=.-]+' >> caches
        [[ -d $site ]] && exit
        mkdir -p $site
        [[ $* != *--no-build-isolation* ]] || { cp torch $site/_ext.cpython-311.so; echo compiled >> caches; } ;;
    *mmcv._ext*) cmp -s torch $site/_ext.*.so ;;
    *__version__*) cat torch ;;
esac
"""
OTHER_TORCH = 'TORCH=torch==2.10.0 torchvision==0.25.0'


@pytest.fixture
def checkout(repo, tmp_path, monkeypatch) -> Path:
    for name in ('Makefile', 'setup.py', 'pyproject.toml'):
        shutil.copy(repo / name, tmp_path)
    shutil.copytree(repo / 'requirements', tmp_path / 'requirements')
    (tmp_path / 'python').write_text(PYTHON)
    (tmp_path / 'python').chmod(0o755)
    for name in ('MAKEFLAGS', 'MAKELEVEL', 'OPERATORS', 'TORCH'):  # of the make that runs the tests
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def make(checkout: Path, *words: str) -> tuple[list[str], str]:
    """The wheel caches that toolboxes were installed from and whether mmcv was compiled; its operators afterwards."""
    notes = checkout / 'caches'
    notes.write_text('')
    command = ['make', 'install', f'PYTHON={checkout}/python', *words]
    done = subprocess.run(
        command, cwd=checkout, capture_output=True, text=True, check=False, timeout=60, env=os.environ
    )
    if done.returncode:
        return [], done.stderr
    compiled = [path.read_text().strip() for path in checkout.glob('.venv/lib/python3.11/site-packages/mmcv/_ext*.so')]
    return notes.read_text().split(), ''.join(compiled) or 'pure'


def test_operators_are_compiled_when_asked_for_and_then_kept(checkout):
    assert make(checkout) == (['pip-pure'], 'pure')
    assert make(checkout) == ([], 'pure')
    assert make(checkout, 'OPERATORS=compiled') == (['pip-torch-torch==2.11.0', 'compiled'], 'torch==2.11.0')
    assert make(checkout) == ([], 'torch==2.11.0')
    # Compiled for one PyTorch, they are none for another.
    assert make(checkout, OTHER_TORCH) == (['pip-torch-torch==2.10.0', 'compiled'], 'torch==2.10.0')
    assert make(checkout) == ([], 'torch==2.10.0')
    assert make(checkout, 'OPERATORS=pure') == (['pip-pure'], 'pure')
    assert make(checkout, OTHER_TORCH, 'OPERATORS=compiled')[1] == 'torch==2.10.0'


def test_operators_that_another_has_compiled_are_kept(checkout):
    make(checkout)
    (checkout / '.venv/lib/python3.11/site-packages/mmcv/_ext.cpython-311.so').write_text('torch==2.11.0\n')
    assert make(checkout) == (['pip-torch-torch==2.11.0'], 'torch==2.11.0')
    assert make(checkout) == ([], 'torch==2.11.0')


def test_another_word_is_refused(checkout):
    assert "OPERATORS is pure or compiled, not 'cuda'" in make(checkout, 'OPERATORS=cuda')[1]


def test_each_target_has_a_job(repo):
    targets = dict(re.findall(r'^([a-z-]+):(.*)## ', (repo / 'Makefile').read_text(), re.MULTILINE))
    jobs = ' '.join(path.read_text() for path in [*(repo / '.github/workflows').glob('*.yml'), repo / '.ci/run'])
    called = {
        word for words in re.findall(r'(?:^|run: |time )make ([a-z -]+)', jobs, re.MULTILINE) for word in words.split()
    }
    called |= set(re.findall(r'^ +- ([a-z-]+)$', jobs, re.MULTILINE))  # of a matrix
    assert {'demo', 'test', 'test-page'} <= called <= set(targets)
    called |= {word for target in called for word in targets[target].split()}  # test asks for lint
    assert set(targets) - called == {'help', 'clean'}
