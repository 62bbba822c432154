# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Accuracy against multiply-adds, parameters and speed: the paper's published numbers, and measured ones (Figure 1).

Examples:
    python tools/paper/accuracy_plot.py --out figure1.png
    python tools/paper/accuracy_plot.py --measured mine.csv --out figure1.pdf

A CSV of measured models has the columns name, top1 (percent), flops (G), params (M), throughput (images/s); of the last
three any may be missing. The published throughput is that of one V100: compare it with nothing else.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmlightvit.errors import exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--measured', type=Path, metavar='CSV', help='measured models to add')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('outputs/accuracy.png'),
        metavar='FILE',
        help='the picture (default: %(default)s)',
    )
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    args = parse_args()
    from plots import plot_accuracy, published_points, read_measured

    points = published_points() + (read_measured(args.measured) if args.measured else [])
    plot_accuracy(points, args.out)
    print(f'written: {args.out}')


if __name__ == '__main__':
    main()
