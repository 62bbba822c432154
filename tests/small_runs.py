# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Settings that make a training on own data a matter of seconds, and the end of a run in a process that goes on."""

from __future__ import annotations

import logging

from mmengine.utils import ManagerMixin

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


def forget() -> None:
    """End what MMEngine keeps one of per process, as the end of a process would."""
    logging.shutdown()
    kinds = [ManagerMixin]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        kind._instance_dict.clear()
