# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Whole images, read and brought to the size and scale that the test pipeline of a config gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from numpy.typing import NDArray
from torch import Tensor

from mmlightvit.inference.preprocess import prepare, resize
from mmlightvit.model_folder.describe import describe
from mmlightvit.model_folder.info import InputSpec
from mmlightvit.pictures.read import as_picture


@dataclass(frozen=True)
class PreparedImage:
    """One image as the network sees it.

    Attributes:
        name: File name without its ending.
        pixels: (height, width, 3), uint8 RGB: the resized image without padding.
        tensor: (1, 3, padded height, padded width): normalised, padded to the right and at the bottom.
    """

    name: str
    pixels: NDArray[np.uint8]
    tensor: Tensor


def whole_input(cfg: Config, short_side: int | None = None) -> InputSpec:
    """How the test pipeline of a config prepares images, but of the whole image where it would crop.

    Args:
        cfg: A config of any task.
        short_side: Short side in pixels; None for the pipeline's size, or the crop's.

    Raises:
        UserError: The pipeline does more than read, resize, crop and pad.
    """
    spec = describe(cfg).input
    if short_side is None and spec.crop is not None:
        short_side = min(spec.crop)
    return replace(spec, crop=None, resize=spec.resize if short_side is None else {'short': short_side})


def prepare_image(path: str | Path, spec: InputSpec) -> PreparedImage:
    """Read an image the way the test pipeline does and prepare it.

    Raises:
        UserError: The file is missing or no image.
    """
    original = as_picture(path).pixels
    prepared = prepare(original, spec)
    pixels = resize(original, *prepared.size, spec.interpolation)
    return PreparedImage(Path(path).stem, pixels, torch.from_numpy(prepared.array)[None])
