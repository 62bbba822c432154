# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Exported models, run without torch and without a toolbox: numpy and ONNX Runtime, or OpenVINO, are enough.

A form of a model for ``mmlightvit.inference``: what an exported file gives is brought into pixels of the picture by the
same arithmetic as in the toolboxes.

Shape legend: H W picture, h w resized, P Q padded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmlightvit.deploy.formats import Engine, ending_of, open_file, pt2
from mmlightvit.errors import UserError
from mmlightvit.inference.model import Model, Raw
from mmlightvit.inference.preprocess import Prepared
from mmlightvit.model_folder.info import ModelInfo
from mmlightvit.pictures.masks import paste, tent


class ExportedModel(Model):
    """A file that ``mmlightvit export`` wrote.

    Args:
        info: What it says of itself.
        engine: The opened file.
    """

    def __init__(self, info: ModelInfo, engine: Engine) -> None:
        super().__init__(info)
        self.engine = engine

    def run(self, pictures: Sequence[Prepared]) -> list[Raw]:
        if 'size' in self.engine.inputs:
            return [self._detect(picture) for picture in pictures]
        out = self.engine.run({'image': np.stack([picture.array for picture in pictures])})
        if 'probs' in out:
            return [Raw(probs=probs) for probs in out['probs']]
        if 'logits' not in out:
            raise UserError(f'{self.info.name} gives {", ".join(out)}: it was exported without its head')
        return [Raw(label_map=label_map(logits, picture)) for logits, picture in zip(out['logits'], pictures)]

    def _detect(self, picture: Prepared) -> Raw:
        size = np.array(picture.size, np.int64)
        out = self.engine.run({'image': picture.array[None], 'size': size})
        boxes = out['dets'][:, :4] / np.tile(np.array(picture.scale[::-1], np.float32), 2)
        masks = paste(out['masks'], boxes, *picture.original) if 'masks' in out else None
        return Raw(boxes=boxes, scores=out['dets'][:, 4], labels=out['labels'], masks=masks)


def load_exported(
    path: str | os.PathLike, device: str | None = None, threads: int | None = None, *, trust: bool = False
) -> ExportedModel:
    """Open an exported file.

    Args:
        path: With one of :data:`~mmlightvit.deploy.formats.ENDINGS`.
        device: ``'cpu'``, ``'cuda'``, ``'openvino:CPU'`` or, in the precision that the processor is fastest in,
            ``'openvino:CPU:fastest'``; None is the CPU.
        threads: For one picture; None takes what the runtime takes.
        trust: Whether a ``.pt2`` file may be opened: torch runs whatever code stands in it.

    Raises:
        UserError: It is not one of ours, or a package or device is missing; or it is a program that nobody trusts.
    """
    path = Path(path)
    engine = open_file(path, device, threads, trust=trust)
    return ExportedModel(_info(engine.metadata, path), engine)


def read_info(path: Path) -> ModelInfo:
    """What an exported file says of itself; a ``.pt2`` is not opened for it, but read as an archive.

    Raises:
        UserError: It is not one of ours.
    """
    return _info(pt2.read_metadata(path), path) if ending_of(path) == pt2.FORMAT.ending else load_exported(path).info


def _info(metadata: str | None, path: Path) -> ModelInfo:
    if metadata is None:
        raise UserError(f'{path} was not written by mmlightvit export: it does not say what it is')
    return ModelInfo.from_json(metadata, str(path))


# -- into pixels of the picture ---------------------------------------------------------------------------------------
def label_map(logits: NDArray, picture: Prepared) -> NDArray[np.int64]:
    """mmseg's label map: logits (classes, a, b) of the padded picture -> the best class of each pixel, (H, W)."""
    rows, columns = (
        _resizing(size, original) @ _resizing(cells, padded)[:size]
        for size, original, cells, padded in zip(
            picture.size, picture.original, logits.shape[1:], picture.array.shape[1:]
        )
    )
    best = np.full(picture.original, -np.inf, np.float32)
    label = np.zeros(picture.original, np.int64)
    for place, logit in enumerate(logits):
        grown = rows @ logit @ columns.T
        better = grown > best
        np.copyto(best, grown, where=better)
        np.copyto(label, place, where=better)
    return label


def _resizing(size: int, target: int) -> NDArray[np.float32]:
    """torch's bilinear resizing of one axis, (target, size)."""
    place = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * np.float32(size / target) - np.float32(0.5)
    return tent(place.clip(0, size - 1), size)
