# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Test a checkpoint of any task.

Example: ``python tools/test.py configs/mask_rcnn_lightvit_t_1x.py work_dirs/run/epoch_12.pth``; see ``--help`` and
docs/training.md.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmlightvit.cli.entry import test, test_parser
from mmlightvit.errors import exit_on_user_error


@exit_on_user_error
def main() -> None:
    test(test_parser().parse_args())


if __name__ == '__main__':
    main()
