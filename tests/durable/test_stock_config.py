# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The three lines of the room's README make a stock config of a toolbox survive; no part of the model is ours."""

from __future__ import annotations

import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmpretrain')
sys.path.insert(0, str(Path(__file__).parents[1] / 'reliability'))

import forks
import runs
from mmengine.config import Config
from mmengine.registry import RUNNERS, init_default_scope

IMAGES = 14

CONFIG = """
_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'

{lines}

data = dict(
    _delete_=True,
    type='CustomDataset',
    data_root='{data}',
    data_prefix='',
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='RandomCrop', crop_size=32, padding=4),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackInputs'),
    ],
)
train_dataloader = dict(batch_size=3, num_workers=2, dataset=data)
val_dataloader = dict(batch_size=7, num_workers=0, dataset=data)
test_dataloader = val_dataloader
model = dict(head=dict(num_classes=2, topk=(1,)))
val_evaluator = dict(topk=(1,))
test_evaluator = dict(topk=(1,))
data_preprocessor = dict(num_classes=2)
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
randomness = dict(seed=3)
"""


def three_lines(repo: Path) -> str:
    """The lines as the README gives them, so that what is tested is what people copy."""
    text = (repo / 'mmlightvit' / 'durable' / 'README.md').read_text()
    lines = text.partition('```python\n')[2].partition('```')[0].strip()
    assert len(lines.splitlines()) == 3
    return lines


@pytest.fixture(scope='module')
def config(repo, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('stock')
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        path = folder / 'data' / ('cat', 'dog')[index % 2] / f'{index:02d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    file = folder / 'resnet.py'
    file.write_text(CONFIG.format(lines=three_lines(repo), data=folder / 'data'))
    return file


def _train(config: Path, work_dir: Path, **changes: object) -> tuple[int, str]:
    work_dir.mkdir(exist_ok=True)

    def work() -> None:
        warnings.simplefilter('ignore')  # third parties' remarks are not this test's matter
        from mmpretrain.utils import register_all_modules

        register_all_modules(init_default_scope=False)
        cfg = Config.fromfile(config)
        cfg.work_dir = str(work_dir)
        cfg.merge_from_dict(changes)
        init_default_scope('mmpretrain')
        runner = RUNNERS.build(cfg)
        ours = [name for name, part in runner.model.named_modules() if 'mmlightvit' in type(part).__module__]
        assert ours == []
        assert type(runner.model.backbone).__name__ == 'ResNet_CIFAR'
        runner.train()
        (work_dir / 'fingerprint').write_text(runs.fingerprint(runner))

    code = forks.run(work, work_dir / 'out', seconds=300)
    result = work_dir / 'fingerprint'
    return code, result.read_text() if result.exists() else (work_dir / 'out').read_text()[-3000:]


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_a_stock_resnet_is_killed_and_resumed_to_identical_weights(config, tmp_path, number):
    code, whole = _train(config, tmp_path / 'whole')
    assert code == 0, whole
    # The kill comes in the middle of the second epoch, behind the checkpoint of the first.
    kill = [dict(type=runs.KillAt, at=8, number=int(number))]
    code, said = _train(config, tmp_path / 'cut', custom_hooks=kill)
    assert code == (-9 if number == signal.SIGKILL else 128 + number), said
    assert not (tmp_path / 'cut' / 'epoch_2.pth').exists()
    code, resumed = _train(config, tmp_path / 'cut', resume=True)
    assert (code, resumed) == (0, whole)


def test_the_log_names_each_class_in_anothers_place_and_each_bad_file(config, tmp_path):
    (broken := config.parent / 'data' / 'cat' / 'broken.png').write_bytes(b'no image')
    try:
        code, said = _train(config, tmp_path / 'run', **{'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 9})
    finally:
        broken.unlink()
    assert code == 1  # one of 15 is more than a twentieth
    out = (tmp_path / 'run' / 'out').read_text()
    for name in ('CheckpointHook', 'EpochBasedTrainLoop', 'OptimWrapper'):
        assert out.count(f'mmlightvit.{name} takes the place of mmengine.') == 1
    assert 'broken.png: it is not an image of a known format' in out, said
