# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The paper's tables 1, 3, 4, 5, 6 and section 4.1 beside what the built models have.

Exits with 1 where a model differs from the paper by more than rounding, unless docs/analysis.md gives the reason.

Examples:
    python tools/paper/paper_tables.py
    python tools/paper/paper_tables.py --table 3 6 --format markdown --out tables.md
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmlightvit.errors import UserError, exit_on_user_error


def parse_args() -> argparse.Namespace:
    from compared_rows import PAPER_TABLES

    from mmlightvit.cost.tables import FORMATS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--table', nargs='+', choices=list(PAPER_TABLES), default=list(PAPER_TABLES), help='which (default: all)'
    )
    parser.add_argument('--format', choices=FORMATS, default='terminal', help='form of the tables (default terminal)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='write to a file instead of the terminal')
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    args = parse_args()
    from compared_rows import paper_report

    if args.out is not None and not args.out.resolve().parent.is_dir():
        raise UserError(f'--out: the folder {args.out.resolve().parent} does not exist')
    text, unexplained = paper_report(args.table, args.format)
    if args.out is None:
        print(text, end='')
    else:
        args.out.write_text(text, encoding='utf-8')
        print(f'written: {args.out}')
    if unexplained:
        raise UserError(f'differs from the paper by more than rounding: {", ".join(unexplained)}')


if __name__ == '__main__':
    main()
