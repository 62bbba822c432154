# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""One's own data, as docs/own_data.md says: import, check, show, train, test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from imports import imported
from mmengine.config import Config
from PIL import Image
from small_runs import COMMON, TASKS, forget

from mmlightvit.cli import main, test, train
from mmlightvit.config_paths import install
from mmlightvit.data.check import check_config
from mmlightvit.data.folder import DatasetFolder
from mmlightvit.pictures.colours import colour_of
from mmlightvit.toolboxes import import_toolbox


@pytest.fixture(autouse=True)
def _fresh_process() -> Any:
    yield
    forget()


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
def test_a_prepared_folder_trains_and_tests(tmp_path: Path, task: str) -> None:
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
        # Tools of the toolboxes, such as mmdet's confusion_matrix.py, add tuples to them.
        assert (dataset.get('classes') or dataset.metainfo.classes) == tuple(names)
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
