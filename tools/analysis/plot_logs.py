# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Loss, learning rate, memory and metrics of one or several training runs, from their work directories.

A run that was resumed is drawn as one. Memory is logged on GPUs alone.

Examples:
    python tools/analysis/plot_logs.py work_dirs/mask_rcnn_lightvit_t_1x
    python tools/analysis/plot_logs.py work_dirs/a work_dirs/b --metrics coco/bbox_mAP coco/segm_mAP --out ab.png
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmlightvit.errors import exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'work_dirs', nargs='+', type=Path, metavar='WORK_DIR', help='work directories of tools/train.py'
    )
    parser.add_argument(
        '--metrics', nargs='+', metavar='NAME', help='validation metrics (default: up to four overall ones)'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('outputs/logs.png'), metavar='FILE', help='the picture (default: %(default)s)'
    )
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    args = parse_args()
    from mmlightvit.explain.curves import metric_names, plot_logs, read_run

    runs = [read_run(folder) for folder in args.work_dirs]
    plot_logs(runs, args.out, args.metrics)
    print(f'written: {args.out} (metrics of the runs: {", ".join(metric_names(runs)) or "none"})')


if __name__ == '__main__':
    main()
