# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Say what is installed and, in plain words, what is wrong with it; exit code 1 if something is."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmlightvit.cli import call

if __name__ == '__main__':
    sys.exit(call('doctor', prog='tools/misc/check_env.py'))
