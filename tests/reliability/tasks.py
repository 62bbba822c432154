# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The three tasks, small: the demos' configs with the test-size backbone, few digits, and every kind of randomness."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from digits import prepare, settings_for
from mmengine.config import Config
from variants import TEST_ARCH

from mmlightvit.data.data_root import move_data_root

ROOT = Path(__file__).resolve().parents[2]
TASKS = ('detection', 'classification', 'segmentation')
SIDE = 64


def prepare_data(root: Path) -> None:
    """Draw the digits of the three tasks into ``root``."""
    for task in TASKS:
        digits = {} if task == 'classification' else dict(min_digits=1, max_digits=2, min_height=20, max_height=40)
        settings = settings_for(task, num_train=14, num_val=10 if task == 'classification' else 4, **digits)
        if task != 'classification':
            settings = replace(settings, image_size=SIDE)
        prepare(task, root / task, settings)


def config(task: str, data: Path, work_dir: str | os.PathLike, workers: int = 0, **changes: Any) -> Config:
    """The demo's config of a task: about fifteen iterations, an average of the weights, checkpoints and validation.

    Args:
        task: One of :data:`TASKS`.
        data: What :func:`prepare_data` filled.
        work_dir: Work directory.
        workers: Workers of the training data loader.
        **changes: Replace single entries; ``a__b`` stands for ``a.b``.
    """
    names = dict(
        detection='mask_rcnn_lightvit_digits',
        classification='lightvit_digits',
        segmentation='semantic_fpn_lightvit_digits',
    )
    cfg = Config.fromfile(ROOT / 'configs' / 'demo' / f'{names[task]}.py', import_custom_modules=False)
    width = (8, 16, 32)
    cfg.model.backbone.arch = TEST_ARCH
    cfg.model.backbone.drop_path_rate = 0.2
    loader = dict(num_workers=workers, persistent_workers=workers > 0, batch_size=3)
    cfg.merge_from_dict(
        dict(
            work_dir=str(work_dir),
            train_dataloader=loader,
            default_hooks=dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=2)),
            custom_hooks=[dict(type='EMAHook', momentum=0.1)],
            randomness=dict(seed=3),
            log_level='ERROR',
            env_cfg=dict(dist_cfg=dict(backend='gloo')),
        )
    )
    move_data_root(cfg, str(data / task))
    pipeline = cfg.train_dataloader.dataset.pipeline
    flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
    if task == 'detection':
        cfg.model.neck.in_channels = width
        pipeline[2:2] = [dict(type='RandomChoiceResize', scales=[(64, 64), (80, 80)], keep_ratio=True), dict(flip)]
    elif task == 'classification':
        cfg.model.head.in_channels = width[-1]
        cfg.model.train_cfg = dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)])
        pipeline[1:1] = [dict(type='RandomResizedCrop', scale=32), dict(flip)]
    else:
        cfg.model.neck.in_channels = width
        cfg.model.data_preprocessor.size = (SIDE, SIDE)
        pipeline[2:2] = [dict(type='RandomCrop', crop_size=(56, 56)), dict(flip), dict(type='PhotoMetricDistortion')]
    if cfg.train_cfg.type == 'EpochBasedTrainLoop':
        cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=1)
    else:
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=15, val_interval=5)
        cfg.default_hooks.checkpoint.interval = 5
    for key, value in changes.items():
        cfg.merge_from_dict({key.replace('__', '.'): value})
    return cfg
