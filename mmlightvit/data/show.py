# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""`mmlightvit data show`: a sheet of pictures with their labels, as read or as the training pipeline gives them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmlightvit.data.folder import DatasetFolder
from mmlightvit.errors import UserError
from mmlightvit.pictures.drawing import sheet
from mmlightvit.pictures.masks import Masks, encode
from mmlightvit.pictures.objects import Picture, as_result
from mmlightvit.pictures.read import as_picture
from mmlightvit.pictures.result import Result
from mmlightvit.tasks import CLASSIFICATION, DETECTION, INSTANCE, SEGMENTATION

_COLUMNS = 6


def labelled_sheet(
    folder: DatasetFolder, out: Path, split: str, count: int, classes: Sequence[str] | None, seed: int
) -> None:
    """Draw pictures of a prepared folder with their labels.

    Raises:
        UserError: There is no such split or class, or no picture to show.
    """
    _known(classes, folder.classes)
    pictures = [picture for picture in folder.pictures(split) if not classes or _names(picture, folder) & set(classes)]
    _write(out, [_of_picture(picture, folder) for picture in _some(pictures, count, seed)])


def augmented_sheet(
    cfg: Any, out: Path, split: str, count: int, classes: Sequence[str] | None, seed: int, augmented: bool
) -> None:
    """Draw samples of a config's data set, after its pipeline or as read.

    Raises:
        UserError: The config has no such split, no such class, or no picture to show.
    """
    from mmengine.registry import DATASETS, init_default_scope

    from mmlightvit.data.data_root import leaf_datasets

    init_default_scope(cfg.default_scope)
    if cfg.get(f'{split}_dataloader') is None:
        raise UserError(f'{cfg.filename} has no {split}_dataloader')
    settings = cfg[f'{split}_dataloader'].dataset
    if not augmented:
        settings = next(leaf_datasets(cfg, split)).cfg
        kept = ('Load', 'Pack')
        settings['pipeline'] = [step for step in settings['pipeline'] if step['type'].split('.')[-1].startswith(kept)]
    np.random.seed(seed)  # the pipelines draw from NumPy's global generator
    dataset = DATASETS.build(settings)
    names = tuple(dataset.metainfo['classes'])
    _known(classes, names)
    labelled: list[Result] = []
    for place in _some(range(len(dataset)), len(dataset), seed):
        sample = dataset[place]
        result = _of_sample(sample['data_samples'], sample['inputs'], names)
        inside = result.names if result.label_map is None else [name for name, _, _ in result.shares()]
        if not classes or set(inside) & set(classes):
            labelled.append(result)
        if len(labelled) == count:
            break
    _write(out, labelled)


def _known(classes: Sequence[str] | None, names: Sequence[str]) -> None:
    unknown = [name for name in classes or () if name not in names]
    if unknown:
        raise UserError(f'--classes: there is no class {", ".join(unknown)}; there are {", ".join(names)}')


def _names(picture: Picture, folder: DatasetFolder) -> set[str]:
    from mmlightvit.data.split import classes_of

    return classes_of(picture, folder.classes)


def _some(items: Sequence, count: int, seed: int) -> list:
    chosen = np.random.default_rng(seed).permutation(len(items))[:count]
    return [items[place] for place in chosen]


def _write(out: Path, labelled: Sequence[Result]) -> None:
    if not labelled:
        raise UserError('there is no picture to show')
    out.parent.mkdir(parents=True, exist_ok=True)
    drawn = [(result.draw(legible=True), Path(result.path or '').name) for result in labelled]
    Image.fromarray(sheet(drawn, _COLUMNS)).save(out)


def _of_picture(picture: Picture, folder: DatasetFolder) -> Result:
    pixels = as_picture(picture.path).pixels
    if picture.size and picture.size != pixels.shape[:2]:  # annotated as stored, so shown as stored
        with Image.open(picture.path) as image:
            pixels = np.asarray(image.convert('RGB'))
    return as_result(picture, folder.classes, folder.task, pixels)


def _of_sample(sample: Any, inputs: Any, classes: tuple[str, ...]) -> Result:
    """The labels of a toolbox's packed sample."""
    pixels = inputs.numpy().transpose(1, 2, 0)[..., ::-1]  # BGR, as mmcv reads
    height, width = pixels.shape[:2]
    labelled: dict[str, Any] = {}
    if 'gt_instances' in sample:
        task, instances = DETECTION, sample.gt_instances
        labelled['boxes'] = getattr(instances.bboxes, 'tensor', instances.bboxes).numpy()
        labelled['labels'] = instances.labels.numpy()
        if 'masks' in instances:
            task = INSTANCE
            labelled['masks'] = Masks([encode(mask != 0) for mask in instances.masks.to_ndarray()], height, width)
    elif 'gt_sem_seg' in sample:
        task, labelled['label_map'] = SEGMENTATION, sample.gt_sem_seg.data[0].numpy()
    else:
        task, labelled['labels'] = CLASSIFICATION, sample.gt_label.numpy()
    image = np.ascontiguousarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return Result(task, classes, height, width, path=sample.get('img_path'), image=image, **labelled)
