# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit show``: what a model says of itself, without running or building anything."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmlightvit.cli.arguments import Parser
from mmlightvit.errors import UserError, listed
from mmlightvit.model_folder.info import FILE, ModelInfo


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'show',
        'Print what an exported file or a model folder says of itself, and the proof that it came with.',
        ['model.onnx', 'work_dirs/pets/model --json'],
    )
    parser.add_argument('model', metavar='FILE', help='exported file, or model folder')
    parser.add_argument('--json', action='store_true', help='all of it, as JSON')
    return parser


def run(args: argparse.Namespace) -> None:
    """Print it."""
    path = Path(args.model)
    if (path / FILE).is_file():
        info = ModelInfo.load(path)
    elif path.is_file():
        from mmlightvit.deploy.runtime import read_info

        info = read_info(path)
    else:
        raise UserError(f'no exported file and no model folder: {args.model}')
    print(info.to_json() if args.json else summary(info))


def measured(value: Any) -> str:
    """A metric: a number, or ``value`` with ``low`` and ``high`` of its interval; a dash where it is not defined."""
    if isinstance(value, Mapping):
        number, low, high = (value.get(key) for key in ('value', 'low', 'high'))
        return measured(number) + ('' if low is None else f' ({measured(low)} to {measured(high)})')
    if value is None or value == -1:  # COCO's, of a size that does not occur
        return '–'
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def summary(info: ModelInfo) -> str:
    """The parts that people ask for."""
    spec = info.input
    steps = [spec.channels]
    steps += [f'resized to {dict(spec.resize)}'] if spec.resize else []
    steps += [f'cropped to {"x".join(map(str, spec.crop))}'] if spec.crop else []
    steps += [f'padded to multiples of {spec.pad_multiple}'] if spec.pad_multiple else []
    steps += [f'{name} {", ".join(f"{value:.6g}" for value in values)}'
              for name, values in (('mean', spec.mean), ('deviation', spec.std))]  # fmt: skip
    lines = [
        f'{info.name}: {info.task}, {info.model["type"]}',
        f'classes: {listed(info.classes)}',
        f'input: {"; ".join(steps)}',
    ]
    lines += [f'{name}: {measured(value)}' for name, value in info.metrics.items()]
    if 'export' in info.extra:
        lines.append('export: ' + ', '.join(f'{name} {value}' for name, value in info.extra['export'].items()))
    certificate = info.extra.get('certificate')
    return '\n'.join([*lines, describe_certificate(certificate) if certificate else 'no certificate'])


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
