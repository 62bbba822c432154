# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit benchmark``: the forms of one model, timed in turns."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlightvit.cli.arguments import Parser, add_model_arguments, model_options
from mmlightvit.errors import UserError

if TYPE_CHECKING:
    from mmlightvit.inference.preprocess import Prepared

_FORMATS = ('torch', 'compiled', 'onnx', 'onnx-int8', 'openvino', 'openvino-fastest', 'pt2')
_SHOWN = ('format', 'file_mb', 'metric', 'ms_median', 'cpu_ms', 'ratio_to_torch', 'cpu_ratio', 'max_error', 'status')


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'benchmark',
        'Time the forms of one model against each other: torch, compiled, ONNX Runtime, OpenVINO in float32 and in the '
        "precision that it takes by itself, and torch's export. They take turns; ratios are of pairs, with intervals.",
        ['work_dirs/pets --data data/pets', 'lightvit_t_imagenet --formats torch onnx --batch 16 --threads 2'],
    )
    add: Any = parser.add_argument
    add('model', metavar='MODEL', help='the model, as for mmlightvit export')
    add_model_arguments(parser, device='cpu')
    add('--formats', nargs='+', choices=_FORMATS, default=['torch', 'onnx', 'openvino', 'openvino-fastest', 'pt2'],
        metavar='NAME', help=f'of {" ".join(_FORMATS)}')  # fmt: skip
    add('--peers', nargs='+', default=[], metavar='NAME', help='models of timm, exported in the same way')
    add('--images', metavar='FILE', help='a picture; default: noise of --size')
    add('--size', type=int, nargs=2, default=(224, 224), metavar=('H', 'W'), help='default 224 224')
    add('--data', metavar='DATA', help='labelled pictures: the metric of each form beside its time')
    add('--batch', type=int, default=1, metavar='N', help='pictures at once (default 1)')
    add('--threads', type=int, default=1, metavar='N', help='default 1')
    add('--rounds', type=int, default=30, metavar='N', help='default 30')
    add('--out', metavar='DIR', help='where benchmark.csv and benchmark.json go (default: here)')
    return parser


def run(args: argparse.Namespace) -> int:
    """Time; the exit code is 1 if a form could not be had."""
    if min(args.batch, args.threads, args.rounds, *args.size) < 1:
        raise UserError('--batch, --threads, --rounds and --size: expected at least 1')
    out = Path(args.out or '.')
    if not out.is_dir():
        raise UserError(f'--out {out} is no folder')
    from mmlightvit.cost.forms import COLUMNS, FORMS, open_forms, open_peer, time_forms
    from mmlightvit.cost.timing import environment
    from mmlightvit.load import load_model

    model: Any = load_model(args.model, **model_options(args))
    if not hasattr(model, 'module'):
        raise UserError(f'{args.model} is an exported file; give the model that it was made of')
    pictures = [_picture(args, model)] * args.batch
    with tempfile.TemporaryDirectory() as folder:
        names = list(dict.fromkeys(['torch', *args.formats]))
        forms = open_forms(model, names, pictures, Path(folder), args.threads, _say)
        rows = []
        peers = []
        for name in args.peers:
            for form in forms:
                if form.status == 'ok' and form.name in ('torch', 'onnx', 'openvino', 'openvino-fastest'):
                    size = (pictures[0].array.shape[1], pictures[0].array.shape[2])
                    device = {'torch': None, 'onnx': 'cpu'}.get(form.name, FORMS[form.name].device)
                    peer = open_peer(name, args.batch, size, Path(folder), device, args.threads)
                    peer.name = f'{name} {form.name}'
                    peers.append(peer)
        _say('timing')
        time_forms([*forms, *peers], args.rounds)
        for form in (*forms, *peers):
            metric = _metric(args, form.path) if args.data and form.status == 'ok' and form not in peers else None
            rows.append(form.row(forms[0], args.batch, metric))
    machine = f'{environment("cpu")}; {args.threads} threads, batches of {args.batch}'
    (out / 'benchmark.json').write_text(json.dumps({'machine': machine, 'rows': rows}, indent=1) + '\n')
    with open(out / 'benchmark.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(_table(rows))
    print(machine)
    return 1 if any(row['status'] != 'ok' for row in rows) else 0


def _picture(args: argparse.Namespace, model: Any) -> Prepared:
    """The input: a picture as the model's preprocessing gives it, or noise."""
    import numpy as np

    from mmlightvit.inference.preprocess import Prepared, prepare
    from mmlightvit.pictures.read import as_picture

    if args.images:
        return prepare(as_picture(args.images, 'rgb').pixels, model.input)
    size = (args.size[0], args.size[1])
    array = np.random.default_rng(0).standard_normal((3, *size), np.float32)
    return Prepared(array, size, size, (1.0, 1.0))


def _metric(args: argparse.Namespace, path: Path | None) -> float | None:
    from mmlightvit.evaluation.measure import main_metric
    from mmlightvit.evaluation.predictions import answers
    from mmlightvit.evaluation.truth import of_data

    truth = of_data(args.data, 'val')
    options = dict(device='cpu', trust=True) if path else model_options(args)
    predictions = answers(str(path or args.model), truth, **options)
    return main_metric(predictions, truth)[1]


def _say(line: str) -> None:
    print(f'{line} ...', file=sys.stderr)


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [[_cell(row[name]) for name in _SHOWN] for row in rows]
    widths = [max(map(len, column)) for column in zip(_SHOWN, *cells)]
    return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(line, widths)) for line in [_SHOWN, *cells])


def _cell(value: Any) -> str:
    return '' if value is None else value if isinstance(value, str) else f'{value:.3g}'
