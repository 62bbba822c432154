# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Moved to tools/paper; this name works in one more version."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'paper'))

from moved import run

run(Path(__file__))
