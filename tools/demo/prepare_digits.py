# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Write the handwritten digits of a demo, unless they are there.

Example: ``python tools/demo/prepare_digits.py detection data/digits/detection --seed 1``; see docs/demo.md.
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from digits import TASK_SETTINGS, DigitsSettings, prepare, settings_for

from mmlightvit.errors import exit_on_user_error

HELP = {
    'image_size': 'side of the canvas in pixels',
    'num_train': 'training images',
    'num_val': 'validation images',
    'seed': 'seed of scans, canvases and places',
    'min_digits': 'fewest digits on a canvas',
    'max_digits': 'most digits on a canvas',
    'min_height': 'height of the smallest digit in pixels',
    'max_height': 'height of the largest digit in pixels',
    'stroke_level': 'ink of the enlarged scan at which a stroke begins; lower is bolder',
    'min_visible': 'share of its strokes that every digit keeps visible',
    'val_share': 'share of the scans that only val draws from',
    'variation': 'how much scans are turned, slanted, made bolder or thinner in train, 0 to 1',
    'dark_ink': 'strokes darker than the canvas',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='tools/demo/prepare_digits.py',
        description='Write handwritten digits on textured canvases as a data set, unless the same one is there.',
        epilog='example: python tools/demo/prepare_digits.py detection data/digits/detection --seed 1',
    )
    parser.add_argument('task', choices=sorted(TASK_SETTINGS), help='which data set, and so which layout')
    parser.add_argument('root', type=Path, help='folder of the data set')
    for field in fields(DigitsSettings):
        kind = type(field.default)
        reading = dict(action=argparse.BooleanOptionalAction) if kind is bool else dict(type=kind)
        defaults = ', '.join(f'{task} {getattr(TASK_SETTINGS[task], field.name)}' for task in sorted(TASK_SETTINGS))
        flag = '--' + field.name.replace('_', '-')
        parser.add_argument(flag, **reading, help=f'{HELP[field.name]} (default: {defaults})')
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    args = parse_args()
    settings = settings_for(args.task, **{field.name: getattr(args, field.name) for field in fields(DigitsSettings)})
    written = prepare(args.task, args.root, settings)
    print(f'{args.root}: {"wrote" if written else "reusing"} {settings.num_train} training and {settings.num_val} '
          f'validation images of handwritten digits, seed {settings.seed}')  # fmt: skip


if __name__ == '__main__':
    main()
