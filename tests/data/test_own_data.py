# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""One's own data, as docs/own_data.md says: import, check, show, train, test."""

from __future__ import annotations

import json
import logging
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from imports import imported
from mmengine.config import Config
from mmengine.utils import ManagerMixin
from PIL import Image

from mmlightvit.cli import main, test, train
from mmlightvit.config_paths import install
from mmlightvit.data.check import check_config
from mmlightvit.data.folder import DatasetFolder
from mmlightvit.inference.draw import colour_of
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
_SMALL_IMAGES = [
    *UNTHREADED,
    'train_cfg.max_epochs=1',
    'train_dataloader.dataset.pipeline.2.scale=(96,72)',
    'val_dataloader.dataset.pipeline.1.scale=(96,72)',
    'test_dataloader.dataset.pipeline.1.scale=(96,72)',
]
#: Toolbox, settings that make it a matter of seconds, and the metric.
TASKS = {
    'classification': ('mmpretrain', ['train_cfg.max_epochs=1'], 'accuracy/top1'),
    'detection': ('mmdet', _SMALL_IMAGES, 'coco/bbox_mAP'),
    'instance': (
        'mmdet',
        [*_SMALL_IMAGES, 'model.train_cfg.rpn_proposal.max_per_img=50', 'model.test_cfg.rpn.max_per_img=20'],
        'coco/segm_mAP',
    ),
    'segmentation': (
        'mmseg',
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


def prepared(folder: Path, task: str) -> DatasetFolder:
    """A small set of the task in the form of other tools, imported."""
    source = folder / 'data'
    if task == 'classification':
        planted.write_folders(source, images=2)
    elif task == 'segmentation':
        planted.write_labelled(source, images=2)
    else:
        path = planted.write_coco(source, images=3)
        content = json.loads(path.read_text())  # the first picture has no object
        path.write_text(json.dumps({**content, 'annotations': content['annotations'][2:]}))
        planted.write_coco(source, images=2, split='val')
    names = ','.join(['background', *planted.CLASSES]) if task == 'segmentation' else None
    return imported(source, folder / 'pets', classes=names, task=task).folder


@pytest.mark.filterwarnings('ignore:The draw is False:UserWarning')  # mmseg's hook, when nothing is to be drawn
@pytest.mark.parametrize('task', TASKS)
def test_a_prepared_folder_trains_and_tests(tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # MMEngine formats the config for each of its dumps, which takes longer than the training here.
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **settings: (text, True))
    toolbox, options, metric = TASKS[task]
    pytest.importorskip(toolbox)
    folder = prepared(tmp_path, task)
    config = str(folder.config)

    import_toolbox(toolbox)
    install()
    assert check_config(Config.fromfile(config)).problems == []

    work_dir = tmp_path / 'run'
    common = [config, '--work-dir', str(work_dir), '--cfg-options', *COMMON, *options]
    runner = train.train(train.parser().parse_args(common))
    assert tuple(runner.train_dataloader.dataset.metainfo['classes']) == folder.classes
    assert len(runner.train_dataloader.dataset) == len(folder.pictures('train'))
    checkpoints = sorted(work_dir.glob('*_[12].pth'))
    assert checkpoints
    forget()
    metrics = test.test(test.parser().parse_args([common[0], str(checkpoints[-1]), *common[1:]]))
    assert 0 <= metrics[metric] <= 100


@pytest.mark.parametrize('task', TASKS)
def test_names_number_and_files_are_those_of_the_data(tmp_path: Path, task: str) -> None:
    pytest.importorskip(TASKS[task][0])
    folder = prepared(tmp_path, task)
    info = json.loads((folder.path / 'dataset.json').read_text())
    names = ['five', 'four', 'three', 'two', 'one']
    (folder.path / 'dataset.json').write_text(json.dumps({**info, 'classes': names}))
    (tmp_path / 'pets').rename(tmp_path / 'moved')  # the folder may move; the pictures lie where they lay
    install()
    cfg = Config.fromfile(tmp_path / 'moved' / 'config.py')
    heads = {
        'classification': lambda: [cfg.model.head, cfg.data_preprocessor],
        'detection': lambda: [cfg.model.bbox_head],
        'instance': lambda: [cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head],
        'segmentation': lambda: [cfg.model.decode_head],
    }[task]()
    assert [head.num_classes for head in heads] == [5] * len(heads)
    for split, file in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert list(dataset.get('classes') or dataset.metainfo.classes) == names
        assert dataset.ann_file == str(tmp_path / 'moved' / info['splits'][file]['file'])


@pytest.mark.parametrize('task', TASKS)
def test_samples_are_shown_as_the_pipeline_gives_them(tmp_path: Path, task: str) -> None:
    pytest.importorskip(TASKS[task][0])
    folder = prepared(tmp_path, task)
    for augmented in ([], ['--augmented']):
        out = tmp_path / f'sheet{len(augmented)}.png'
        assert main(['data', 'show', str(folder.config), '--count', '2', '--out', str(out), *augmented]) == 0
        pixels = np.asarray(Image.open(out)).reshape(-1, 3).astype(int)
        drawn = [(abs(pixels - colour_of(place)).max(axis=1) < 30).sum() for place in range(len(folder.classes))]
        assert sum(number > 25 for number in drawn) >= (1 if task == 'classification' else 2)


def run_line(words: list[str], options: list[str]) -> int:
    """A command of the docs; training with settings that make it a matter of seconds."""
    if words[:2] == ['python', 'tools/train.py']:
        train.train(train.parser().parse_args([*words[2:], '--cfg-options', *COMMON, *options]))
        forget()
        return 0
    assert words[0] == 'mmlightvit'
    return main([*words[1:], *(['--size', '64'] if words[1] == 'predict' else [])])


def test_the_commands_of_the_docs(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a LabelMe folder to labelled pictures."""
    pytest.importorskip('mmdet')
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **settings: (text, True))
    text = (repo / 'docs' / 'own_data.md').read_text()
    (block,) = re.findall(r'<!-- run -->\n```bash\n(.*?)```', text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'photos').mkdir()
    for number in range(5):
        planted.scene(number).save(f'photos/{number}.jpg')
        points = [[5 + number, 5], [30, 5], [30, 30]]
        shapes = [{'label': ('cat', 'dog')[number % 2], 'points': points, 'shape_type': 'polygon', 'group_id': None}]
        content = {'imagePath': f'{number}.jpg', 'imageData': None, 'shapes': shapes}
        Path(f'photos/{number}.json').write_text(json.dumps(content))
    for line in block.splitlines():
        assert run_line(shlex.split(line, comments=True), TASKS['instance'][1]) == 0, line
    assert Path('pets/show.png').is_file()
    assert len(list(Path('found').rglob('*.jpg'))) == 5
