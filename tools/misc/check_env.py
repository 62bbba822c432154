# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Say what is installed and, in plain words, what is wrong with it. Exit code 1 if something is.

Example: ``python tools/misc/check_env.py``
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='tools/misc/check_env.py',
        description='Say what is installed and what is wrong with it; exit code 1 if something is.',
        epilog='example: python tools/misc/check_env.py',
    )
    return parser.parse_args()


def main() -> int:
    parse_args()
    try:
        from mmlightvit.cli.doctor import diagnose, gather, version_table
    except ModuleNotFoundError as error:
        print(f'problem: {error.name} is not installed: pip install -r requirements/runtime.txt')
        return 1
    print('Importing everything once takes about 20 s ...', file=sys.stderr)
    found = gather()
    rows = version_table(found)
    width = max(len(name) for name, _ in rows)
    for name, version in rows:
        print(f'{name:<{width}}  {version}')
    diagnosis = diagnose(found)
    for note in diagnosis.notes:
        print(f'note: {note}')
    for problem in diagnosis.problems:
        print(f'problem: {problem}')
    print('Something has to be mended.' if diagnosis.problems else 'The environment is in order.')
    return 1 if diagnosis.problems else 0


if __name__ == '__main__':
    sys.exit(main())
