# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The wheel that the tests of this folder look into and install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def run_alone(*command: object, cwd: Path, timeout: float = 300, **variables: str) -> str:
    """What a command prints that knows nothing of this environment; it has to succeed."""
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'} | variables
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope='session')
def run() -> Callable[..., str]:
    return run_alone


@pytest.fixture(scope='session')
def wheel(repo, tmp_path_factory) -> Path:
    """The wheel, built from a copy, so that no build folder is left in the checkout; or MMLIGHTVIT_WHEEL."""
    if 'MMLIGHTVIT_WHEEL' in os.environ:
        return Path(os.environ['MMLIGHTVIT_WHEEL']).resolve(strict=True)
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    source.mkdir()
    for name in ('mmlightvit', 'configs', 'tools', 'requirements'):
        shutil.copytree(repo / name, source / name, ignore=shutil.ignore_patterns('__pycache__', '.mim'))
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE', 'model-index.yml'):
        shutil.copy(repo / name, source / name)
    options = ('--no-deps', '--no-build-isolation', '--no-index', '--wheel-dir', folder)
    run_alone(sys.executable, '-m', 'pip', 'wheel', *options, source, cwd=folder)
    (path,) = folder.glob('mmlightvit-*.whl')
    return path
