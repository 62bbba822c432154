# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit export``: a model as one file that runs without torch, proven, or as a model folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmlightvit.cli.arguments import Parser, add_model_arguments, model_options, refuse_unread
from mmlightvit.errors import UserError

_ENDINGS = {'onnx': '.onnx', 'openvino': '.xml', 'pt2': '.pt2', 'folder': ''}
#: Options that only the making of a graph reads.
_OF_A_GRAPH = ('static', 'normalise', 'int8', 'images', 'data', 'cut')
#: Pictures of a folder that the verification takes.
_PICTURES = 16
#: How far the metric may fall, in its own unit, by task; with 8-bit weights, the share of it that may go.
_MAY_FALL = {'detection': 0.001, 'instance': 0.001, 'classification': 0.1, 'segmentation': 0.1}
_MAY_GO = 0.005


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
    add('--format', choices=list(_ENDINGS), default='onnx', help='default onnx')
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
    from mmlightvit.inference.model import load_model

    if args.triton and args.format != 'onnx':
        raise UserError('--triton is for --format onnx')
    model: Any = load_model(args.model, **model_options(args))
    if not hasattr(model, 'module'):
        _exported_already(model, args)
        return
    out = Path(args.out or f'{model.info.name}{_ENDINGS[args.format]}')
    if out.exists() and not args.overwrite:
        raise UserError(f'{out} is there already: --overwrite replaces it, --out names another')
    if args.data and args.cut != 'end2end':
        raise UserError(f'--data is for a whole model; one that ends at its {args.cut} has no metric')
    if args.format == 'folder':
        refuse_unread(args, _OF_A_GRAPH, '--format folder copies the weights')
        from mmlightvit.model_folder.folder import write_folder

        write_folder(out, model.info, model.module.state_dict())
        print(f'wrote {out}')
        return
    from mmlightvit.deploy.export import Plan, export
    from mmlightvit.deploy.serving.triton import target_of, write_model

    if args.triton:
        target_of(Path(args.triton), out, args.overwrite)
    static = tuple(args.static) if args.static else None
    plan = Plan(args.format, args.cut, static, args.normalise, args.int8)
    measure = _measure(args, model) if args.data else None
    is_random = model.info.extra.get('weights') == 'random'
    info = export(model, out, plan, _pictures(args.images), measure, _say, may_lack_proof=is_random)
    print(describe_certificate(info.extra['certificate']))
    print(f'wrote {out}: {out.stat().st_size / 1e6:.1f} MB')
    if args.triton:
        print(f'wrote {write_model(out, info, Path(args.triton), args.overwrite)}')


def _exported_already(model: Any, args: argparse.Namespace) -> None:
    """What is left to do for a file: to put it into a repository of Triton."""
    from mmlightvit.deploy.serving.triton import write_model

    refuse_unread(args, ('out', 'allow_random', *_OF_A_GRAPH), f'{args.model} is an exported file')
    if not args.triton:
        raise UserError(f'{args.model} is an exported file; export the model that it was made of')
    print(f'wrote {write_model(Path(args.model), model.info, Path(args.triton), args.overwrite)}')


def _say(line: str) -> None:
    print(f'{line} ...', file=sys.stderr)


def _measure(args: argparse.Namespace, model: Any) -> Callable[[Path], dict[str, Any]]:
    """What measures a file against its model, on labels that are looked at before the minutes of an export."""
    from mmlightvit.evaluation.truth import of_data

    truth = of_data(args.data, 'val')
    truth.check_task(model.task)
    return lambda draft: _metrics(args, model, truth, draft)


def _metrics(args: argparse.Namespace, model: Any, truth: Any, draft: Path) -> dict[str, Any]:
    """The metric of the model and of its file.

    Raises:
        UserError: The file's is lower by more than may be.
    """
    from mmlightvit.evaluation.measure import main_metric
    from mmlightvit.evaluation.predictions import answers, answers_of

    asked = [answers_of(model, truth), answers(str(draft), truth)]
    (name, before), (_, after) = (main_metric(found, truth) for found in asked)
    if before is None or after is None:
        raise UserError(f'{args.data}: {name} is not defined there (no labelled object?); nothing was written')
    if args.int8 and before == 0:
        raise UserError(f'{args.data}: {name} is 0 before, so it proves nothing; nothing was written')
    if after < before - (_MAY_GO * before if args.int8 else _MAY_FALL[model.task]):
        raise UserError(f'{name} falls from {before:.4f} to {after:.4f}; nothing was written')
    return {'metric': name, 'before': before, 'after': after, 'data': args.data}


def describe_certificate(certificate: dict[str, Any]) -> str:
    """The proof, for people."""
    lines = [f'  {"x".join(map(str, row["size"])):>10}  {row["max_error"]:.2g}' for row in certificate['verified']]
    lines.insert(0, 'verified at sizes, with the largest difference:')
    if 'pictures' in certificate:
        lines.append(f'and on {certificate["pictures"]} pictures: {certificate["max_error_of_pictures"]:.2g}')
    if 'objects' in certificate:
        lines.append(f'objects compared: {certificate["objects"] or "none, the model finds nothing: not proven"}')
    if 'metric' in certificate:
        lines.append(f'{certificate["metric"]}: {certificate["before"]:.4f} before, {certificate["after"]:.4f} after')
    if 'note' in certificate:
        lines.append(f'note: {certificate["note"]}')
    return '\n'.join(lines)


def _pictures(folder: str | None) -> list[Any]:
    if folder is None:
        return []
    from mmlightvit.inference import sources
    from mmlightvit.pictures.read import PictureError

    pictures = []
    for entry in sources.find([folder])[:_PICTURES]:
        for picture in entry.read(1):
            if isinstance(picture, PictureError):
                raise picture
            pictures.append(picture.pixels)
    return pictures
