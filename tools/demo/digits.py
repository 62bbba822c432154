# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Handwritten digits on textured canvases: real strokes, exact labels, nothing to download.

scikit-learn carries 1797 scans of handwritten digits, 8x8 pixels each. A scene pastes some of them, at random sizes,
positions and colours, on a procedural texture; later digits hide earlier ones, and masks and boxes are of what stays
visible. The same scenes are written as a COCO data set, as image folders, or as images with dense labels.

Reading order: settings -> scans -> texture -> glyph -> scene -> the three layouts -> ``prepare``.

Shape legend: N digits of a scene, S side of the square canvas in pixels.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from mmlightvit.errors import UserError

CLASSES = tuple(str(digit) for digit in range(10))
#: Label 0 of the dense labels is the canvas, and it is a class: ``reduce_zero_label`` has to be False.
SEGMENTATION_CLASSES = ('canvas', *CLASSES)

_STAMP = 'digits.json'
#: Rises when the same settings give other pixels, so that data written by an older version are written anew.
_VERSION = 2
_SPLITS = ('train', 'val')
_PLACEMENT_TRIES = 20
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class DigitsSettings:
    """What is drawn.

    Args:
        image_size: Side S of the canvas in pixels, >= 16.
        num_train: Training images, >= 1.
        num_val: Validation images, >= 1.
        seed: Seed of everything random, >= 0.
        min_digits: Fewest digits on a canvas, >= 1.
        max_digits: Most digits on a canvas. Digits for which no place is found are left away, so a crowded canvas can
            have fewer than ``min_digits``, but never none.
        min_height: Height of the smallest digit in pixels, >= 8.
        max_height: Height of the largest digit in pixels, at most the canvas.
        stroke_level: Ink of the enlarged scan at which a stroke begins, in [0.1, 0.9]; lower is bolder.
        min_visible: Share of its strokes that every digit keeps visible, in (0, 1].
        val_share: Share of the scans that only val draws from, in (0, 1).
        variation: How much scans are varied in train, in [0, 1]; at 1 they are turned by up to 15 degrees, slanted by
            up to a quarter, and ``stroke_level`` changes by up to 0.15. Val has them as they are.
        dark_ink: Whether strokes are on the whole darker than the canvas, as on paper; otherwise of any colour.

    Raises:
        UserError: A value is out of its range.
    """

    image_size: int = 128
    num_train: int = 1000
    num_val: int = 200
    seed: int = 0
    min_digits: int = 1
    max_digits: int = 3
    min_height: int = 60
    max_height: int = 112
    stroke_level: float = 0.25
    min_visible: float = 0.95
    val_share: float = 0.2
    variation: float = 0.0
    dark_ink: bool = False

    def __post_init__(self) -> None:
        checks = {
            'image_size >= 16': self.image_size >= 16,
            'num_train >= 1': self.num_train >= 1,
            'num_val >= 1': self.num_val >= 1,
            'seed >= 0': self.seed >= 0,
            '1 <= min_digits <= max_digits': 1 <= self.min_digits <= self.max_digits,
            '8 <= min_height <= max_height <= image_size': 8 <= self.min_height <= self.max_height <= self.image_size,
            '0.1 <= stroke_level <= 0.9': 0.1 <= self.stroke_level <= 0.9,
            '0 < min_visible <= 1': 0 < self.min_visible <= 1,
            '0 < val_share < 1': 0 < self.val_share < 1,
            '0 <= variation <= 1': 0 <= self.variation <= 1,
        }
        broken = [rule for rule, holds in checks.items() if not holds]
        if broken:
            raise UserError(f'digits settings: expected {"; ".join(broken)}, got {self}')


#: What each demo trains on. Smaller canvases teach what the digits are with fewer pixels; the detector alone looks for
#: them on larger ones.
TASK_SETTINGS: Mapping[str, DigitsSettings] = MappingProxyType(
    {
        'detection': DigitsSettings(num_train=1800, dark_ink=True),
        'segmentation': DigitsSettings(
            image_size=64,
            num_train=6000,
            max_digits=2,
            min_height=36,
            max_height=56,
            stroke_level=0.35,
            variation=1.0,
            dark_ink=True,
        ),
        'classification': DigitsSettings(
            image_size=32,
            num_train=12000,
            num_val=500,
            max_digits=1,
            min_height=28,
            max_height=30,
            stroke_level=0.45,
            variation=1.0,
            dark_ink=True,
        ),
    }
)


@dataclass(frozen=True)
class Scans:
    """Scans of one split: ``images`` (number, 8, 8) in [0, 1] and ``labels`` (number,) in 0..9."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    @classmethod
    def load(cls, split: str, seed: int = 0, val_share: float = 0.2) -> Scans:
        """The scans that ``split`` may use; train and val share none, and both hold every class in like shares.

        Args:
            split: ``'train'`` or ``'val'``.
            seed: Seed of the partition.
            val_share: Share of the scans that goes to val, in (0, 1).

        Raises:
            ValueError: Another split.

        Source: scikit-learn's ``load_digits`` (the test part of UCI's Optical Recognition of Handwritten Digits).
        """
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        if split not in _SPLITS:
            raise ValueError(f'split: expected one of {_SPLITS}, got {split!r}')
        digits = load_digits()
        indices = train_test_split(
            np.arange(len(digits.target)), test_size=val_share, random_state=seed, stratify=digits.target
        )[_SPLITS.index(split)]
        return cls((digits.images[indices] / 16).astype(np.float32), digits.target[indices].astype(np.int64))


def texture(rng: Generator, size: int) -> NDArray[np.float32]:
    """A canvas: two related colours, blended by cloudy noise with slanted stripes in it.

    Shape: -> (S, S, 3) in [0, 1].
    """
    base = rng.uniform(0.1, 0.9, size=3)
    other = np.clip(base + rng.uniform(-0.25, 0.25, size=3), 0, 1)
    angle, period, phase = rng.uniform(0, np.pi), rng.uniform(4, 24), rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:size, :size]
    stripes = np.sin(2 * np.pi * (rows * np.sin(angle) + columns * np.cos(angle)) / period + phase)
    blend = 0.5 + 0.35 * _cloud(rng, size) + rng.uniform(0, 0.25) * stripes
    blend = np.clip(blend, 0, 1)[..., None]
    grain = rng.normal(0, 0.02, size=(size, size, 1))
    return np.clip(base * (1 - blend) + other * blend + grain, 0, 1).astype(np.float32)


def _cloud(rng: Generator, size: int) -> NDArray[np.float64]:
    """Smooth noise of three scales, (S, S), mostly in [-1, 1]."""
    total = np.zeros((size, size))
    for cells, weight in ((3, 1.0), (8, 0.5), (20, 0.3)):
        noise = Image.fromarray(rng.uniform(-1, 1, size=(cells, cells)).astype(np.float32))
        total += weight * np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC))
    return total / 1.2


def glyph(
    scan: NDArray[np.float32], height: int, level: float = 0.25, turn: float = 0.0, slant: float = 0.0
) -> NDArray[np.float32]:
    """Opacity of a scan's strokes, enlarged to ``height`` pixels; the scan's proportions are kept.

    Args:
        scan: (8, 8) in [0, 1].
        height: Height in pixels, >= 1, of the rows with ink; strokes end a little inside or outside of them.
        level: Enlarged ink at which a stroke begins, in [0.1, 0.9]. A ramp of 0.2 around it gives a soft edge.
        turn: Angle by which the enlarged scan is turned, in radians, small.
        slant: Shift to the side per row.

    Shape: -> (about height, width) in [0, 1]; every border row and column has a visible pixel.
    """
    rows, columns = np.flatnonzero(scan.max(axis=1) > 0), np.flatnonzero(scan.max(axis=0) > 0)
    strokes = np.pad(scan[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
    scale = height / (strokes.shape[0] - 2)
    shape = [max(1, round(side * scale)) for side in strokes.shape]
    picture = Image.fromarray(strokes).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    if turn or slant:
        picture = _turned(picture, turn, slant)
    large = np.asarray(picture)
    alpha = np.clip((large - level) / 0.2 + 0.5, 0, 1).astype(np.float32)
    solid = alpha >= 0.5
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _turned(picture: Image.Image, turn: float, slant: float) -> Image.Image:
    """The picture turned and slanted about its middle; what leaves its frame is lost."""
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) @ np.array([[1, slant], [0, 1]])
    middle = np.array(picture.size) / 2
    shift = middle - matrix @ middle
    rows = (*matrix[0], shift[0], *matrix[1], shift[1])
    return picture.transform(picture.size, Image.Transform.AFFINE, rows, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Scene:
    """A drawn canvas.

    Attributes:
        image: (S, S, 3) uint8, RGB.
        labels: (N,) classes in 0..9, in the order in which the digits were pasted.
        masks: (N, S, S) booleans, the visible strokes of each digit; no two overlap and none is empty.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]

    @property
    def boxes(self) -> NDArray[np.int64]:
        """(N, 4) tight boxes around the masks: left, top, width, height in pixels."""
        boxes = []
        for mask in self.masks:
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            boxes.append((columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1))
        return np.array(boxes, dtype=np.int64).reshape(-1, 4)

    @property
    def dense_labels(self) -> NDArray[np.uint8]:
        """(S, S) indices into :data:`SEGMENTATION_CLASSES`: 0 canvas, digit + 1 elsewhere."""
        dense = np.zeros(self.masks.shape[1:], dtype=np.uint8)
        for label, mask in zip(self.labels, self.masks):
            dense[mask] = label + 1
        return dense


def draw_scene(rng: Generator, scans: Scans, settings: DigitsSettings, label: int | None = None) -> Scene:
    """Paste random scans on a texture.

    A digit is pasted where all digits, hidden parts taken off, keep ``min_visible`` of their strokes; if no such
    place is found in twenty tries, it is left away. So nothing that can be seen is without a label.

    Args:
        rng: Source of randomness.
        scans: What to paste.
        settings: Sizes and numbers.
        label: Class of all digits, in 0..9; None draws from all scans.
    """
    size = settings.image_size
    canvas = texture(rng, size)
    varied = _variation(rng, settings)
    pool = np.arange(len(scans.labels)) if label is None else np.flatnonzero(scans.labels == label)
    labels: list[int] = []
    masks: list[NDArray[np.bool_]] = []
    areas: list[int] = []
    for _ in range(rng.integers(settings.min_digits, settings.max_digits + 1)):
        index = rng.choice(pool)
        for _ in range(_PLACEMENT_TRIES):
            pixels = int(rng.integers(settings.min_height, settings.max_height + 1))
            alpha = glyph(scans.images[index], pixels, **varied)
            height, width = alpha.shape
            if height > size or width > size:
                continue
            top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
            region = (slice(top, top + height), slice(left, left + width))
            strokes = np.zeros((size, size), dtype=bool)
            strokes[region] = alpha >= 0.5
            if all((mask & ~strokes).sum() >= settings.min_visible * area for mask, area in zip(masks, areas)):
                ink = _ink(rng, canvas[region])
                canvas[region] += alpha[..., None] * (ink - canvas[region])
                masks = [mask & ~strokes for mask in masks] + [strokes]
                areas.append(int(strokes.sum()))
                labels.append(int(scans.labels[index]))
                break
    if not labels:
        return draw_scene(rng, scans, settings, label)
    ink_mask = np.any(masks, axis=0)
    if settings.dark_ink and canvas[ink_mask].mean() > canvas[~ink_mask].mean():
        canvas = 1 - canvas
    image = np.round(canvas * 255).astype(np.uint8)
    return Scene(image, np.array(labels, dtype=np.int64), np.stack(masks))


def _variation(rng: Generator, settings: DigitsSettings) -> dict[str, float]:
    """Arguments of :func:`glyph` for one canvas."""
    if not settings.variation:
        return dict(level=settings.stroke_level)
    turn, slant, bolder = settings.variation * rng.uniform(-1, 1, size=3) * (np.deg2rad(15), 0.25, 0.15)
    return dict(level=float(np.clip(settings.stroke_level + bolder, 0.1, 0.9)), turn=float(turn), slant=float(slant))


def _ink(rng: Generator, under: NDArray[np.float32]) -> NDArray[np.float64]:
    """A random colour that stands out against the mean of what is under it."""
    mean = under.mean(axis=(0, 1))
    while True:
        ink = rng.uniform(0, 1, size=3)
        if np.abs(ink - mean).max() >= 0.4:
            return ink


def _scenes(settings: DigitsSettings, split: str, balanced: bool = False) -> Iterator[tuple[str, Scene]]:
    """Name and scene of each image of a split; each has its own random stream, so no image depends on another."""
    scans = Scans.load(split, settings.seed, settings.val_share)
    count = settings.num_train if split == 'train' else settings.num_val
    if split == 'val':
        settings = replace(settings, variation=0.0)
    for index in range(count):
        rng = np.random.default_rng([settings.seed, _SPLITS.index(split), index])
        yield f'{index:06d}', draw_scene(rng, scans, settings, index % len(CLASSES) if balanced else None)


def _save_image(image: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=_JPEG_QUALITY)


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """COCO's uncompressed run-length code: run lengths in column order, the first of zeros.

    Shape: (height, width) -> ``{'size': [height, width], 'counts': [...]}``.
    """
    flat = mask.T.ravel().astype(np.int8)
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, len(flat)]).tolist()
    return {'size': list(mask.shape), 'counts': [0, *counts] if flat[0] else counts}


def write_detection(root: Path, settings: DigitsSettings) -> None:
    """A COCO data set: ``train/*.jpg``, ``val/*.jpg``, ``annotations/{train,val}.json``; category ids are 1..10."""
    (root / 'annotations').mkdir()
    for split in _SPLITS:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for name, scene in _scenes(settings, split):
            _save_image(scene.image, root / split / f'{name}.jpg')
            image_id = len(images) + 1
            images.append(
                dict(id=image_id, file_name=f'{name}.jpg', height=scene.image.shape[0], width=scene.image.shape[1])
            )
            for label, mask, box in zip(scene.labels, scene.masks, scene.boxes):
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=image_id,
                        category_id=int(label) + 1,
                        bbox=box.tolist(),
                        area=int(mask.sum()),
                        segmentation=run_lengths(mask),
                        iscrowd=0,
                    )
                )
        categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))


def write_classification(root: Path, settings: DigitsSettings) -> None:
    """Image folders: ``train/<class>/*.jpg`` and ``val/<class>/*.jpg``, as many images of each class (to one)."""
    for split in _SPLITS:
        for name, scene in _scenes(settings, split, balanced=True):
            _save_image(scene.image, root / split / CLASSES[scene.labels[0]] / f'{name}.jpg')


def write_segmentation(root: Path, settings: DigitsSettings) -> None:
    """ADE's layout: ``images/{training,validation}/*.jpg`` and ``annotations/{training,validation}/*.png``.

    A label image holds indices into :data:`SEGMENTATION_CLASSES`, the canvas included (``reduce_zero_label=False``).
    """
    for split, folder in zip(_SPLITS, ('training', 'validation')):
        for name, scene in _scenes(settings, split):
            _save_image(scene.image, root / 'images' / folder / f'{name}.jpg')
            _save_image(scene.dense_labels, root / 'annotations' / folder / f'{name}.png')


_WRITERS: Mapping[str, Callable[[Path, DigitsSettings], None]] = MappingProxyType(
    {
        'detection': write_detection,
        'classification': write_classification,
        'segmentation': write_segmentation,
    }
)


def prepare(task: str, root: Path, settings: DigitsSettings | None = None) -> bool:
    """Write a task's data set, unless the same one is there.

    The set is written beside ``root`` and moved there when it is complete; a stamp in it says what it was drawn from.

    Args:
        task: ``'detection'``, ``'classification'`` or ``'segmentation'``.
        root: Folder of the data set; created, or replaced if it holds digits drawn with other settings.
        settings: What to draw; None: :data:`TASK_SETTINGS` of the task.

    Returns:
        Whether anything was written.

    Raises:
        UserError: Unknown task; ``root`` holds something else, which is left alone; or a task of one digit per image
            was given several.
    """
    if task not in _WRITERS:
        raise UserError(f'task: expected one of {sorted(_WRITERS)}, got {task!r}')
    settings = settings or TASK_SETTINGS[task]
    if task == 'classification' and settings.max_digits != 1:
        raise UserError(f'max_digits: expected 1 for classification, one digit per image, got {settings.max_digits}')
    stamp = dict(task=task, version=_VERSION, **asdict(settings))
    if root.exists():
        found = _read_stamp(root)
        if found == stamp:
            return False
        if found is None and (not root.is_dir() or any(root.iterdir())):
            raise UserError(f'{root} exists and holds no digits of this program; move it away or name another folder')
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{root.name}-', dir=root.parent) as folder:
        fresh = Path(folder) / 'fresh'
        fresh.mkdir()
        _WRITERS[task](fresh, settings)
        (fresh / _STAMP).write_text(json.dumps(stamp, indent=2) + '\n')
        if root.exists():
            root.rename(Path(folder) / 'old')
        fresh.rename(root)
    return True


def _read_stamp(root: Path) -> dict[str, Any] | None:
    """What the digits under ``root`` were drawn from; None if there is no (readable) stamp."""
    path = root / _STAMP
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError:
        return None


def settings_for(task: str, **changes: Any) -> DigitsSettings:
    """The task's settings with some changed; changes that are None keep the default."""
    if task not in TASK_SETTINGS:
        raise UserError(f'task: expected one of {sorted(TASK_SETTINGS)}, got {task!r}')
    return replace(TASK_SETTINGS[task], **{key: value for key, value in changes.items() if value is not None})
