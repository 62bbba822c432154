# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The examples for one's own data, run as docs/own_data.md says: copy, name, check, train, test."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import planted
import pytest
from mmengine.config import Config
from mmengine.utils import ManagerMixin

from mmlightvit.cli import test, train
from mmlightvit.data.check import check_config
from mmlightvit.toolboxes import import_toolbox

COMMON = [
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'val_dataloader.num_workers=0',
    'test_dataloader.num_workers=0',
    'model.backbone.init_cfg=None',
    'randomness.seed=0',
]
UNTHREADED = [f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val', 'test')]
#: Name, labels of the small data set, settings that make it a matter of seconds, and the metric.
TASKS = {
    'classification': (['bar', 'disk'], ['train_cfg.max_epochs=1'], 'accuracy/top1'),
    'detection': (
        list(planted.CLASSES),
        [
            *UNTHREADED,
            'train_cfg.max_epochs=1',
            'train_dataloader.dataset.pipeline.2.scale=(96,72)',
            'val_dataloader.dataset.pipeline.1.scale=(96,72)',
            'test_dataloader.dataset.pipeline.1.scale=(96,72)',
            'model.train_cfg.rpn_proposal.max_per_img=50',
            'model.test_cfg.rpn.max_per_img=20',
        ],
        'coco/bbox_mAP',
    ),
    'segmentation': (
        ['background', *planted.CLASSES],
        [
            *UNTHREADED,
            'train_cfg.max_iters=2',
            'train_cfg.val_interval=2',
            'default_hooks.checkpoint.interval=2',
            'train_dataloader.dataset.pipeline.2.scale=(128,64)',
            'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
            'model.data_preprocessor.size=(64,64)',
            'val_dataloader.dataset.pipeline.1.scale=(128,64)',
            'test_dataloader.dataset.pipeline.1.scale=(128,64)',
        ],
        'mIoU',
    ),
}


@pytest.fixture(autouse=True)
def _fresh_process() -> Any:
    yield
    forget()


def forget() -> None:
    """End what MMEngine keeps one of per process, as the end of a process would."""
    logging.shutdown()
    kinds = [ManagerMixin]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        kind._instance_dict.clear()


def own_config(repo: Path, folder: Path, task: str) -> Path:
    """The example as a user edits it: names, and the folder of the data."""
    example = repo / 'configs' / 'own_data' / f'{task}.py'
    lines = example.read_text().splitlines()
    edits = {
        '_base_ = ': lambda line: line.replace("'../", f"'{repo}/configs/"),
        'classes = ': lambda line: f'classes = {TASKS[task][0]!r}',
        'data_root = ': lambda line: f"data_root = '{folder}/data/'",
    }
    for start, change in edits.items():
        places = [place for place, line in enumerate(lines) if line.startswith(start)]
        assert len(places) == 1, start  # stated once
        lines[places[0]] = change(lines[places[0]])
    path = folder / f'own_{task}.py'
    path.write_text('\n'.join(lines))
    return path


def write_data(folder: Path, task: str) -> None:
    if task == 'classification':
        planted.write_folders(folder, images=2)
    elif task == 'segmentation':
        planted.write_labelled(folder, images=2)
    else:
        planted.write_coco(folder, images=2)
        planted.write_coco(folder, images=2, split='val')


@pytest.mark.filterwarnings('ignore:The draw is False:UserWarning')  # mmseg's hook, when nothing is to be drawn
@pytest.mark.parametrize('task', TASKS)
def test_an_example_trains_and_tests(repo: Path, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # MMEngine formats the config for each of its dumps, which takes longer than the training here.
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **settings: (text, True))
    toolbox = {'classification': 'mmpretrain', 'detection': 'mmdet', 'segmentation': 'mmseg'}[task]
    pytest.importorskip(toolbox)
    classes, options, metric = TASKS[task]
    write_data(tmp_path / 'data', task)
    config = own_config(repo, tmp_path, task)

    import_toolbox(toolbox)
    assert check_config(Config.fromfile(config)).problems == []

    work_dir = tmp_path / 'run'
    common = [str(config), '--work-dir', str(work_dir), '--cfg-options', *COMMON, *options]
    runner = train.train(train.parser().parse_args(common))
    assert list(runner.train_dataloader.dataset.metainfo['classes']) == classes
    checkpoints = sorted(work_dir.glob('*_[12].pth'))
    assert checkpoints
    forget()
    metrics = test.test(test.parser().parse_args([common[0], str(checkpoints[-1]), *common[1:]]))
    assert 0 <= metrics[metric] <= 100


@pytest.mark.parametrize('task', TASKS)
def test_the_number_of_classes_follows_their_names(repo: Path, tmp_path: Path, task: str) -> None:
    config = own_config(repo, tmp_path, task)
    names = ['one', 'two', 'three', 'four', 'five']
    text = config.read_text().replace(f'classes = {TASKS[task][0]!r}', f'classes = {names!r}')
    config.write_text(text)
    cfg = Config.fromfile(config)
    heads = {
        'classification': lambda: [cfg.model.head, cfg.data_preprocessor],
        'detection': lambda: [cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head],
        'segmentation': lambda: [cfg.model.decode_head],
    }[task]()
    assert [head.num_classes for head in heads] == [5] * len(heads)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert list(dataset.get('classes') or dataset.metainfo.classes) == names
