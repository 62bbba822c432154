# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Attention of each global token, to it and from it, and the gates of the FFN, over images (paper Figure 4).

Works with classifiers, detectors and segmenters, and images of any size: the whole image is shown, without padding.

Examples:
    python tools/paper/global_attention.py dog.jpg boat.jpg --config configs/mask_rcnn_lightvit_t_1x.py \\
        --checkpoint work_dirs/mask_rcnn_lightvit_t_1x/epoch_12.pth
    python tools/paper/global_attention.py dog.jpg --config configs/lightvit_t_imagenet.py \\
        --checkpoint lightvit_t.pth --stages 3 --blocks all --heads 2 --tokens 1 2 3
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmlightvit.errors import UserError, exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', nargs='+', type=Path, metavar='IMAGE', help='image files')
    parser.add_argument('--config', required=True, help='config of the model')
    parser.add_argument('--checkpoint', required=True, help='trained weights')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('outputs/attention'),
        metavar='DIR',
        help='folder for IMAGE.png (default: %(default)s)',
    )
    parser.add_argument('--stages', type=int, nargs='+', metavar='N', help='stages, from 1 (default: all)')
    parser.add_argument('--blocks', default='last', help='last of each stage (default), all, mean, or a number from 1')
    parser.add_argument('--heads', default='mean', help='mean (default), all, or a number from 1')
    parser.add_argument('--tokens', type=int, nargs='+', metavar='N', help='global tokens, from 1 (default: all)')
    parser.add_argument(
        '--short-side',
        type=int,
        metavar='PX',
        help="short side the image is resized to (default: the config's test size)",
    )
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    args = parse_args()
    from mmlightvit.cli.config import load_config

    cfg = load_config(args.config)
    for path in args.images:
        if not path.is_file():
            raise UserError(f'image not found: {path}')
    if args.short_side is not None and args.short_side < 1:
        raise UserError(f'--short-side: expected a number of pixels >= 1, got {args.short_side}')
    from attention_sheet import choose, draw_sheet
    from whole_images import prepare_image, whole_input

    from mmlightvit.checkpoint.load import load_into
    from mmlightvit.explain.attention import collect_maps, find_backbone
    from mmlightvit.toolboxes import build_model

    model = build_model(cfg)
    load_into(model, args.checkpoint)
    backbone = find_backbone(model.eval())
    spec = whole_input(cfg, args.short_side)
    for path in args.images:
        image = prepare_image(path, spec)
        rows = choose(collect_maps(backbone, image.tensor), args.stages, args.blocks, args.heads)
        out = args.out / f'{image.name}.png'
        height, width = image.pixels.shape[:2]
        draw_sheet(image.pixels, rows, out, f'{path.name}, seen at {width} x {height}', args.tokens)
        print(f'written: {out}')


if __name__ == '__main__':
    main()
