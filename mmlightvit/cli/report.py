# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit report``: how good a model is and where it fails, as one page."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmlightvit.cli.arguments import (
    Parser,
    add_folder_arguments,
    add_measuring_arguments,
    measuring_options,
    output_folder,
)
from mmlightvit.errors import UserError


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

    packages.require()
    row_of(args.iou)
    folder = model_folder(args.model) if args.set_thresholds else None
    truth = of_data(args.data, args.split)
    found = answers(args.model, truth, **measuring_options(args, args.model))
    if folder is not None and found.model['task'] not in ('detection', 'instance'):
        raise UserError(f'--set-thresholds is for detections; {args.model} is for {found.model["task"]}')
    out = output_folder(args)
    metrics = write_report(found, truth, out, args.iou)
    if folder is not None:
        keep(folder, metrics)
    print(json.dumps(metrics, indent=1, ensure_ascii=False) if args.json else out / 'index.html')


def model_folder(model: str) -> Path:
    """The folder whose ``model.json`` belongs to a model.

    Raises:
        UserError: It has none.
    """
    from mmlightvit.model_folder.info import FILE, FOLDER

    path = Path(model).expanduser()
    for folder in (path, path / FOLDER):
        if (folder / FILE).is_file():
            return folder
    raise UserError(f'--set-thresholds needs a folder with {FILE}, which {model} is not: see mmlightvit export')


def keep(folder: Path, metrics: dict[str, Any]) -> None:
    """Keep thresholds in ``model.json``, where predict and serve find them, and metrics with their intervals.

    The card says the new ones too, unless somebody has written into it.
    """
    from mmlightvit.durable.safe_loading.atomic import atomic_write
    from mmlightvit.model_folder import card
    from mmlightvit.model_folder.info import FILE, ModelInfo

    info = ModelInfo.load(folder)
    chosen = metrics['thresholds']
    per_class = {name: value for name, value in chosen['per_class'].items() if name in info.classes}
    measured = {
        f'report/{kind}_{name}': found[name]
        for kind, found in metrics['metrics'].items()
        for name in ('AP', 'AP50', 'AP75')
    }
    new = info.with_thresholds(chosen['default'], per_class, chosen['chosen_on'])
    new = replace(new, metrics={**info.metrics, **measured})
    readme = folder / card.FILE
    texts = {FILE: new.to_json()}
    if readme.is_file() and readme.read_text(encoding='utf-8') == card.text(info):
        texts[card.FILE] = card.text(new)
    for name, text in texts.items():
        atomic_write(folder / name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
