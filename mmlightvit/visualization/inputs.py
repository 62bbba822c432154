# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A trained model of any task, and images of any size prepared as it expects them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn

from mmlightvit.errors import UserError


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


def load_model(cfg: Config, checkpoint: str) -> Any:
    """Build the model of a config of any task and load its weights, strictly; in eval mode.

    Raises:
        UserError: The model cannot be built, or the checkpoint is missing or belongs to another model.
    """
    from mmlightvit.checkpoint.load import load_into
    from mmlightvit.toolboxes import build_model

    model = build_model(cfg)
    load_into(model, checkpoint)
    return model.eval()


def network_scale(cfg: Config) -> int | tuple[int, int] | None:
    """The size to which the test pipeline of a config brings images.

    Returns:
        the short side in pixels; or (long, short), the largest size that an image must fit into; None for its own size
    """
    pipeline = cfg.get('test_pipeline') or cfg.get('test_dataloader', {}).get('dataset', {}).get('pipeline', [])
    steps = {step['type'].rpartition('.')[2]: step for step in pipeline if isinstance(step, Mapping)}
    if 'CenterCrop' in steps:
        crop = steps['CenterCrop']['crop_size']
        return crop if isinstance(crop, int) else min(crop)
    if 'ResizeEdge' in steps:
        return steps['ResizeEdge']['scale']
    scale = steps.get('Resize', {}).get('scale')
    if scale is None or isinstance(scale, int):
        return scale
    return max(scale), min(scale)


def prepare_image(model: nn.Module, path: str | Path, scale: int | tuple[int, int] | None) -> PreparedImage:
    """Read an image, resize the whole of it with its aspect kept, normalise and pad it by the model's preprocessor.

    Args:
        model: A model of mmdet, mmpretrain or mmseg; its ``data_preprocessor`` is used.
        path: The image.
        scale: Short side in pixels; or (long, short) to fit into; None keeps the size.

    Raises:
        UserError: The file is missing or no image.
    """
    try:
        with Image.open(path) as file:
            image = file.convert('RGB')
    except FileNotFoundError:
        raise UserError(f'image not found: {path}') from None
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f'{path} cannot be read as an image ({error})') from error
    width, height = image.size
    if scale is not None:
        ratio = scale / min(width, height) if isinstance(scale, int) else _fit(width, height, *scale)
        width, height = max(1, round(width * ratio)), max(1, round(height * ratio))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    bgr = torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1)  # the toolboxes read images as BGR
    preprocessor: Any = model.data_preprocessor
    tensor = preprocessor(dict(inputs=[bgr], data_samples=None))['inputs']
    return PreparedImage(Path(path).stem, pixels, tensor)


def _fit(width: int, height: int, long: int, short: int) -> float:
    return min(long / max(width, height), short / min(width, height))
