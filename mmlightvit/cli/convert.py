# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit convert`` and tools/convert_checkpoint.py: names of parameters, and the format of the file."""

from __future__ import annotations

import argparse
import os

from mmlightvit.cli.arguments import Parser
from mmlightvit.errors import UserError


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'convert',
        "Convert a LightViT checkpoint: published names to ours or back, torch's format to safetensors or back. "
        'It says what it recognised, and stops, writing nothing, where a key or shape does not fit the variant.',
        ['lightvit_tiny_78.7.ckpt lightvit_tiny.safetensors', 'lightvit_tiny.safetensors back.pth --to published'],
    )
    parser.add_argument('source', metavar='SOURCE', help='checkpoint: a path, or an address to download')
    parser.add_argument('target', metavar='TARGET', help='file to write; safetensors if it ends in .safetensors')
    names = ['native', 'own', 'published']
    parser.add_argument('--to', choices=names, default='native', help='names to write: native (or own), or published')
    parser.add_argument(
        '--weights', metavar='ENTRY', help='entry of SOURCE to take, such as state_dict_ema; default: state_dict, model'
    )
    parser.add_argument('--overwrite', action='store_true', help='write over TARGET where it exists')
    return parser


def run(args: argparse.Namespace) -> None:
    """Convert.

    Raises:
        UserError: The target exists and may not be written over, or the checkpoint does not fit.
    """
    if os.path.exists(args.target) and not args.overwrite:
        raise UserError(f'{args.target} exists; write to another file, or over it with --overwrite')
    from mmlightvit.checkpoint.convert import LayoutError, convert

    try:
        source, differences = convert(args.source, args.target, args.to, args.weights)
    except LayoutError as error:
        print(f'recognised: {error.source}\n{error.differences}')
        raise
    print(f'recognised: {source}\n{differences}\nwrote {args.target}')
