# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A training that needs no toolbox and takes a second, as a config file that the commands take."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmlightvit.errors import UserError

CONFIG = """
custom_imports = dict(imports=['toy_run'])
default_scope = 'mmengine'
runner_type = 'mmlightvit.Runner'
epochs = 2
model = dict(type='ToyModel')
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=True,
    dataset=dict(type='ToyData', length=4),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(type='ToyData', length=4),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type='ToyMetric')
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=epochs)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1),
    paramwise_cfg=dict(custom_keys=dict(bias=dict(lr_mult=2.0))))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1), logger=dict(type='LoggerHook', interval=1))
"""


def write_config(folder: Path, more: str = '') -> Path:
    """Write the config; returns its path."""
    path = folder / 'toy.py'
    path.write_text(CONFIG + more)
    return path


@MODELS.register_module()
class ToyModel(BaseModel):
    """A line. ``fault`` names the place at which it fails; ``warn`` makes it warn at each step."""

    def __init__(self, fault: str = '', warn: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.line = nn.Linear(3, 1)
        self.fault, self.warn = fault, warn
        if fault == 'build':
            raise UserError('the model of the toy cannot be built')

    def forward(self, inputs: list[Tensor], mode: str = 'tensor', **kwargs: Any) -> Any:
        if self.warn:
            warnings.warn('a warning of another package', stacklevel=1)
        if self.fault == mode:
            raise UserError(f'the toy fails at {mode}')
        out = self.line(torch.stack(list(inputs)))
        return dict(loss=out.square().mean()) if mode == 'loss' else [dict(value=float(value)) for value in out]


@DATASETS.register_module()
class ToyData(Dataset):
    """Some points."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=torch.full((3,), float(index)))


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """The mean."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [sample['value'] for sample in data_samples]

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(mean=sum(results) / len(results))
