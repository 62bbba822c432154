# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit report``: how good a model is and where it fails, as one page."""

from __future__ import annotations

import argparse
import json
from typing import Any

from mmlightvit.cli.arguments import (
    Parser,
    add_folder_arguments,
    add_measuring_arguments,
    measuring_options,
    output_folder,
)
from mmlightvit.errors import UserError
from mmlightvit.tasks import TASKS


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'report',
        'Measure a model on labelled pictures: metrics with intervals, classes, curves, kinds of error, thresholds, '
        'worst pictures and suspected label errors, in a folder with one page. MODEL is anything that predicts, or '
        'its predictions.json.',
        ['work_dirs/pets data/pets', 'model/ data/pets --split test --set-thresholds --out reports/pets'],
    )
    add: Any = parser.add_argument
    add('model', metavar='MODEL', help='the model, or its predictions.json')
    add_measuring_arguments(parser)
    add_folder_arguments(parser, 'report')
    add('--iou', type=float, default=0.5, metavar='X', help='IoU of thresholds, confusion and errors (default 0.5)')
    add('--set-thresholds', action='store_true', help='keep thresholds and metrics in the model folder')
    return parser


def run(args: argparse.Namespace) -> None:
    """Write the report."""
    from mmlightvit.evaluation import packages
    from mmlightvit.evaluation.coco_scores import row_of
    from mmlightvit.evaluation.predictions import answers
    from mmlightvit.evaluation.report import write_report
    from mmlightvit.evaluation.truth import of_data
    from mmlightvit.model_folder.info import FILE, find_folder
    from mmlightvit.model_folder.write import set_thresholds

    packages.require()
    row_of(args.iou)
    folder = find_folder(args.model) if args.set_thresholds else None
    if args.set_thresholds and folder is None:
        raise UserError(
            f'--set-thresholds needs a folder with {FILE}, which {args.model} is not: see mmlightvit export'
        )
    truth = of_data(args.data, args.split)
    predictions = answers(args.model, truth, **measuring_options(args, args.model))
    if folder is not None and not TASKS[predictions.model['task']].has_objects:
        raise UserError(f'--set-thresholds is for detections; {args.model} is for {predictions.model["task"]}')
    out = output_folder(args)
    metrics = write_report(predictions, truth, out, args.iou)
    if folder is not None:
        set_thresholds(folder, metrics)
    print(json.dumps(metrics, indent=1, ensure_ascii=False) if args.json else out / 'index.html')
