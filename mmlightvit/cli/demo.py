# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit demo``: models to try out in a browser, on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from mmlightvit.cli.arguments import Parser, add_model_arguments, model_options
from mmlightvit.errors import UserError


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'demo',
        'Try models out in a browser on this machine: picture or camera in; what was found, thresholds and the global '
        "tokens' attention. Nobody else can reach it.",
        ['work_dirs/pets', 'pets.onnx mask_rcnn_lightvit_t_1x --random'],
    )
    add: Any = parser.add_argument
    add('models', metavar='MODEL', nargs='+', help='as for `mmlightvit predict`; of several, the page lets one choose')
    add_model_arguments(parser)
    add('--port', type=int, default=7860, metavar='N', help='default 7860')
    return parser


def run(args: argparse.Namespace) -> None:
    """Serve the page until the user ends it."""
    from mmlightvit.deploy import demo
    from mmlightvit.load import load_model

    demo.gradio()  # what is missing is said before a model is loaded
    if len(set(args.models)) < len(args.models):
        raise UserError('a model is named twice')
    models = {name: load_model(name, **model_options(args)) for name in args.models}
    explain: Any = None
    if any(hasattr(model, 'module') for model in models.values()):
        from mmlightvit.explain.tokens import explain
    demo.serve(demo.demo(models, explain), args.port)
