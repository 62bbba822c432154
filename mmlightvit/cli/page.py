# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit page``: an exported model as a page that runs it in the browser."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmlightvit.cli.arguments import Parser, add_folder_arguments, output_folder
from mmlightvit.deploy import page


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
    add_folder_arguments(parser, 'outputs/page')
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
    folder = output_folder(args)
    page.write_page(folder, model, info, runtime)
    size = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
    print(f'wrote {folder}: {size / 1e6:.1f} MB; look at it with: python -m http.server --directory {folder}')
