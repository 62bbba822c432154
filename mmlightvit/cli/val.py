# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit val``: the standard table of a model of any form."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping

from mmlightvit.cli.arguments import Parser, add_measuring_arguments, measuring_options

#: Digits that tools/test.py prints, by kind of number.
DIGITS = {'bbox': 3, 'segm': 3, 'accuracy': 4, 'pixels': 2}
NAMES = {'bbox': 'boxes', 'segm': 'masks', 'accuracy': 'percent', 'pixels': 'percent'}


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'val',
        "Measure a model on labelled pictures and print the standard table: COCO's for detection, accuracy for "
        'classification, IoU for segmentation. MODEL is anything that predicts, or its predictions.json.',
        ['work_dirs/pets data/pets', 'model.onnx data/pets --split test --json'],
    )
    parser.add_argument('model', metavar='MODEL', help='the model, or its predictions.json')
    add_measuring_arguments(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    from mmlightvit.evaluation.measure import measure
    from mmlightvit.evaluation.predictions import answers
    from mmlightvit.evaluation.truth import of_data

    truth = of_data(args.data, args.split)
    result = measure(answers(args.model, truth, **measuring_options(args, args.model)), truth)
    for note in result.notes:
        print(f'note: {note}', file=sys.stderr)
    print(json.dumps(result.values, indent=1) if args.json else table(result.values))


def table(values: Mapping[str, Mapping[str, float | None]]) -> str:
    """A row per kind of number, a column per number."""
    lines: list[str] = []
    for kind, numbers in values.items():
        cells = ['–' if value is None else f'{value:.{DIGITS[kind]}f}' for value in numbers.values()]
        width = max(map(len, [*numbers, *cells])) + 2
        if not lines:
            lines.append(f'{"":<8}' + ''.join(f'{name:>{width}}' for name in numbers))
        lines.append(f'{NAMES[kind]:<8}' + ''.join(f'{cell:>{width}}' for cell in cells))
    return '\n'.join(lines)
