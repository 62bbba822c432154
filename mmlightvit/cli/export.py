# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit export``: a model as one file that runs without torch, proven, or as a model folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mmlightvit.cli.arguments import Parser, add_model_arguments, model_options, refuse_unread
from mmlightvit.cli.show import describe_certificate
from mmlightvit.deploy.formats import FORMATS
from mmlightvit.errors import UserError

#: The format that is no file.
_FOLDER = 'folder'
#: Options that only the making of a graph reads.
_OF_A_GRAPH = ('static', 'normalise', 'int8', 'images', 'data', 'cut')
#: Pictures of a folder that the verification takes.
_PICTURES = 16


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'export',
        'Write a model as one file for ONNX Runtime, OpenVINO or torch, for pictures of any size, and prove it: it has '
        'to answer as the model does, at sizes it was not traced at and on whole pictures, or there is no file.',
        [
            'work_dirs/pets --images data/pets/images',
            'epoch_12.pth --config config.py --static 800 1344',
        ],
    )
    add: Any = parser.add_argument
    add('model', metavar='MODEL', help='model folder, work directory, checkpoint, or a name of `mmlightvit models`')
    add_model_arguments(parser, device='cpu')
    add('--format', choices=[*FORMATS, _FOLDER], default=next(iter(FORMATS)), help='default %(default)s')
    add('--out', metavar='FILE', help='the file, or the folder (default: the name of the model, here)')
    add('--cut', choices=('end2end', 'features', 'backbone'), default='end2end', help='where the graph ends')
    add('--static', type=int, nargs=2, metavar=('H', 'W'), help='for this size alone')
    add('--normalise', action='store_true', help='take RGB pixel values; mean, deviation and channels into the graph')
    add('--int8', action='store_true', help='weights of 8 bits: a smaller file, not the same answers; wants --data')
    add('--triton', metavar='DIR', help='also as a model of the Triton repository DIR; MODEL may be an .onnx file then')
    add('--images', metavar='DIR', help=f'pictures for the proof; up to {_PICTURES} are taken')
    add('--data', metavar='DATA', help='labelled pictures: the metric before and after, which must not fall')
    add('--overwrite', action='store_true', help='replace the file if it is there')
    return parser


def run(args: argparse.Namespace) -> None:
    """Export."""
    from mmlightvit.deploy.serving.triton import target_of, write_model
    from mmlightvit.inference import sources
    from mmlightvit.load import load_model

    if args.triton and args.format != 'onnx':
        raise UserError('--triton is for --format onnx')
    model: Any = load_model(args.model, **model_options(args))
    if not hasattr(model, 'module'):
        refuse_unread(args, ('out', 'allow_random', *_OF_A_GRAPH), f'{args.model} is an exported file')
        if not args.triton:
            raise UserError(f'{args.model} is an exported file; export the model that it was made of')
        print(f'wrote {write_model(Path(args.model), model.info, Path(args.triton), args.overwrite)}')
        return
    ending = '' if args.format == _FOLDER else FORMATS[args.format].ending
    out = Path(args.out or f'{model.info.name}{ending}')
    if out.exists() and not args.overwrite:
        raise UserError(f'{out} is there already: --overwrite replaces it, --out names another')
    if args.data and args.cut != 'end2end':
        raise UserError(f'--data is for a whole model; one that ends at its {args.cut} has no metric')
    if args.format == _FOLDER:
        refuse_unread(args, _OF_A_GRAPH, '--format folder copies the weights')
        from mmlightvit.model_folder.write import write_folder

        write_folder(out, model.info, model.module.state_dict())
        print(f'wrote {out}')
        return
    from mmlightvit.deploy.export import Plan, export

    if args.triton:
        target_of(Path(args.triton), out, args.overwrite)
    static = tuple(args.static) if args.static else None
    plan = Plan(args.format, args.cut, static, args.normalise, args.int8)
    measure = None
    if args.data:
        from mmlightvit.evaluation.prove import metric_proof

        measure = metric_proof(model, args.data, args.int8)
    pictures = sources.pixels_of([args.images], _PICTURES) if args.images else []
    is_random = model.info.extra.get('weights') == 'random'
    info = export(model, out, plan, pictures, measure, _say, may_lack_proof=is_random)
    print(describe_certificate(info.extra['certificate']))
    print(f'wrote {out}: {out.stat().st_size / 1e6:.1f} MB')
    if args.triton:
        print(f'wrote {write_model(out, info, Path(args.triton), args.overwrite)}')


def _say(line: str) -> None:
    print(f'{line} ...', file=sys.stderr)
