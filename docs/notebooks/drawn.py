# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What the notebooks work on: drawn digits with LabelMe files, and a small model of them."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from mmlightvit.cli import main
from mmlightvit.pictures.masks import Masks

ROOT = Path(__file__).resolve().parents[2]  # of docs/notebooks, and of build/notebooks
sys.path += [str(ROOT / 'tools' / name) for name in ('demo', 'paper')]

from digits import DigitsSettings, Scans, draw_scene  # noqa: E402

#: Trains a small model from nothing, for one look at each picture.
TRAIN = (
    f'train digits --model {ROOT}/configs/demo/semantic_fpn_lightvit_digits.py --from none '
    '--epochs 1 --batch 4 --lr 2e-3 --size 64 --workers 0 --no-report'
)


def mmlightvit(line: str) -> None:
    """Run a line of the shell in this process, where nothing has to be imported again."""
    if main(shlex.split(line)):
        raise SystemExit(f'mmlightvit {line}')


def write_labelme(folder: str, pictures: int = 300) -> None:
    """Pictures of digits, and beside each the polygons of their outlines as LabelMe writes them."""
    Path(folder).mkdir(exist_ok=True)
    settings = DigitsSettings(image_size=64, max_digits=2, min_height=30, max_height=56, dark_ink=True)
    scans = Scans.load('train')
    rng = np.random.default_rng(0)
    for number in range(pictures):
        scene = draw_scene(rng, scans, settings)
        file = Path(folder, f'{number:03}.png')
        Image.fromarray(scene.image).save(file)
        outlines = Masks.from_dense(scene.masks).polygons()
        shapes = [
            dict(label='digit', points=np.asarray(points).tolist(), shape_type='polygon', group_id=None)
            for points in outlines
        ]
        file.with_suffix('.json').write_text(json.dumps(dict(imagePath=file.name, imageData=None, shapes=shapes)))


def model() -> str:
    """The work directory of a model of these pictures; trained, as in the notebook on LabelMe, unless it is there."""
    if not Path('work_dirs/digits/model').is_dir():
        write_labelme('photos')
        mmlightvit('data import photos --out digits --task segmentation --overwrite')
        mmlightvit(TRAIN)
    return 'work_dirs/digits'
