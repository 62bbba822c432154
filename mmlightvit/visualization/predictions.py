# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A contact sheet of what a model predicts on its test set, for every task.

The toolboxes draw one picture per image at the image's own size, where labels on small images cannot be read; here
many images stand side by side in one enlarged figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from numpy.typing import NDArray
from PIL import Image

from mmlightvit.checkpoint.load import load_into
from mmlightvit.errors import UserError
from mmlightvit.toolboxes import build_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TILE_INCHES = 2.2
_WRONG, _RIGHT = '#c1121f', '#1b7837'


def predict(cfg: Config, checkpoint: str, count: int) -> tuple[list[Any], Sequence[str]]:
    """Predictions of a checkpoint on ``count`` images spread evenly over the test set.

    Args:
        cfg: Config of any task; its toolbox has to be imported (``mmlightvit.toolboxes.import_toolbox``).
        checkpoint: Path or address of the weights.
        count: Number of images, >= 1; all of them if the test set has fewer.

    Returns:
        The data samples with predictions and ground truth, and the class names.
    """
    if count < 1:
        raise UserError(f'number of images: expected at least 1, got {count}')
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    model: Any = build_model(cfg)
    load_into(model, checkpoint)
    model.eval()
    indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    with torch.no_grad():
        samples = [model.test_step(pseudo_collate([dataset[int(index)]]))[0] for index in indices]
    return samples, dataset.metainfo['classes']


def contact_sheet(
    samples: Sequence[Any], classes: Sequence[str], path: str | Path, columns: int = 6, score_thr: float = 0.5
) -> None:
    """Draw predictions side by side into one picture.

    Args:
        samples: Data samples of mmdet, mmpretrain or mmseg with predictions and ``img_path``.
        classes: Class names.
        path: The picture; its ending says the format.
        columns: Pictures per row, >= 1.
        score_thr: Boxes below this score are not drawn, in [0, 1].

    Raises:
        UserError: There are no samples, or they hold no predictions of a known kind.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    if not samples:
        raise UserError('there are no predictions to draw')
    colours = np.array([colormaps['tab10' if len(classes) <= 10 else 'tab20'](i % 20)[:3] for i in range(len(classes))])
    columns = min(columns, len(samples))
    rows = -(-len(samples) // columns)
    # A label map stands beside its image, so such a tile is half as high as it is wide.
    tile_height = _TILE_INCHES / (2 if 'pred_sem_seg' in samples[0] else 1)
    figure = Figure(figsize=(columns * _TILE_INCHES, rows * (tile_height + 0.25) + 0.4), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    for axes, sample in zip(grid.flat, samples):
        image = np.asarray(Image.open(sample.img_path).convert('RGB'))
        if 'pred_instances' in sample:
            _draw_instances(axes, image, sample.pred_instances.numpy(), classes, colours, score_thr)
        elif 'pred_sem_seg' in sample:
            _draw_labels(axes, image, sample, colours)
        elif 'pred_label' in sample:
            _draw_class(axes, image, sample, classes)
        else:
            raise UserError(f'expected boxes, a label map or a class among the predictions, got {sample.keys()}')
    if 'pred_sem_seg' in samples[0]:
        handles = [Patch(color=colour, label=name) for colour, name in zip(colours, classes)]
        figure.legend(handles=handles, loc='outside lower center', ncols=min(len(classes), 11), fontsize='small')
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _draw_instances(
    axes: Axes, image: NDArray, instances: Any, classes: Sequence[str], colours: NDArray, score_thr: float
) -> None:
    """Boxes with class and score, and masks where the model predicts them. Colours tell instances apart."""
    from matplotlib.patches import Rectangle

    shown = image.astype(np.float64) / 255
    kept = np.flatnonzero(instances.scores >= score_thr)
    if 'masks' in instances:
        for number, index in enumerate(kept):
            mask = np.asarray(instances.masks[index], dtype=bool)
            shown[mask] = 0.35 * shown[mask] + 0.65 * colours[number % len(colours)]
    axes.imshow(shown, interpolation='nearest')
    for number, index in enumerate(kept):
        left, top, right, bottom = instances.bboxes[index]
        colour = colours[number % len(colours)]
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor='white', linewidth=2.2))
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.2))
        axes.text(
            left, max(top, 0.06 * image.shape[0]), f'{classes[instances.labels[index]]}  {instances.scores[index]:.2f}',
            color='white', fontsize=7, fontweight='bold', va='bottom', clip_on=True,
            bbox=dict(facecolor=colour, edgecolor='none', pad=1.0),
        )  # fmt: skip


def _draw_labels(axes: Axes, image: NDArray, sample: Any, colours: NDArray) -> None:
    """The image beside its predicted label map, and the share of pixels that are right."""
    predicted = sample.pred_sem_seg.data.squeeze(0).cpu().numpy()
    axes.imshow(np.concatenate([image.astype(np.float64) / 255, colours[predicted]], axis=1), interpolation='nearest')
    truth = sample.gt_sem_seg.data.squeeze(0).cpu().numpy()
    counted = truth != 255
    axes.set_title(f'{(predicted == truth)[counted].mean():.1%} of pixels', fontsize=7)


def _draw_class(axes: Axes, image: NDArray, sample: Any, classes: Sequence[str]) -> None:
    """The image under its predicted class and score; red and with the true class where it is wrong."""
    predicted, truth = int(sample.pred_label), int(sample.gt_label)
    title = f'{classes[predicted]}  {float(sample.pred_score[predicted]):.2f}'
    wrong = predicted != truth
    axes.imshow(image, interpolation='nearest')
    axes.set_title(f'{title}  (is {classes[truth]})' if wrong else title, fontsize=9, color=_WRONG if wrong else _RIGHT)
