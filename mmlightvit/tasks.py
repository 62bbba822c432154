# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The tasks of a model, in one table: what each answers, which toolbox trains it, and how others call it.

Importing this module imports nothing heavy. A task's name is the key of the table, and is what files hold
(``model.json``, ``dataset.json``, ``predictions.json``); everything else about a task is looked up here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Task(NamedTuple):
    """A task.

    Attributes:
        toolbox: ``default_scope`` of its configs, a key of :data:`mmlightvit.toolboxes.TOOLBOXES`.
        kind: Its models in a word, as ``mmlightvit.checkpoint`` tells them apart.
        heads: Parts of its models that depend on the classes.
        metric: Its main metric: the part of a report's metrics, and the name in it.
        may_fall: How far that metric may fall from a model to its exported file, in the metric's own unit.
        metafile: Its name in ``model-index.yml``.
        hub_tag: Pipeline tag of the Hugging Face Hub.
        hub_metric: Name of the main metric there.
        has_objects: The answer is objects with boxes.
        has_masks: Each object has a mask.
        has_label_map: The answer is a class for each pixel.
    """

    toolbox: str
    kind: str
    heads: tuple[str, ...]
    metric: tuple[str, str]
    may_fall: float
    metafile: str
    hub_tag: str
    hub_metric: str
    has_objects: bool = False
    has_masks: bool = False
    has_label_map: bool = False


#: The parts of a data set: to learn from, to choose by, to measure on.
SPLITS = ('train', 'val', 'test')

CLASSIFICATION, DETECTION, INSTANCE, SEGMENTATION = 'classification', 'detection', 'instance', 'segmentation'

#: By name.
TASKS: Mapping[str, Task] = MappingProxyType(
    {
        CLASSIFICATION: Task(
            toolbox='mmpretrain',
            kind='classifier',
            heads=('head',),
            metric=('accuracy', 'top1'),
            may_fall=0.1,  # per cent
            metafile='Image Classification',
            hub_tag='image-classification',
            hub_metric='accuracy',
        ),
        DETECTION: Task(
            toolbox='mmdet',
            kind='detector',
            heads=('bbox_head', 'roi_head'),
            metric=('bbox', 'AP'),
            may_fall=0.001,
            metafile='Object Detection',
            hub_tag='object-detection',
            hub_metric='map',
            has_objects=True,
        ),
        INSTANCE: Task(
            toolbox='mmdet',
            kind='detector',
            heads=('bbox_head', 'roi_head'),
            metric=('segm', 'AP'),
            may_fall=0.001,
            metafile='Instance Segmentation',
            hub_tag='image-segmentation',
            hub_metric='map',
            has_objects=True,
            has_masks=True,
        ),
        SEGMENTATION: Task(
            toolbox='mmseg',
            kind='segmenter',
            heads=('decode_head', 'auxiliary_head'),
            metric=('pixels', 'mIoU'),
            may_fall=0.1,  # per cent
            metafile='Semantic Segmentation',
            hub_tag='image-segmentation',
            hub_metric='mean_iou',
            has_label_map=True,
        ),
    }
)
