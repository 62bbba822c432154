# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Test a checkpoint of any task; see --help and docs/training.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmlightvit.cli import call

if __name__ == '__main__':
    sys.exit(call('test', prog='tools/test.py'))
