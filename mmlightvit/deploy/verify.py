# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The proof that an exported file does what the model does.

An exporter throws the conditions of its trace away, so a wrong graph is right at the size of its example and wrong,
without a word, at others; and parity on noise says nothing about objects. So both models predict for pictures, whole,
at sizes that the graph was not traced at, and the answers are compared as a user sees them.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.deploy.formats import FORMATS
from mmlightvit.errors import UserError
from mmlightvit.inference.model import Model, Raw
from mmlightvit.inference.preprocess import Prepared, prepare
from mmlightvit.inference.preprocess import resize as resize_pixels
from mmlightvit.model_folder.info import InputSpec
from mmlightvit.pictures.masks import Masks
from mmlightvit.tasks import TASKS

#: Sizes that the example of a trace does not have: aligned, in one window, odd, one narrow, one large.
SIZES = ((224, 224), (256, 320), (33, 57), (97, 201), (160, 64), (480, 640))


@dataclass(frozen=True)
class Tolerance:
    """How much answers may differ.

    Attributes:
        logits: Logarithms of probabilities, absolute, and relative to them.
        score: Scores of objects.
        iou: Least overlap with the other's object of the same class, of boxes and masks.
        matched: Least share of objects that have such a partner. Objects of nearly equal score change places, and the
            last of a full list fall out.
        pixels: Least share of equal pixels of a label map.
    """

    logits: float = 1e-3
    score: float = 1e-3
    iou: float = 0.99
    matched: float = 0.97
    pixels: float = 0.999


EXACT = Tolerance()


def verify(
    model: Model,
    exported: Model,
    pictures: Sequence[NDArray[np.uint8]],
    sizes: Sequence[tuple[int, int]] = SIZES,
    tolerance: Tolerance = EXACT,
) -> dict[str, Any]:
    """Compare an exported model with the one it was made of.

    Args:
        model: The truth.
        exported: The file, opened.
        pictures: RGB (H, W, 3).
        sizes: Of further inputs of the network: pictures cut to these sizes, without resizing or padding.
        tolerance: Of the comparison.

    Returns:
        The certificate.

    Raises:
        UserError: An answer differs; the message says at which size or picture, and by how much.
    """
    table, objects = [], 0
    for place, size in enumerate(sizes):
        # One picture, then two at once, and so on.
        cuts = [resize_pixels(pictures[(place + i) % len(pictures)], *size) for i in range(1 + place % 2)]
        wants, gots = (each.run([_as_it_is(each, cut) for cut in cuts]) for each in (model, exported))
        where = f'at {size[0]}x{size[1]}'
        worst = max(compare(want, got, tolerance, where) for want, got in zip(wants, gots))
        objects += sum(map(_objects, wants))
        table.append({'size': list(size), 'pictures': len(cuts), 'max_error': float(f'{worst:.3g}')})
    outside = exported.input
    prepared = replace(model.input, resize=outside.resize, crop=outside.crop, pad_multiple=outside.pad_multiple)
    worst = 0.0
    for place, picture in enumerate(pictures):
        want, got = (each.run([prepare(picture, spec)])[0] for each, spec in ((model, prepared), (exported, outside)))
        worst = max(worst, compare(want, got, tolerance, f'picture {place + 1} of {len(pictures)}'))
        objects += _objects(want)
    certificate = {
        **_certificate(table),
        'pictures': len(pictures),
        'max_error_of_pictures': float(f'{worst:.3g}'),
        'tolerance': asdict(tolerance),
        'sha256_of_weights': model.info.weights_sha256,
    }
    return certificate | ({'objects': objects} if TASKS[model.task].has_objects else {})


def verify_maps(
    truth: Callable[..., Any],
    run: Callable[[Mapping[str, NDArray]], Mapping[str, NDArray]],
    sizes: Sequence[tuple[int, int]] = SIZES,
    scale: float = 1.0,
    tolerance: float = 1e-4,
) -> dict[str, Any]:
    """Compare tensors: those of a part of a model with those of its file, for noise of each size, alone and in pairs.

    Args:
        truth: The part, in torch.
        run: Of the opened file.
        sizes: Of the noise.
        scale: Its standard deviation.
        tolerance: Absolute, and relative to the largest value of a tensor.

    Returns:
        The certificate.

    Raises:
        UserError: A tensor differs; the message says at which size, and by how much.
    """
    import torch

    table = []
    for place, size in enumerate(sizes):
        image = np.random.default_rng(place).standard_normal((1 + place % 2, 3, *size), np.float32) * np.float32(scale)
        with torch.inference_mode():
            out = truth(torch.from_numpy(image))
        wants = [out] if isinstance(out, torch.Tensor) else out
        worst = 0.0
        for want, (name, got) in zip(wants, run({'image': image}).items(), strict=True):
            error = float(np.abs(want.numpy() - got).max()) if want.shape == got.shape else np.inf
            worst = max(worst, error)
            limit = tolerance * max(1.0, float(want.abs().max()))
            _require(error <= limit, f'at {size[0]}x{size[1]}', f'{name} differs by {error:.2g}')
        table.append({'size': list(size), 'max_error': float(f'{worst:.3g}')})
    return _certificate(table)


def _certificate(table: list[dict[str, Any]]) -> dict[str, Any]:
    versions = {each.package: _version(each.package) for each in FORMATS.values()}
    return {'verified': table, 'date': datetime.now(UTC).isoformat(timespec='seconds'), 'versions': versions}


def compare(want: Raw, got: Raw, tolerance: Tolerance, where: str) -> float:
    """The largest difference of two answers: of logarithms of probabilities, of scores, or the share of other pixels.

    Raises:
        UserError: It is larger than allowed.
    """
    if want.probs is not None:
        assert got.probs is not None
        logs = [np.log(np.maximum(probs.astype(np.float64), 1e-30)) for probs in (want.probs, got.probs)]
        error = float((np.abs(logs[0] - logs[1]) / np.maximum(1, np.abs(logs[0]))).max())
        _require(error <= tolerance.logits, where, f'the logarithms of probabilities differ by {error:.2g}')
        return error
    if want.label_map is not None:
        assert got.label_map is not None
        equal = float((want.label_map == got.label_map).mean())
        _require(equal >= tolerance.pixels, where, f'{1 - equal:.2%} of the pixels have another class')
        return 1 - equal
    return _compare_objects(want, got, tolerance, where)


def _objects(raw: Raw) -> int:
    return 0 if raw.boxes is None else len(raw.boxes)


def _compare_objects(want: Raw, got: Raw, tolerance: Tolerance, where: str) -> float:
    assert want.boxes is not None and got.boxes is not None
    counts = len(want.boxes), len(got.boxes)
    pairs = match(want, got, tolerance)
    share = len(pairs) / max(*counts, 1)
    _require(
        max(counts) == 0 or share >= tolerance.matched,
        where,
        f'{counts[0]} and {counts[1]} objects, and only {len(pairs)} of them are the same',
    )
    if want.masks is not None and pairs:
        assert got.masks is not None
        overlaps = np.array([mask_iou(want.masks, i, got.masks, j) for i, j in pairs])
        agreeing = float((overlaps >= tolerance.iou - 0.01).mean())
        _require(agreeing >= tolerance.matched, where, f'masks overlap by {overlaps.min():.3f} only')
    assert want.scores is not None and got.scores is not None
    return max((abs(float(want.scores[i]) - float(got.scores[j])) for i, j in pairs), default=0.0)


def match(want: Raw, got: Raw, tolerance: Tolerance) -> list[tuple[int, int]]:
    """Pairs of objects of one class, with nearly the same box and score; each object is in one pair at most."""
    assert want.labels is not None and got.labels is not None and want.scores is not None and got.scores is not None
    overlaps = box_iou(np.asarray(want.boxes), np.asarray(got.boxes))
    overlaps[want.labels[:, None] != got.labels[None]] = 0
    overlaps[np.abs(want.scores[:, None] - got.scores[None]) > tolerance.score] = 0
    pairs = []
    for i in range(len(overlaps)):
        j = int(overlaps[i].argmax()) if overlaps.shape[1] else 0
        if overlaps.shape[1] and overlaps[i, j] >= tolerance.iou:
            pairs.append((i, j))
            overlaps[:, j] = 0
    return pairs


def box_iou(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Overlap of boxes (n, 4) and (m, 4): (n, m). Two equal boxes without area overlap wholly."""
    a, b = a[:, None].astype(np.float64), b[None].astype(np.float64)
    sides = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0)
    inter = sides.prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - inter
    same = np.abs(a - b).max(axis=-1) < 0.05
    return np.where(union > 0, inter / np.where(union > 0, union, 1), same).astype(np.float64)


def mask_iou(a: Masks, i: int, b: Masks, j: int) -> float:
    """Overlap of two masks; 1 for two that are empty."""
    first, second = a[i], b[j]
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def generated_pictures(count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Pictures of soft colours with hard-edged boxes in them, for want of real ones."""
    random = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        height, width = (int(side) for side in random.integers(120, 320, 2))
        picture = resize_pixels(random.integers(0, 256, (6, 8, 3), dtype=np.uint8), height, width)
        for _ in range(6):
            y, x = (int(random.integers(0, side - 20)) for side in (height, width))
            h, w = (int(side) for side in random.integers(10, 90, 2))
            picture[y : y + h, x : x + w] = random.integers(0, 256, 3)
        pictures.append(picture)
    return pictures


def _as_it_is(model: Model, pixels: NDArray[np.uint8]) -> Prepared:
    """A picture, normalised and nothing else."""
    spec = model.input
    return prepare(pixels, InputSpec(mean=spec.mean, std=spec.std, channels=spec.channels))


def _require(holds: bool, where: str, why: str) -> None:
    if not holds:
        raise UserError(f'the exported model is not the model: {where}, {why}; nothing was written')


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
