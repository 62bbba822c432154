# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A result in the forms that other tools read: pure functions behind the methods of ``Result``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.errors import UserError

if TYPE_CHECKING:
    from mmlightvit.pictures.result import Result

#: Of predictions.json.
FORMAT = 'mmlightvit-predictions/1'
_RANKS = 5


def to_dict(result: Result, exact: bool = False) -> dict[str, Any]:
    """Plain data; boxes and scores are rounded for reading unless they are to be ``exact``."""

    def shown(value: float, digits: int) -> float:
        return float(value) if exact else round(float(value), digits)

    content: dict[str, Any] = {
        'path': result.path,
        'frame': result.frame,
        'width': result.width,
        'height': result.height,
        'task': result.task,
    }
    if result.probs is not None:
        content['probs'] = [
            {'class_id': place, 'class': name, 'score': shown(score, 5)} for place, name, score in result.top(_RANKS)
        ]
    elif result.label_map is not None:
        content['label_map'] = {'share': {name: shown(share, 5) for name, _, share in shares(result)}}
    else:
        codes = result.masks.rle() if result.masks is not None else None
        content['objects'] = [
            {
                'class_id': label,
                'class': result.classes[label],
                'score': shown(score, 5),
                'box': [shown(value, 2) for value in box],
                **({'mask': codes[index]} if codes is not None else {}),
            }
            for index, (label, score, box) in enumerate(objects(result))
        ]
    return content


def objects(result: Result) -> list[tuple[int, float, NDArray[np.float32]]]:
    """(class, score, box) of each object.

    Raises:
        UserError: The task has none.
    """
    if result.boxes is None or result.labels is None or result.scores is None:
        raise UserError(f'a result of {result.task} has no objects')
    return list(zip(result.labels.tolist(), result.scores.tolist(), result.boxes))


def shares(result: Result) -> list[tuple[str, int, float]]:
    """(class, pixels, share) of a label map, largest first, those that occur."""
    assert result.label_map is not None
    counts = np.bincount(result.label_map.ravel(), minlength=len(result.classes))
    order = np.argsort(-counts, kind='stable')
    return [(result.classes[i], int(counts[i]), float(counts[i] / counts.sum())) for i in order if counts[i]]


def to_coco(result: Result, image_id: int, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
    codes = result.masks.rle() if result.masks is not None else None
    return [
        {
            'image_id': image_id,
            'category_id': label + 1 if category_ids is None else category_ids[label],
            'bbox': _xywh(box),
            'score': round(score, 5),
            **({'segmentation': codes[index]} if codes is not None else {}),
        }
        for index, (label, score, box) in enumerate(objects(result))
    ]


def to_coco_annotations(result: Result, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """Annotations as of a data set: with area, polygons, and codes where a mask has holes."""
    out: list[dict[str, Any]] = []
    codes = result.masks.rle() if result.masks is not None else None
    areas = result.masks.areas().tolist() if result.masks is not None else None
    for index, (label, score, box) in enumerate(objects(result)):
        bbox = _xywh(box)
        entry = {
            'id': first_id + index,
            'image_id': image_id,
            'category_id': label + 1,
            'bbox': bbox,
            'area': round(bbox[2] * bbox[3], 2),
            'iscrowd': 0,
            'score': round(score, 5),
        }
        if result.masks is not None and codes is not None and areas is not None:
            parts, holes = result.masks.outlines(index)
            # A code where polygons cannot say it: holes, or nothing at all.
            polygons = [part.ravel().tolist() for part in parts]
            entry.update(area=areas[index], segmentation=codes[index] if holes or not parts else polygons)
        out.append(entry)
    return out


def _xywh(box: NDArray[np.float32]) -> list[float]:
    x1, y1, x2, y2 = (round(float(value), 2) for value in box)
    return [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]


def to_yolo(result: Result, scores: bool = False) -> str:
    polygons = result.masks.polygons() if result.masks is not None else None
    lines = []
    for index, (label, score, (x1, y1, x2, y2)) in enumerate(objects(result)):
        if polygons is None:
            points = np.array([[(x1 + x2) / 2, (y1 + y2) / 2], [x2 - x1, y2 - y1]])
        elif len(polygons[index]):
            points = polygons[index]
        else:  # an empty mask; a line of a segmentation file needs an outline
            points = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
        numbers = (points / [result.width, result.height]).ravel().tolist() + ([score] if scores else [])
        lines.append(' '.join([str(label), *(f'{number:.6f}' for number in numbers)]) + '\n')
    return ''.join(lines)


def to_supervision(result: Result) -> Any:
    try:
        import supervision
    except ImportError:
        raise UserError('to_supervision needs supervision: pip install supervision') from None
    objects(result)
    boxes: Any = result.boxes
    return supervision.Detections(
        xyxy=boxes,
        mask=result.masks.dense() if result.masks is not None else None,
        confidence=result.scores,
        class_id=result.labels,
        data={'class_name': np.array(result.names, dtype=str)},
    )


def to_hf(result: Result) -> list[dict[str, Any]]:
    if result.probs is not None:
        return [{'score': score, 'label': name} for _, name, score in result.top(_RANKS)]
    return [
        {
            'score': score,
            'label': result.classes[label],
            'box': dict(zip(('xmin', 'ymin', 'xmax', 'ymax'), (int(value) for value in box))),
        }
        for label, score, box in objects(result)
    ]


def crops(result: Result, pad: float = 0.0) -> list[NDArray[np.uint8]]:
    if result.image is None:
        raise UserError('there is no picture to cut from: predict with keep_image=True')
    out = []
    for _, _, (x1, y1, x2, y2) in objects(result):
        across, down = pad * (x2 - x1), pad * (y2 - y1)
        left, top = max(0, int(np.floor(x1 - across))), max(0, int(np.floor(y1 - down)))
        right, bottom = min(result.width, int(np.ceil(x2 + across))), min(result.height, int(np.ceil(y2 + down)))
        # A pixel at least, so that every crop is a picture.
        left, top = min(left, result.width - 1), min(top, result.height - 1)
        out.append(result.image[top : max(bottom, top + 1), left : max(right, left + 1)])
    return out


def summary(result: Result) -> str:
    if result.probs is not None:
        return ', '.join(f'{name} {score:.2f}' for _, name, score in result.top(1))
    if result.label_map is not None:
        return ', '.join(f'{name} {share:.0%}' for name, _, share in shares(result)[:5])
    counts = Counter(result.names)
    return (
        ', '.join(f'{count} {name if count == 1 else _plural(name)}' for name, count in counts.most_common())
        or 'nothing'
    )


def _plural(name: str) -> str:
    return name + ('es' if name.endswith(('s', 'x', 'z', 'ch', 'sh')) else 's')


def save(result: Result, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.json':
        text = json.dumps(to_dict(result), indent=1, ensure_ascii=False) + '\n'
        atomic_write(path, lambda file: file.write(text.encode()))
    else:
        write_picture(path, result.draw())
    return path


def write_picture(path: Path, pixels: NDArray | Image.Image, quality: int = 95) -> None:
    """Write a picture in full or not at all; the ending says the format.

    Raises:
        UserError: Pillow knows no such ending, or the file cannot be written.
    """
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    Image.init()
    kind = Image.EXTENSION.get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise UserError(f'{path}: expected an ending such as .jpg, .png or .json')
    try:
        atomic_write(path, lambda file: image.save(file, kind, quality=quality))
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror or error}') from None
