# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Results and models that no network made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmlightvit.inference.model import Model, Raw
from mmlightvit.inference.preprocess import Prepared
from mmlightvit.model_folder.info import InputSpec, ModelInfo
from mmlightvit.pictures.masks import Masks
from mmlightvit.pictures.result import Result

CLASSES = ('cat', 'dog', 'guinea pig')


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)


def info(task: str, **changes) -> ModelInfo:
    fields = dict(
        task=task,
        name='pets',
        classes=CLASSES,
        scope='mmdet',
        model={'type': 'MaskRCNN'},
        input=InputSpec((0.0,) * 3, (1.0,) * 3, resize=dict(short=120, long=200), pad_multiple=32),
    )
    return ModelInfo(**{**fields, **changes})


def objects() -> dict:
    masks = np.zeros((3, 60, 80), bool)
    masks[0, 10:30, 10:40] = True
    masks[1, 5:15, 50:70] = True
    masks[1, 8:11, 55:60] = False
    masks[2, 40:50, 5:15] = masks[2, 52:58, 5:15] = True
    return dict(
        boxes=np.array([[10, 10, 40, 30], [50, 5, 70, 15], [5, 40, 15, 58]], np.float32),
        scores=np.array([0.9, 0.55, 0.35], np.float32),
        labels=np.array([0, 2, 0]),
        masks=Masks.from_dense(masks),
    )


def result(task: str = 'instance', **changes) -> Result:
    fields = dict(task=task, classes=CLASSES, height=60, width=80, path='pets/a.jpg', image=picture())
    if task in ('instance', 'detection'):
        fields.update(objects())
        if task == 'detection':
            del fields['masks']
    elif task == 'classification':
        fields['probs'] = np.array([0.2, 0.7, 0.1], np.float32)
    else:
        label_map = np.zeros((60, 80), np.uint8)
        label_map[:, 60:] = 2
        fields['label_map'] = label_map
    return Result(**{**fields, **changes})


class Fake(Model):
    """A model that finds the same everywhere, and remembers what it was given."""

    def __init__(self, task: str = 'instance', **changes) -> None:
        super().__init__(info(task, **changes))
        self.batches: list[list[Prepared]] = []

    def run(self, pictures: Sequence[Prepared]) -> list[Raw]:
        self.batches.append(list(pictures))
        out = []
        for prepared in pictures:
            height, width = prepared.original
            if self.task == 'classification':
                out.append(Raw(probs=np.array([0.2, 0.7, 0.1])))
            elif self.task == 'segmentation':
                out.append(Raw(label_map=np.arange(width)[None].repeat(height, 0) * 3 // width))
            else:
                masks = np.zeros((3, height, width), bool)
                masks[:, : height // 2 + 1, : width // 2 + 1] = True
                out.append(
                    Raw(
                        boxes=np.array([[0, 0, width / 2, height / 2]] * 2 + [[-3, -3, width + 9, height + 9]]),
                        scores=np.array([0.35, 0.25, 0.8]),
                        labels=np.array([1, 2, 0]),
                        masks=Masks.from_dense(masks) if self.task == 'instance' else None,
                    )
                )
        return out
