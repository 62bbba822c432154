# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A contact sheet of a model's predictions on its test set, the truth beside each, for every task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmlightvit.checkpoint.load import load_into
from mmlightvit.errors import UserError
from mmlightvit.inference.torch_backend import TorchModel
from mmlightvit.model_folder.describe import describe
from mmlightvit.pictures.drawing import sheet, write_picture
from mmlightvit.pictures.masks import Masks
from mmlightvit.pictures.result import Result
from mmlightvit.toolboxes import build_model

#: Labels that mmseg leaves out.
_IGNORED = 255


def predict(cfg: Config, checkpoint: str, count: int, score_thr: float = 0.5) -> list[tuple[Result, Result]]:
    """Truth and prediction of ``count`` images spread evenly over the test set.

    Args:
        cfg: Config of any task; its toolbox has to be imported (``mmlightvit.toolboxes.import_toolbox``).
        checkpoint: Path or address of the weights.
        count: Number of images, >= 1; all of them if the test set has fewer.
        score_thr: Boxes below this score are left out, in [0, 1].
    """
    if count < 1:
        raise UserError(f'number of images: expected at least 1, got {count}')
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    module = build_model(cfg)
    load_into(module, checkpoint)
    model = TorchModel(describe(cfg, dataset.metainfo), module, torch.device('cpu'))
    pairs = []
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int):
        info = dataset.get_data_info(int(index))
        found = model.predict(info['img_path'], score_thr=score_thr)
        if found.label_map is not None:
            sample = dataset[int(index)]['data_samples']
            truth = replace(found, label_map=sample.gt_sem_seg.data.squeeze(0).numpy())
        elif found.probs is not None:
            truth = replace(found, probs=np.eye(len(found.classes), dtype=np.float32)[info['gt_label']])
        else:
            truth = _objects(info, found)
        pairs.append((truth, found))
    return pairs


def _objects(info: dict[str, Any], found: Result) -> Result:
    """The annotated objects of mmdet's data set, crowds left out, in the form of a prediction."""
    objects = [each for each in info['instances'] if not each.get('ignore_flag')]
    masks = None
    if found.masks is not None:
        from pycocotools.mask import frPyObjects, merge

        size = found.height, found.width
        codes = []
        for each in objects:
            code = frPyObjects(each['mask'], *size)
            codes.append((merge(code) if isinstance(code, list) else code)['counts'].decode())
        masks = Masks(codes, *size)
    return replace(
        found,
        boxes=np.array([each['bbox'] for each in objects], np.float32).reshape(-1, 4),
        labels=np.array([each['bbox_label'] for each in objects], np.int64),
        scores=np.ones(len(objects), np.float32),
        masks=masks,
    )


def contact_sheet(pairs: Sequence[tuple[Result, Result]], path: str | Path, columns: int = 6) -> None:
    """Draw predictions side by side into one picture, each beside its truth; a class stands in the line below.

    Args:
        pairs: What :func:`predict` returned.
        path: The picture; its ending says the format.
        columns: Images per row, >= 1.

    Raises:
        UserError: There are none.
    """
    if not pairs:
        raise UserError('there are no predictions to draw')
    tiles = []
    for truth, found in pairs:
        if found.probs is None:
            tiles.append((truth.draw(legible=True), 'truth'))
        tiles.append((found.draw(legible=True), _caption(truth, found)))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_picture(Path(path), sheet(tiles, columns if pairs[0][1].probs is not None else 2 * columns))


def _caption(truth: Result, found: Result) -> str:
    if found.probs is not None:
        name = truth.top(1)[0][1]
        return name if found.top(1)[0][1] == name else f'wrong: is {name}'
    if found.label_map is not None and truth.label_map is not None:
        known = truth.label_map != _IGNORED
        right = (found.label_map == truth.label_map)[known]
        return f'{right.mean():.1%} of pixels' if right.size else 'no pixel counts'
    return 'prediction'
