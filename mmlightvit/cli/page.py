# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit page``: an exported model as a page that runs it in the browser."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmlightvit.cli.arguments import Parser
from mmlightvit.deploy import page
from mmlightvit.inference.outputs import free_folder, named_folder

_DEFAULT_OUT = 'outputs/page'


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'page',
        'Write a page that runs an exported model in the browser: files for any web server, no program behind them, '
        'and no picture leaves the device. ONNX Runtime Web goes into it, which is not part of this package: '
        f'`npm pack {page.PACKAGE}@{page.VERSION}` fetches its archive.',
        ['pets.onnx', 'pets.onnx --out site --runtime npm'],
    )
    add: Any = parser.add_argument
    add('model', metavar='MODEL', help='file of `mmlightvit export`, .onnx')
    add('--out', metavar='DIR', help=f'folder of the page (default {_DEFAULT_OUT}, or the next free one)')
    add('--overwrite', action='store_true', help='write into --out DIR though it is not empty')
    add(
        '--runtime', metavar='PATH', default=page.ARCHIVE,
        help=f'{page.PACKAGE} {page.VERSION}: its archive, the folder of an installed one, or npm, which fetches it '
        f'(default {page.ARCHIVE}, here)',
    )  # fmt: skip
    return parser


def run(args: argparse.Namespace) -> None:
    """Write it."""
    model = Path(args.model)
    info = page.page_info(model)
    runtime = page.fetch_runtime() if args.runtime == 'npm' else page.read_runtime(Path(args.runtime))
    folder = named_folder(Path(args.out), args.overwrite) if args.out else free_folder(Path(_DEFAULT_OUT))
    page.write_page(folder, model, info, runtime)
    size = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
    print(f'wrote {folder}: {size / 1e6:.1f} MB; look at it with: python -m http.server --directory {folder}')
