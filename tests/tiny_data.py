# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Data sets of a few small images in the toolboxes' layouts, and what shrinks a real config to them."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image
from variants import TEST_ARCH

from mmlightvit.models.backbones import lightvit

# An option of the command line takes no dict, so the minute architecture has a name here.
lightvit.ARCH_ZOO = MappingProxyType({**lightvit.ARCH_ZOO, 'test': TEST_ARCH})

SMALL_BACKBONE = ['model.backbone.arch=test', 'model.backbone.drop_path_rate=0.0']
NO_WORKERS = [
    f'{split}_dataloader.{key}'
    for split in ('train', 'val', 'test')
    for key in ('num_workers=0', 'persistent_workers=False')
]


def _picture(path: Path, size: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_coco(root: Path, images: int = 4, size: int = 64) -> None:
    """train2017 and val2017 with two objects per image, as rectangles."""
    for split in ('train', 'val'):
        content = dict(images=[], annotations=[], categories=[dict(id=1, name='person'), dict(id=3, name='car')])
        for index in range(images):
            name = f'{index:012d}.png'
            _picture(root / f'{split}2017' / name, size, index)
            content['images'].append(dict(id=index, file_name=name, height=size, width=size))
            for number, (x, y, w, h) in enumerate([(4, 6, 24, 30), (20, 16, 40, 36)]):
                content['annotations'].append(
                    dict(
                        id=2 * index + number + 1,
                        image_id=index,
                        category_id=(1, 3)[number],
                        bbox=[x, y, w, h],
                        area=w * h,
                        iscrowd=0,
                        segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
                    )
                )
        path = root / 'annotations' / f'instances_{split}2017.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def write_image_folders(root: Path, images: int = 4, size: int = 64) -> None:
    """train/ and val/ with two classes of ``images`` files each."""
    for split in ('train', 'val'):
        for label in ('cat', 'dog'):
            for index in range(images):
                _picture(root / split / label / f'{index}.png', size, index + 100 * (label == 'dog'))


def write_ade(root: Path, images: int = 4, size: int = 64) -> None:
    """images/ and annotations/ with labels 0 to 150."""
    for split in ('training', 'validation'):
        for index in range(images):
            _picture(root / 'images' / split / f'ADE_{index:08d}.jpg', size, index)
            labels = np.random.RandomState(index).randint(0, 151, (8, 8), dtype=np.uint8)
            target = root / 'annotations' / split / f'ADE_{index:08d}.png'
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels.repeat(size // 8, 0).repeat(size // 8, 1)).save(target)


DETECTION = [
    *SMALL_BACKBONE,
    *NO_WORKERS,
    'model.backbone.init_cfg=None',
    'model.neck.in_channels=[8,16,32]',
    'train_dataloader.batch_size=1',
    'train_dataloader.dataset.pipeline.2.scale=(64,64)',
    'val_dataloader.dataset.pipeline.1.scale=(64,64)',
    'test_dataloader.dataset.pipeline.1.scale=(64,64)',
    *(f'{split}_dataloader.dataset.metainfo.classes=person,car' for split in ('train', 'val', 'test')),
    'train_cfg.max_epochs=1',
    'default_hooks.logger.interval=1',
]
CLASSIFICATION = [
    *SMALL_BACKBONE,
    *NO_WORKERS,
    'model.head.in_channels=32',
    'model.head.num_classes=2',
    'model.head.topk=(1,)',
    'val_evaluator.topk=(1,)',
    'test_evaluator.topk=(1,)',
    'model.train_cfg=None',
    'data_preprocessor.num_classes=2',
    'train_dataloader.batch_size=2',
    'train_dataloader.drop_last=False',
    *(f'{split}_dataloader.dataset.metainfo.classes=cat,dog' for split in ('train', 'val', 'test')),
    'train_cfg.max_epochs=1',
    'default_hooks.logger.interval=1',
]
SEGMENTATION = [
    *SMALL_BACKBONE,
    *NO_WORKERS,
    'model.backbone.init_cfg=None',
    'model.neck.in_channels=[8,16,32]',
    'model.data_preprocessor.size=(64,64)',
    'train_dataloader.batch_size=1',
    'train_dataloader.dataset.pipeline.2.scale=(64,64)',
    'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
    'val_dataloader.dataset.pipeline.1.scale=(64,64)',
    'test_dataloader.dataset.pipeline.1.scale=(64,64)',
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=2',
    'default_hooks.checkpoint.interval=2',
    'default_hooks.logger.interval=1',
]
