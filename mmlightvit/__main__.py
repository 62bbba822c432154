# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``python -m mmlightvit``: the same as the console script."""

import sys

from mmlightvit.cli import main

if __name__ == '__main__':
    sys.exit(main())
