# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Parameters and multiply-adds of a config of any task; see --help and docs/analysis.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmlightvit.cli import call

if __name__ == '__main__':
    sys.exit(call('flops', prog='tools/analysis/get_flops.py'))
