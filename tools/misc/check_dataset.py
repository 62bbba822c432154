# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Read the data that a config names and list every problem; see --help and docs/data.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmlightvit.cli import call

if __name__ == '__main__':
    sys.exit(call('check', prog='tools/misc/check_dataset.py'))
