#!/usr/bin/env python
# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Convert a LightViT checkpoint: published names to ours or back, torch's format to safetensors or back."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmlightvit.checkpoint.convert import LayoutError, convert
from mmlightvit.errors import exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__
        + ' It says what it recognised, and stops, writing nothing, where a key or shape does not fit the variant.',
        epilog='example: python tools/convert_checkpoint.py lightvit_tiny_78.7.ckpt lightvit_tiny.safetensors',
    )
    parser.add_argument('source', help='checkpoint: a path, or an address to download')
    parser.add_argument('target', help='file to write; safetensors if it ends in .safetensors')
    parser.add_argument('--to', choices=['own', 'published'], default='own', help='whose names to write (own)')
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    args = parse_args()
    try:
        source, differences = convert(args.source, args.target, args.to)
    except LayoutError as error:
        print(f'recognised: {error.source}\n{error.differences}')
        raise
    print(f'recognised: {source}\n{differences}\nwrote {args.target}')


if __name__ == '__main__':
    main()
