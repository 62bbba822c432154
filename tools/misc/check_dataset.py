# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The former name of `mmlightvit check`: read data and list every problem; see --help and docs/data.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmlightvit.cli import call

if __name__ == '__main__':
    code = call('check', prog='tools/misc/check_dataset.py')
    if code == 0:
        print('tools/misc/check_dataset.py is now mmlightvit check; it goes with the next version', file=sys.stderr)
    sys.exit(code)
