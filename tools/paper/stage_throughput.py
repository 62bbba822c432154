# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Throughput and efficiency of the stem and of each stage of a LightViT (paper Figure 5a).

Writes a picture and a CSV beside it. The four-stage model shows why the paper leaves out the stage of stride 4.

Examples:
    python tools/paper/stage_throughput.py configs/ablation/section41_four_stages.py --device cuda
    python tools/paper/stage_throughput.py configs/lightvit_t_imagenet.py --batch-size 16 --out stages.png
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmlightvit.errors import UserError, exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a model with a LightViT backbone')
    parser.add_argument('--shape', type=int, nargs=2, metavar=('H', 'W'), help="input size (default: the task's)")
    parser.add_argument('--batch-size', type=int, default=16, metavar='N', help='images at once (default 16)')
    parser.add_argument('--runs', type=int, default=10, metavar='N', help='timed runs, median taken (default 10)')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu', help='where to run (default cpu)')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('outputs/stages.png'),
        metavar='FILE',
        help='the picture (default: %(default)s)',
    )
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    args = parse_args()
    from plots import plot_stages
    from stages import measure_stages, stage_cells
    from steps import Case

    from mmlightvit.cli.config import load_config
    from mmlightvit.cost.counting import DEFAULT_SHAPES
    from mmlightvit.cost.tables import render
    from mmlightvit.cost.timing import environment
    from mmlightvit.toolboxes import build_model, task_of

    for name in ('batch_size', 'runs'):
        if getattr(args, name) < 1:
            raise UserError(f'--{name.replace("_", "-")}: expected a number >= 1, got {getattr(args, name)}')
    cfg = load_config(args.config)
    model: Any = build_model(cfg)
    height, width = args.shape or DEFAULT_SHAPES[task_of(model)]
    case = Case(device=args.device, batch=args.batch_size, height=height, width=width)
    parts = measure_stages(model.backbone, case, args.runs)
    title = f'{Path(args.config).stem}, {args.batch_size} x {height} x {width}, float32\n{environment(args.device)}'
    plot_stages(parts, args.out, title)
    args.out.with_suffix('.csv').write_text(render(*stage_cells(parts), 'csv'))
    for part in parts:
        print(
            f'{part.name:8} {part.macs / 1e9:7.3f} G {part.throughput:10.1f} images/s {part.efficiency / 1e9:8.1f} G/s'
        )
    print(f'written: {args.out} and {args.out.with_suffix(".csv")}')


if __name__ == '__main__':
    main()
