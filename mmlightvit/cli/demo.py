# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit demo``: models to try out in a browser, on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from mmlightvit.cli.arguments import Parser
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
    add('--config', metavar='FILE', help='config of a checkpoint')
    add('--device', metavar='D', help='cuda, cpu, ...; exported files: cpu, cuda, openvino:CPU')
    add('--port', type=int, default=7860, metavar='N', help='default 7860')
    add('--random', action='store_true', help='take random weights where there are none; they predict nothing')
    return parser


def run(args: argparse.Namespace) -> None:
    """Serve the page until the user ends it."""
    from mmlightvit.deploy import demo
    from mmlightvit.inference.model import load_model

    demo.gradio()  # what is missing is said before a model is loaded
    if len(set(args.models)) < len(args.models):
        raise UserError('a model is named twice')
    models = {
        name: load_model(name, config=args.config, device=args.device, allow_random=args.random) for name in args.models
    }
    explain: Any = None
    if any(hasattr(model, 'module') for model in models.values()):
        from mmlightvit.explain.tokens import explain
    demo.serve(demo.demo(models, explain), args.port)
