# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Speed and memory of a backbone or config, against peers in the same run.

Examples:
    python tools/paper/benchmark.py tiny --against pvt_v2_b0 deit_tiny_patch16_224 --batch 1 16
    python tools/paper/benchmark.py tiny --reference my_form.py:MyLightViT --mode inference training
    python tools/paper/benchmark.py tiny --form eager compiled --dtype bf16 --device cuda --batch 256 --stages
    python tools/paper/benchmark.py configs/lightvit_t_imagenet.py --csv speed.csv --plot speed.png
"""

import argparse
import copy
import importlib.util
import itertools
import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmlightvit.errors import UserError, exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', help='tiny, small, base, or a config file (of a detector or segmenter: its backbone)')
    parser.add_argument(
        '--reference', metavar='FILE.py:CLASS', help='another form of the backbone, called as LightViT; comes first'
    )
    parser.add_argument(
        '--reference-form', choices=('eager', 'compiled'), help='how the reference runs (default as --form says)'
    )
    parser.add_argument('--against', nargs='+', default=[], metavar='NAME', help='timm models, by name')
    parser.add_argument(
        '--classifier', action='store_true', help='with the classification head (1000 classes); implied by --against'
    )
    parser.add_argument(
        '--mode',
        nargs='+',
        default=['inference'],
        help='inference, or training: forward, backward, gradients cleared, no optimizer (default inference)',
    )
    parser.add_argument(
        '--form',
        nargs='+',
        default=['eager'],
        help='eager, compiled (one graph for one size), graph (CUDA graph replayed) (default eager)',
    )
    parser.add_argument('--dtype', nargs='+', default=['float32'], help='float32, bf16, fp16 (default float32)')
    parser.add_argument('--device', default='cpu', help='torch device (default cpu)')
    parser.add_argument('--batch', type=int, nargs='+', default=[1], help='images per step (default 1)')
    parser.add_argument(
        '--size',
        nargs='+',
        default=['224x224'],
        metavar='HxW',
        help='pixels, or images and pixels such as 9x448x448 (default 224x224)',
    )
    parser.add_argument('--rounds', type=int, default=15, help='paired rounds (default 15)')
    parser.add_argument('--seconds', type=float, default=0.3, help='per model and round (default 0.3)')
    parser.add_argument(
        '--processor-time',
        action='store_true',
        help='instead of the clock: for a machine that others use',
    )
    parser.add_argument('--threads', type=int, help="CPU threads (default torch's)")
    parser.add_argument(
        '--stages', action='store_true', help='also the stem and each stage of the model, forward and eager'
    )
    parser.add_argument('--csv', type=Path, metavar='FILE', help='write the table as CSV')
    parser.add_argument('--markdown', type=Path, metavar='FILE', help='write the table as Markdown')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='write a picture of the ratios')
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    args = parse_args()
    import steps
    import torch
    from roofline import Machine, floor_line
    from stages import measure_stages

    from mmlightvit.cost.tables import render
    from mmlightvit.cost.timing import environment

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.reference_form and not args.reference:
        raise UserError('--reference-form: expected together with --reference FILE.py:CLASS')
    cases = [
        steps.Case(mode, form, dtype, args.device, *images)
        for mode, form, dtype, images in itertools.product(args.mode, args.form, args.dtype, parse_images(args))
    ]
    for option in ('csv', 'markdown', 'plot'):
        path = getattr(args, option)
        if path is not None and not path.resolve().parent.is_dir():
            raise UserError(f'--{option}: the folder {path.resolve().parent} does not exist')
    timings: list[steps.Timing] = []
    lines: list[str] = []
    for case in cases:
        models, _ = build(args)
        forms = {'reference': args.reference_form} if args.reference_form else {}
        measured = steps.compare(models, case, args.rounds, args.seconds, forms, say, args.processor_time)
        timings += measured
        lines += filter(None, [steps.speed_line(measured, 'mmlightvit')])
        ours = next(timing for timing in measured if timing.name == 'mmlightvit')
        machine = Machine.measure(case.device, case.dtype, args.processor_time)
        lines.append(floor_line(build(args)[0]['mmlightvit'], ours, machine))
        if args.stages:
            stages = measure_stages(build(args)[1], case, args.rounds)
            parts = ', '.join(f'{stage.name} {1e3 * stage.seconds * case.batch:.2f} ms' for stage in stages)
            lines.append(f'{case}: forward, eager: {parts}')
    headers, rows = steps.cells(timings)
    title = environment(args.device)
    print(render(headers, rows, 'terminal', title), end='')
    print('\n'.join(lines))
    command = 'python tools/paper/benchmark.py ' + shlex.join(sys.argv[1:])
    if args.csv:
        args.csv.write_text(render(headers, rows, 'csv'))
    if args.markdown:
        text = render(headers, rows, 'markdown', title)
        args.markdown.write_text(
            f'{text}\n' + '\n'.join(f'- {line.strip()}' for line in [*lines, f'`{command}`']) + '\n'
        )
    if args.plot:
        from plots import plot_ratios

        plot_ratios(timings, args.plot)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse_images(args: argparse.Namespace) -> list[tuple[int, int, int]]:
    """Batch, height and width of each case: a size with a batch of its own, or with each of ``--batch``."""
    images = []
    for text in args.size:
        numbers = text.split('x')
        if len(numbers) not in (2, 3) or not all(number.isdecimal() for number in numbers):
            raise UserError(f'--size: expected HEIGHTxWIDTH or BATCHxHEIGHTxWIDTH such as 224x224, got {text!r}')
        *own, height, width = map(int, numbers)
        images += [(batch, height, width) for batch in own or args.batch]
    return images


def build(args: argparse.Namespace) -> tuple[dict[str, Any], Any]:
    """The models to compare, the denominator first, and our backbone."""
    import torch
    from torch import nn

    from mmlightvit.models.backbones import ARCH_ZOO, LightViT

    torch.manual_seed(0)
    if args.model not in ARCH_ZOO:
        return build_from_config(args)
    classifier = args.classifier or bool(args.against)
    kwargs: dict[str, Any] = dict(out_type='tokens', out_indices=(2,)) if classifier else {}
    backbone = LightViT(args.model, **kwargs)
    tail = []
    if classifier:
        from mmlightvit.models.heads.lightvit_head import LightViTHead

        tail = [LightViTHead(1000, backbone.embed_dims[-1])]
    models = {}
    if args.reference:
        reference = load_class(args.reference)(args.model, **kwargs)
        reference.load_state_dict(backbone.state_dict())
        models['reference'] = nn.Sequential(reference, *copy.deepcopy(tail)) if tail else reference
    models['mmlightvit'] = nn.Sequential(backbone, *tail) if tail else backbone
    models.update(peers(args.against))
    return models, backbone


def build_from_config(args: argparse.Namespace) -> tuple[dict[str, Any], Any]:
    from torch import nn

    from mmlightvit.cli.config import load_config
    from mmlightvit.toolboxes import build_model, task_of

    if args.reference or args.classifier:
        raise UserError('--reference, --classifier: expected with an arch (tiny, small, base), not with a config')
    model: Any = build_model(load_config(args.model))
    is_classifier = task_of(model) == 'classifier'
    if args.against and not is_classifier:
        raise UserError('--against: timm models are classifiers; expected an arch or the config of a classifier')
    parts = (
        [part for part in (model.backbone, getattr(model, 'neck', None), model.head) if part] if is_classifier else []
    )
    ours = nn.Sequential(*parts) if parts else model.backbone
    return {'mmlightvit': ours, **peers(args.against)}, model.backbone


def peers(names: list[str]) -> dict:
    if not names:
        return {}
    if importlib.util.find_spec('timm') is None:
        raise UserError('--against needs timm: pip install timm')
    import timm

    for name in names:
        if not timm.is_model(name):
            raise UserError(f'--against: timm has no model {name!r}; timm.list_models("*") names them')
    return {name: timm.create_model(name) for name in names}


def load_class(text: str) -> type:
    path, _, name = text.rpartition(':')
    if not Path(path).is_file():
        raise UserError(f'--reference: expected FILE.py:CLASS with an existing file, got {text!r}')
    spec = importlib.util.spec_from_file_location('benchmark_reference', path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise UserError(f'--reference: {path} has no class {name!r}')
    return getattr(module, name)


if __name__ == '__main__':
    main()
