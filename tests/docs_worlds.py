# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What the commands of the docs are run on: small folders of the names that the pages use.

A world writes into the current folder, and returns the words of the page that stand for something (``MODEL``), and
patterns of files that have to be there at the end.
"""

from __future__ import annotations

import json
import runpy
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import planted
import scenes
from small_runs import COMMON, TASKS, forget

from mmlightvit.cli import main, train

World = tuple[Mapping[str, str], tuple[str, ...]]


def photos(folder: Path) -> World:
    """Pictures of several cameras with LabelMe files; the block trains on them."""
    (folder / 'photos').mkdir()
    for number in range(6):
        planted.scene(number).save(folder / f'photos/camera{number}_a.jpg')
        points = [[5 + number, 5], [30, 5], [30, 30]]
        shapes = [{'label': ('cat', 'dog')[number % 2], 'points': points, 'shape_type': 'polygon', 'group_id': None}]
        content = {'imagePath': f'camera{number}_a.jpg', 'imageData': None, 'shapes': shapes}
        (folder / f'photos/camera{number}_a.json').write_text(json.dumps(content))
    return {}, ('pets/dataset.json',)


def pets(folder: Path) -> World:
    """The prepared folder of these."""
    photos(folder)
    assert main(['data', 'import', 'photos', '--out', 'pets']) == 0
    return {}, ('pets/show.png', 'pets/stats.png')


def predictions(folder: Path) -> World:
    """A COCO file, and results of two detectors."""
    truth = scenes.truth(pictures=20)
    for name, content in (('truth', truth), ('noisy', scenes.noisy(truth)), ('perfect', scenes.perfect(truth))):
        (folder / f'{name}.json').write_text(json.dumps(content))
    return {'MODEL': 'noisy.json', 'A': 'noisy.json', 'B': 'perfect.json', 'DATA': 'truth.json'}, ('report/index.html',)


def demo(folder: Path) -> World:
    """What `make demo` leaves, as far as prediction needs it: random weights, and pictures."""
    import torch
    from mmengine.config import Config

    from mmlightvit.toolboxes import build_model

    work_dir = folder / 'work_dirs/demo/detection'
    pictures = folder / 'data/digits/detection/val'
    for path in (work_dir, pictures):
        path.mkdir(parents=True)
    for number in range(4):
        planted.scene(number, 64, 64).save(pictures / f'00000{number}.jpg')
    cfg = Config.fromfile('configs/demo/mask_rcnn_lightvit_digits.py')
    model = build_model(cfg)
    model.init_weights()
    meta = {'dataset_meta': {'classes': tuple(map(str, range(10)))}}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, work_dir / 'epoch_3.pth')
    cfg.dump(work_dir / 'mask_rcnn_lightvit_digits.py')
    return {}, ('outputs/**/*.[jp][np]g',)


def repository(folder: Path) -> World:
    """Nothing but the repository."""
    return {}, ()


WORLDS: dict[str, Callable[[Path], World]] = {
    'photos': photos,
    'pets': pets,
    'predictions': predictions,
    'demo': demo,
    'repository': repository,
}


def lines(commands: str, replaced: Mapping[str, str]) -> Iterator[list[str]]:
    """The words of each command."""
    for line in commands.replace('\\\n', ' ').splitlines():
        words = [replaced.get(word, word) for word in shlex.split(line, comments=True)]
        if words:
            yield words


def run(words: list[str]) -> int:
    """A command in this process; a training with settings that make it a matter of seconds."""
    if words[:2] == ['python', 'tools/train.py']:
        train.train(train.parser().parse_args([*words[2:], '--cfg-options', *COMMON, *TASKS['instance'][1]]))
        forget()
        return 0
    if words[:2] == ['mmlightvit', 'train']:
        quick = ['--from', 'none', '--epochs', '1', '--batch', '2', '--size', '64', '--workers', '0']
        code = main([*words[1:], *quick])
        forget()
        return code
    if words[0] == 'python':
        with mock.patch('sys.argv', words[1:]):
            try:
                runpy.run_path(words[1], run_name='__main__')
            except SystemExit as end:
                return int(end.code or 0)
        return 0
    assert words[0] == 'mmlightvit', words
    return main([*words[1:], *(['--size', '64'] if words[1] == 'predict' else [])])
