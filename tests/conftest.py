# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Fixtures that more than one test module needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

# Before torch is imported: many small tests on few cores are fastest with one thread.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')

import pytest

from mmlightvit import operators

# Before a test module imports a toolbox, which would keep a fall-back where mmcv has no compiled operators.
operators.install()

# Tests that import OpenVINO themselves tell nobody either: mmlightvit.deploy.formats.openvino.import_openvino.
sys.modules.setdefault('openvino_telemetry', None)

ROOT = Path(__file__).resolve().parents[1]
# Tests import `oracles`, the demo's data and the paper's tables.
sys.path[:0] = [str(folder) for folder in (Path(__file__).parent, ROOT / 'tools' / 'demo', ROOT / 'tools' / 'paper')]


@pytest.fixture(scope='session', autouse=True)
def _unformatted_dumps() -> Iterator[None]:
    """MMEngine formats the config for each of its dumps, which takes longer than most trainings here."""
    with mock.patch('yapf.yapflib.yapf_api.FormatCode', lambda text, **settings: (text, True)):
        yield


@pytest.fixture(scope='session')
def repo() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope='session')
def shared() -> Path:
    """Real images beside the checkout; tests that need them skip without."""
    path = ROOT.parent / 'shared'
    if not path.is_dir():
        pytest.skip(f'needs the real images in {path}, which are not there')
    return path
