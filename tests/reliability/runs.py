# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Small trainings for the reliability tests: seconds long, with everything random that a real one has."""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner as StockRunner
from torch import Tensor, nn
from torch.utils.data import Dataset
from variants import TEST_ARCH

from mmlightvit.durable.runner import Runner
from mmlightvit.models.backbones import LightViT

SIDE = 32


class KillAt(Hook):
    """Sends this process a signal at the end of an iteration.

    Args:
        at: Number of the iteration, from 1.
        number: The signal.
        rank: The rank that gets it.
    """

    priority = 'LOWEST'

    def __init__(self, at: int, number: int, rank: int = 0) -> None:
        self.at = at
        self.number = number
        self.rank = rank

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.at and runner.rank == self.rank:
            os.kill(os.getpid(), self.number)


class Sample:
    """A data sample that names its file, as the toolboxes' do."""

    def __init__(self, img_path: str, label: int) -> None:
        self.img_path = img_path
        self.label = label


class NoisyDigits(Dataset):
    """Images from noise around their label, augmented with all three global random number generators.

    Args:
        samples: Their number.
        bad: Indices whose images are NaN.
    """

    metainfo = dict(classes=('a', 'b', 'c'))

    def __init__(self, samples: int = 14, bad: tuple[int, ...] = ()) -> None:
        generator = torch.Generator().manual_seed(5)
        self.images = torch.randn(samples, 3, SIDE, SIDE, generator=generator)
        self.bad = tuple(bad)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        image = self.images[index] + index % 3
        image = image * (0.5 + random.random()) + float(np.random.normal()) * 0.1 + torch.randn(1) * 0.1
        if index in self.bad:
            image = image * float('nan')
        return dict(inputs=image, data_samples=Sample(f'images/{index:03d}.png', index % 3))


class Classifier(BaseModel):
    """LightViT of the test size, with drop path and a BatchNorm, under a linear head."""

    def __init__(self, width: int = 0) -> None:
        super().__init__()
        self.backbone = LightViT(arch=TEST_ARCH, drop_path_rate=0.2, out_type='tokens')
        self.head = nn.LazyLinear(3)
        self.norm = nn.BatchNorm1d(3)
        self.ballast = nn.Parameter(torch.zeros(width)) if width else None
        with torch.no_grad():
            self.eval()
            self._logits(torch.zeros(1, 3, SIDE, SIDE))
            self.train()

    def _logits(self, images: Tensor) -> Tensor:
        features = self.backbone(images)[-1]
        tokens = features[0] if isinstance(features, (tuple, list)) else features
        flat = tokens.flatten(2).mean(-1) if tokens.dim() == 4 else tokens.mean(1)
        return self.norm(self.head(flat))

    def forward(self, inputs: list[Tensor], data_samples: list[Sample], mode: str = 'tensor') -> Any:
        logits = self._logits(torch.stack(list(inputs)))
        labels = torch.tensor([sample.label for sample in data_samples])
        if mode == 'loss':
            loss = nn.functional.cross_entropy(logits + torch.rand_like(logits) * 0.01, labels)
            if self.ballast is not None:
                loss = loss + self.ballast.sum() * 0
            return dict(loss=loss)
        return [dict(score=float(row[label])) for row, label in zip(logits, labels)]


class MeanScore(BaseMetric):
    """Mean logit of the true class."""

    def process(self, data_batch: Any, data_samples: list[dict]) -> None:
        self.results += [entry['score'] for entry in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return dict(score=float(np.mean(np.array(results, dtype=np.float64))))


def config(work_dir: str | os.PathLike, by_epoch: bool = True, workers: int = 0, **changes: Any) -> dict:
    """Arguments of a runner.

    Args:
        work_dir: Work directory.
        by_epoch: Three epochs of five batches, or fifteen iterations.
        workers: Workers of the training data loader.
        **changes: Replace single entries; ``a__b`` stands for ``a.b``.
    """
    loop = (
        dict(type='EpochBasedTrainLoop', max_epochs=3)
        if by_epoch
        else dict(type='IterBasedTrainLoop', max_iters=15, val_interval=5)
    )
    cfg = Config(
        dict(
            default_scope='mmengine',
            model_wrapper_cfg=dict(type='mmlightvit.DistributedDataParallel'),
            model=dict(type=Classifier),
            work_dir=str(work_dir),
            train_dataloader=dict(
                batch_size=3,
                num_workers=workers,
                persistent_workers=workers > 0,
                dataset=dict(type=NoisyDigits),
                sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True),
            ),
            val_dataloader=dict(
                batch_size=4, dataset=dict(type=NoisyDigits), sampler=dict(type='DefaultSampler', shuffle=False)
            ),
            train_cfg=loop,
            val_cfg=dict(),
            val_evaluator=dict(type=MeanScore),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2)),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4),
                dict(type='CosineAnnealingLR', by_epoch=by_epoch, begin=0, end=3 if by_epoch else 15),
            ],
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(
                    type='CheckpointHook',
                    interval=1 if by_epoch else 5,
                    by_epoch=by_epoch,
                    save_best='score',
                    rule='greater',
                    max_keep_ckpts=2,
                ),
            ),
            custom_hooks=[dict(type='EMAHook', momentum=0.1)],
            randomness=dict(seed=3),
            log_level='ERROR',
            env_cfg=dict(dist_cfg=dict(backend='gloo')),
            log_processor=dict(by_epoch=by_epoch, window_size=4),
        )
    )
    for key, value in changes.items():
        cfg.merge_from_dict({key.replace('__', '.'): value})
    return cfg


def train(cfg: Any, stock: bool = False) -> Any:
    """Build the runner and train; returns it."""
    torch.set_num_threads(1)
    kind = StockRunner if stock else Runner
    cfg.setdefault('experiment_name', f'run_{random.SystemRandom().getrandbits(60)}')
    runner = kind.from_cfg(cfg)
    runner.train()
    return runner


def fingerprint(runner: Any) -> str:
    """A digest of weights and optimizer state; on rank 0 also of buffers, the average, losses and metrics of the run.

    Other ranks have BatchNorm statistics and logs of their own, which are neither saved nor shown.
    """
    digest = hashlib.sha256()
    optimizer = runner.optim_wrapper.state_dict()
    state: dict = dict(
        parameters={name.removeprefix('module.'): value for name, value in runner.model.named_parameters()},
        optimizer=optimizer.get('state', optimizer),  # several optimizers have no common one
    )
    if runner.rank == 0:
        state['buffers'] = dict(runner.model.named_buffers())
        state['average'] = [hook.ema_model.state_dict() for hook in runner.hooks if hasattr(hook, 'ema_model')]
        for key, history in sorted(runner.message_hub.log_scalars.items()):
            if 'time' not in key and 'memory' not in key:
                state[key] = history.data[0].tolist()
    _update(digest, state)
    return digest.hexdigest()


def _update(digest: Any, state: Any) -> None:
    if isinstance(state, dict):
        for key in state:
            digest.update(str(key).encode())
            _update(digest, state[key])
    elif isinstance(state, list):
        for entry in state:
            _update(digest, entry)
    elif isinstance(state, Tensor):
        digest.update(state.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    else:
        digest.update(repr(state).encode())


def logged(work_dir: str | os.PathLike) -> list[dict]:
    """All entries of the runs' scalars files, oldest run first."""
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]
