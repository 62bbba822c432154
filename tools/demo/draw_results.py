# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Draw what a trained model predicts, and how its training went.

Example: ``python tools/demo/draw_results.py configs/demo/mask_rcnn_lightvit_digits.py
work_dirs/demo/detection/epoch_3.pth work_dirs/demo/detection``; see docs/demo.md.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from contact_sheet import contact_sheet, predict

from mmlightvit.cli.config import load_config
from mmlightvit.cli.quiet import quiet_terminal
from mmlightvit.errors import exit_on_user_error
from mmlightvit.explain.curves import plot_logs, read_run
from mmlightvit.toolboxes import import_toolbox


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='tools/demo/draw_results.py',
        description='Draw predictions on the test set beside the truth, and the curves of the training.',
        epilog='example: python tools/demo/draw_results.py configs/demo/mask_rcnn_lightvit_digits.py '
        'work_dirs/demo/detection/epoch_3.pth work_dirs/demo/detection',
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('work_dir', type=Path, help='work directory of the training; the pictures go there too')
    parser.add_argument('--count', type=int, default=24, help='number of images (default: %(default)s)')
    parser.add_argument('--columns', type=int, default=6, help='images per row (default: %(default)s)')
    parser.add_argument(
        '--score-thr', type=float, default=0.5, help='lowest score of a drawn box (default: %(default)s)'
    )
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    args = parse_args()
    curves, predictions = args.work_dir / 'curves.png', args.work_dir / 'predictions.png'
    plot_logs([read_run(args.work_dir)], curves)
    cfg = load_config(args.config)
    with quiet_terminal() as quiet:
        with quiet.imports():
            import_toolbox(cfg.default_scope)
        contact_sheet(predict(cfg, args.checkpoint, args.count, args.score_thr), predictions, args.columns)
    print(f'training curves: {curves}\npredictions on the test set: {predictions}')


if __name__ == '__main__':
    main()
