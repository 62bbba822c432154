# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""`mmlightvit data show`: a sheet of pictures with their labels, as read or as the training pipeline gives them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmlightvit.data.folder import DatasetFolder
from mmlightvit.data.tidy import draw_polygons, mask_pixels
from mmlightvit.errors import UserError
from mmlightvit.pictures.drawing import Canvas, colour_of, draw, enlargement, sheet
from mmlightvit.pictures.masks import Masks, encode
from mmlightvit.pictures.objects import Picture
from mmlightvit.pictures.read import as_picture
from mmlightvit.pictures.result import Result

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
    _write(out, [(_of_picture(picture, folder), picture.path.name) for picture in _some(pictures, count, seed)])


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
    drawn = []
    for place in _some(range(len(dataset)), len(dataset), seed):
        sample = dataset[place]
        result, boxed = _of_sample(sample['data_samples'], sample['inputs'], names)
        if not classes or {names[label] for label in boxed} & set(classes):
            drawn.append((_draw(result, boxed), Path(result.path or '').name))
        if len(drawn) == count:
            break
    _write(out, drawn)


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


def _write(out: Path, drawn: list) -> None:
    if not drawn:
        raise UserError('there is no picture to show')
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet(drawn, _COLUMNS)).save(out)


def _of_picture(picture: Picture, folder: DatasetFolder) -> np.ndarray:
    pixels = as_picture(picture.path).pixels
    height, width = pixels.shape[:2]
    if picture.size and picture.size != (height, width):  # annotated as stored, so shown as stored
        with Image.open(picture.path) as image:
            pixels = np.asarray(image.convert('RGB'))
        height, width = picture.size
    codes = [
        encode(mask_pixels(item.mask) if item.mask else draw_polygons(item.polygons, height, width))
        for item in picture.objects
    ]
    boxed = [folder.classes.index(item.label) for item in picture.objects]
    if picture.label is not None:
        boxed = [folder.classes.index(picture.label)]
    return _draw(
        Result(
            folder.task,
            folder.classes,
            height,
            width,
            boxes=np.array([item.box for item in picture.objects], np.float32).reshape(-1, 4),
            labels=np.array(boxed, np.int64),
            masks=Masks(codes, height, width) if folder.task == 'instance' else None,
            label_map=np.asarray(Image.open(picture.label_map)) if picture.label_map else None,
            image=pixels,
        ),
        boxed,
    )


def _of_sample(sample: Any, inputs: Any, names: tuple[str, ...]) -> tuple[Result, list[int]]:
    """What a toolbox's packed sample holds, and the classes of its objects or of the picture."""
    pixels = inputs.numpy().transpose(1, 2, 0)[..., ::-1]  # BGR, as mmcv reads
    height, width = pixels.shape[:2]
    result: dict[str, Any] = {'boxes': np.zeros((0, 4), np.float32)}
    places: list[int] = []
    if 'gt_instances' in sample:
        found = sample.gt_instances
        boxes = getattr(found.bboxes, 'tensor', found.bboxes).numpy()
        places = found.labels.tolist()
        result['boxes'] = boxes
        if 'masks' in found:
            result['masks'] = Masks([encode(mask != 0) for mask in found.masks.to_ndarray()], height, width)
    elif 'gt_sem_seg' in sample:
        result['label_map'] = sample.gt_sem_seg.data[0].numpy().astype(np.uint8)
        places = [int(value) for value in np.unique(result['label_map']) if value < len(names)]
    elif 'gt_label' in sample:
        places = sample.gt_label.tolist()
    image = np.ascontiguousarray(np.clip(pixels, 0, 255).astype(np.uint8))
    path = sample.get('img_path')
    labels = np.array(places, np.int64)
    return Result('detection', names, height, width, path=path, labels=labels, image=image, **result), places


def _draw(result: Result, places: list[int]) -> np.ndarray:
    """The picture with masks or label map, boxes and names, but no scores."""
    scale = enlargement(result.height, result.width)
    if result.label_map is not None:
        return _draw_label_map(result, scale)
    canvas = Canvas(draw(result, scale))
    boxes = (result.boxes if result.boxes is not None else np.zeros((0, 4))) * scale
    for place, box in zip(places, boxes):
        canvas.box(tuple(box.tolist()), colour_of(place))
    for place, box in zip(places, boxes):
        canvas.box_label(result.classes[place], tuple(box.tolist()), colour_of(place))
    if not len(boxes):
        for place in places[:1]:
            canvas.corner_label(result.classes[place], colour_of(place))
    return canvas.pixels()


def _draw_label_map(result: Result, scale: int) -> np.ndarray:
    """Pixels that are ignored show the picture in black."""
    from dataclasses import replace

    assert result.label_map is not None
    ignored = result.label_map >= len(result.classes)
    pixels = draw(replace(result, label_map=np.where(ignored, 0, result.label_map)), scale)
    pixels = np.array(pixels)
    pixels[ignored.repeat(scale, 0).repeat(scale, 1)] = 0
    return pixels
