# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Read the data that a config names and list every problem, before training meets it.

Example: ``python tools/misc/check_dataset.py configs/mask_rcnn_lightvit_t_1x.py``; see ``--help`` and docs/data.md.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmengine.config import DictAction
from rich.console import Console
from rich.progress import track

from mmlightvit.cli.entry import import_toolbox, load_config
from mmlightvit.data.check import check_config
from mmlightvit.data.data_root import SPLITS, move_data_root
from mmlightvit.errors import exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='tools/misc/check_dataset.py',
        description='Read the data that a config names and list every problem; exit code 1 if there is any.',
        epilog='example: python tools/misc/check_dataset.py configs/mask_rcnn_lightvit_t_1x.py --data-root /data/coco',
    )
    parser.add_argument('config', help='config file of any task')
    parser.add_argument('--split', nargs='+', choices=SPLITS, default=list(SPLITS), help='default: all that it has')
    parser.add_argument('--data-root', metavar='DIR', help='where the data is: moves every split')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change settings of the config, e.g. train_dataloader.dataset.ann_file=FILE',
    )
    return parser.parse_args()


@exit_on_user_error
def main() -> int:
    args = parse_args()
    cfg = load_config(args.config)
    if args.data_root is not None:
        move_data_root(cfg, os.path.expanduser(args.data_root))
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    import_toolbox(cfg.default_scope)
    console = Console(stderr=True)

    def progress(items: Iterable, what: str, total: int) -> Iterable:
        return track(items, what, total, console=console)

    report = check_config(cfg, args.split, progress)
    for line in report.notes:
        print(f'note: {line}')
    for line in report.problems:
        print(f'problem: {line}')
    print(f'{len(report.problems) or "no"} problem{"s" * (len(report.problems) != 1)} in {report.images} images')
    return 1 if report.problems else 0


if __name__ == '__main__':
    main()
