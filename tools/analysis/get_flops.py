# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Parameters and multiply-adds of a config of any task, without its data.

Examples:
    python tools/analysis/get_flops.py configs/mask_rcnn_lightvit_t_1x.py
    python tools/analysis/get_flops.py configs/lightvit_t_imagenet.py --shape 384 384 --depth 4
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmengine.config import DictAction

from mmlightvit.errors import UserError, exit_on_user_error


def parse_args() -> argparse.Namespace:
    from mmlightvit.analysis.tables import FORMATS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape', type=int, nargs=2, metavar=('H', 'W'),
        help='input size in pixels (default: classifier 224 224, detector 800 1280, segmenter 512 512)',
    )  # fmt: skip
    parser.add_argument('--depth', type=int, default=2, help='levels of modules shown (default 2)')
    parser.add_argument('--format', choices=FORMATS, default='terminal', help='form of the table (default terminal)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='change the config')
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    args = parse_args()
    from mmlightvit.analysis.counting import count
    from mmlightvit.analysis.reports import count_report
    from mmlightvit.cli.entry import load_config

    if args.depth < 0:
        raise UserError(f'--depth: expected a number >= 0, got {args.depth}')
    cfg = load_config(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    print(count_report(count(cfg, args.shape), args.depth, args.format), end='')


if __name__ == '__main__':
    main()
