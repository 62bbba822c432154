# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The former names of these tools, in tools/analysis and tools/visualization."""

import runpy
import sys
from pathlib import Path


def run(former: Path) -> None:
    """Run the tool of the same name here, and say that it has moved.

    Args:
        former: The file that stands where the tool was.
    """
    print(f'warning: tools/{former.parent.name}/{former.name} is now tools/paper/{former.name}', file=sys.stderr)
    runpy.run_path(str(Path(__file__).with_name(former.name)), run_name='__main__')
