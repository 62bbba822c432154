# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit compare``: whether one of two models is better, or the set too small to tell."""

from __future__ import annotations

import argparse
import json
import sys

from mmlightvit.cli.arguments import Parser, add_measuring_arguments, measuring_options
from mmlightvit.tasks import DETECTION


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'compare',
        'Say whether model B is better than model A on labelled pictures, or the set too small to tell: the pictures '
        'are drawn anew 1000 times, the same for both. A and B are anything that predicts, or its predictions.json.',
        ['work_dirs/a work_dirs/b data/pets', 'report/predictions.json report-2/predictions.json data/pets'],
    )
    parser.add_argument('first', metavar='A', help='a model, or its predictions.json')
    parser.add_argument('second', metavar='B', help='the model that may be better')
    add_measuring_arguments(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Print the comparison."""
    from mmlightvit.evaluation.compare import conclusion, differences
    from mmlightvit.evaluation.measure import measure
    from mmlightvit.evaluation.predictions import answers
    from mmlightvit.evaluation.truth import of_data

    truth = of_data(args.data, args.split)
    options = measuring_options(args, args.first, args.second)
    measured, tasks = [], []
    for model in (args.first, args.second):
        predictions = answers(model, truth, **options)
        tasks.append(predictions.model['task'])
        measured.append(measure(predictions, truth))
        for note in measured[-1].notes:
            print(f'note: {model}: {note}', file=sys.stderr)
    task = tasks[0] if tasks[0] == tasks[1] else DETECTION  # boxes are what a detector and a mask model share
    rows = differences(*measured)
    summary = conclusion(rows, task, args.first, args.second, len(measured[0].pictures))
    if args.json:
        print(json.dumps(dict(conclusion=summary, differences=[row._asdict() for row in rows]), indent=1))
        return
    print(f'{"":<12}{"A":>9}{"B":>9}{"B - A":>9}  95 % interval')
    for row in rows:
        between = '' if row.low is None else f'[{row.low:+.3f}, {row.high:+.3f}]'
        print(
            f'{row.kind + " " + row.name:<12}{row.first:>9.3f}{row.second:>9.3f}{row.second - row.first:>+9.3f}'
            f'  {between:<18} {row.verdict}'
        )
    print(summary)
