#!/usr/bin/env python
# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Convert a LightViT checkpoint; see --help and docs/checkpoints.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmlightvit.cli import call

if __name__ == '__main__':
    sys.exit(call('convert', prog='tools/convert_checkpoint.py'))
