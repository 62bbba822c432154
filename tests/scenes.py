# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Labelled pictures of boxes, and detections with faults of a known kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 120, 160
Results = list[dict]


def truth(pictures: int = 40, classes: int = 3, objects: int = 4, crowd: float = 0.0, seed: int = 0) -> dict:
    """A COCO file: boxes on a grid, so that none lies on another, with polygons; crowds as run lengths."""
    rng = np.random.default_rng(seed)
    images = [dict(id=n + 7, file_name=f'{n:04}.png', height=HEIGHT, width=WIDTH) for n in range(pictures)]
    categories = [dict(id=10 * n + 3, name=f'class {n}') for n in range(classes)]
    annotations: list[dict] = []
    for image in images:
        for cell in rng.choice(12, min(objects, 12), replace=False):
            w, h = rng.uniform(16, 34, 2).round(1)
            x, y = 40 * (cell % 4) + rng.uniform(0, 38 - w), 40 * (cell // 4) + rng.uniform(0, 38 - h)
            x, y, w, h = (round(float(v), 1) for v in (x, y, w, h))
            item = dict(id=len(annotations) + 1, image_id=image['id'], bbox=[x, y, w, h], area=w * h)
            item['category_id'] = categories[int(rng.integers(classes))]['id']
            item['iscrowd'] = int(rng.random() < crowd)
            item['segmentation'] = run_lengths([x, y, w, h]) if item['iscrowd'] else [polygon([x, y, w, h])]
            annotations.append(item)
    return dict(images=images, categories=categories, annotations=annotations)


def polygon(box: list[float]) -> list[float]:
    """A box as a polygon."""
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def run_lengths(box: list[float]) -> dict:
    """The pixels of a box as plain run lengths, down the columns."""
    x, y, w, h = (round(v) for v in box)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + h, x : x + w] = True
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    return dict(size=[HEIGHT, WIDTH], counts=np.diff([0, *edges, flat.size]).tolist())


def perfect(labels: dict, seed: int = 1) -> Results:
    """Every object, found exactly."""
    rng = np.random.default_rng(seed)
    return [
        dict(image_id=a['image_id'], category_id=a['category_id'], bbox=a['bbox'], score=float(score))
        for a, score in zip(labels['annotations'], rng.uniform(0.6, 1, len(labels['annotations'])))
        if not a['iscrowd']
    ]


def noisy(labels: dict, seed: int = 2, masks: bool = False) -> Results:
    """A detector as they are: objects missed, moved and mixed up, some found twice, and things that are not there."""
    rng = np.random.default_rng(seed)
    ids = [category['id'] for category in labels['categories']]
    out = []
    for item in labels['annotations']:
        if rng.random() < 0.15:
            continue
        x, y, w, h = item['bbox']
        category = item['category_id'] if rng.random() > 0.1 else int(rng.choice(ids))
        for _ in range(1 + (rng.random() < 0.15)):
            moved = [
                x + rng.normal(0, 2),
                y + rng.normal(0, 2),
                w * rng.uniform(0.85, 1.15),
                h * rng.uniform(0.85, 1.15),
            ]
            out.append(dict(image_id=item['image_id'], category_id=category, bbox=moved, score=rng.beta(4, 2)))
    for image in labels['images']:
        for _ in range(rng.poisson(2)):
            w, h = rng.uniform(10, 40, 2)
            box = [rng.uniform(0, WIDTH - w), rng.uniform(0, HEIGHT - h), w, h]
            out.append(dict(image_id=image['id'], category_id=int(rng.choice(ids)), bbox=box, score=rng.beta(2, 4)))
    for item in out:
        # Few digits, so that scores tie.
        item.update(score=round(float(item['score']), 2), bbox=[float(max(v, 0)) for v in item['bbox']])
        if masks:
            item['segmentation'] = run_lengths(item['bbox'])
    return out


# -- faults -----------------------------------------------------------------------------------------------------------
def swapped(results: Results, one: int, other: int) -> Results:
    """Two classes taken for each other."""
    return [r | dict(category_id={one: other, other: one}.get(r['category_id'], r['category_id'])) for r in results]


def shifted(results: Results, x: float, y: float) -> Results:
    """Boxes moved by shares of their size."""
    return [
        r | dict(bbox=[r['bbox'][0] + x * r['bbox'][2], r['bbox'][1] + y * r['bbox'][3], *r['bbox'][2:]])
        for r in results
    ]


def doubled(results: Results) -> Results:
    """Every object found twice."""
    return results + [r | dict(score=r['score'] * 0.9) for r in results]


def every_tenth_missing(labels: dict) -> dict:
    """Labels that somebody forgot."""
    return labels | dict(annotations=[a for n, a in enumerate(labels['annotations']) if n % 10])


def draw_pictures(labels: dict, folder: Path, seed: int = 3) -> Path:
    """The pictures of a COCO file: grey noise with a bright box for each object."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for image in labels['images']:
        pixels = rng.integers(60, 90, (image['height'], image['width'], 3), np.uint8)
        for item in labels['annotations']:
            if item['image_id'] == image['id']:
                x, y, w, h = (round(v) for v in item['bbox'])
                pixels[y : y + h, x : x + w] = 80 + 40 * (item['category_id'] % 4)
        Image.fromarray(pixels).save(folder / image['file_name'])
    return folder
