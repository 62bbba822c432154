# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Models of the toolboxes, run by torch.

A model folder is data: what it asks for is checked before anything is built (``model_folder.parts``). A config, and so
a work directory, is the user's own, and is executed.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmlightvit.checkpoint import zoo
from mmlightvit.checkpoint.identify import find_state_dict, recognise
from mmlightvit.checkpoint.load import load_into
from mmlightvit.durable.find import find_newest
from mmlightvit.durable.safe_loading.read import read_checkpoint
from mmlightvit.durable.seal import read_seal, verify
from mmlightvit.errors import UserError
from mmlightvit.inference.model import Model, Raw
from mmlightvit.inference.preprocess import Prepared
from mmlightvit.model_folder.describe import describe
from mmlightvit.model_folder.info import FILE, FOLDER, ModelInfo
from mmlightvit.model_folder.parts import checked_model, registered_parts_alone
from mmlightvit.model_folder.write import WEIGHTS
from mmlightvit.pictures.masks import Masks
from mmlightvit.tasks import CLASSIFICATION, SEGMENTATION
from mmlightvit.toolboxes import build_model, import_toolbox

#: Channels of a label map that are resized together.
_CHANNELS = 8


class TorchModel(Model):
    """A model of a toolbox.

    Args:
        info: Its description.
        module: The model, with its weights.
        device: Where it runs.
    """

    def __init__(self, info: ModelInfo, module: nn.Module, device: torch.device) -> None:
        super().__init__(info)
        self.module: Any = module.to(device).eval()
        self.device = device

    @torch.inference_mode()
    def run(self, pictures: Sequence[Prepared]) -> list[Raw]:
        inputs = torch.from_numpy(np.stack([picture.array for picture in pictures])).to(self.device)
        with DefaultScope.overwrite_default_scope(self.info.scope), quiet():
            if self.task == CLASSIFICATION:
                return [Raw(probs=sample.pred_score.cpu().numpy()) for sample in self.module(inputs, mode='predict')]
            if self.task == SEGMENTATION:
                return self._segment(inputs, pictures)
            return self._detect(inputs, pictures)

    def _detect(self, inputs: Tensor, pictures: Sequence[Prepared]) -> list[Raw]:
        from mmdet.structures import DetDataSample

        samples = [DetDataSample(metainfo=_metainfo(inputs, picture)) for picture in pictures]
        return [raw_objects(sample.pred_instances) for sample in self.module(inputs, samples, mode='predict')]

    def _segment(self, inputs: Tensor, pictures: Sequence[Prepared]) -> list[Raw]:
        logits = self.module.inference(inputs, [_metainfo(inputs, picture) for picture in pictures])
        out = []
        for padded, picture in zip(logits, pictures):
            scores = padded[None, :, : picture.size[0], : picture.size[1]]
            if scores.shape[1] == 1:
                grown = self._grown(scores, picture).sigmoid() > self.module.decode_head.threshold
                out.append(Raw(label_map=grown[0, 0].long().cpu().numpy()))
                continue
            # The classes' maps at the size of the picture would take gigabytes, so only the best one is kept.
            best = torch.full(picture.original, -torch.inf, dtype=scores.dtype, device=self.device)
            label = torch.zeros(picture.original, dtype=torch.long, device=self.device)
            for first in range(0, scores.shape[1], _CHANNELS):
                value, place = self._grown(scores[:, first : first + _CHANNELS], picture)[0].max(dim=0)
                better = value > best
                best = torch.where(better, value, best)
                label = torch.where(better, place + first, label)
            out.append(Raw(label_map=label.cpu().numpy()))
        return out

    def _grown(self, scores: Tensor, picture: Prepared) -> Tensor:
        return F.interpolate(scores, picture.original, mode='bilinear', align_corners=self.module.align_corners)


def raw_objects(instances: Any) -> Raw:
    """mmdet's ``pred_instances`` in our form."""
    boxes = instances.bboxes.float().cpu().numpy()
    masks = instances.get('masks')
    if isinstance(masks, Tensor):
        masks = masks.cpu().numpy()
    return Raw(
        boxes=boxes,
        scores=instances.scores.float().cpu().numpy(),
        labels=instances.labels.cpu().numpy(),
        masks=None if masks is None else Masks.from_dense(masks, boxes),
    )


def _metainfo(inputs: Tensor, picture: Prepared) -> dict[str, Any]:
    padded = tuple(inputs.shape[-2:])
    return {
        'img_id': 0,
        'ori_shape': picture.original,
        'img_shape': picture.size,
        'pad_shape': padded,
        'batch_input_shape': padded,
        'scale_factor': picture.scale[::-1],
        'padding_size': [0, padded[1] - picture.size[1], 0, padded[0] - picture.size[0]],
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the toolboxes' remarks below a warning; what a command prints is its result."""
    previous = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(previous)


# -- loading ----------------------------------------------------------------------------------------------------------
def load_folder(folder: Path, device: str | None, config: Path | None = None) -> Model:
    """A model folder; nothing of it is executed.

    Args:
        folder: With ``model.json``.
        device: See ``load_model``.
        config: That of the training which wrote the folder. It is executed, and so may ask for any part.
    """
    info = ModelInfo.load(folder)
    if config is None:
        info = replace(info, model=checked_model(info))
    else:
        _read_config(str(config))
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f'{folder} has a {FILE}, but no {WEIGHTS}')
    if info.weights_sha256 is not None and zoo.digest(path) != info.weights_sha256:
        raise UserError(f'{path} is not what {FILE} was written with: its SHA-256 differs from weights_sha256')
    with registered_parts_alone() if config is None else contextlib.nullcontext():
        return _load(info, read_checkpoint(path), str(path), device)


def load_work_dir(folder: Path, device: str | None) -> Model:
    """A work directory: its best checkpoint, else its newest whose seal holds, with the config dumped there.

    The model folder that was written from this checkpoint stands for it: thresholds that were chosen are kept there.
    """
    configs = sorted(folder.glob('*.py'), key=lambda path: path.stat().st_mtime)
    best = sorted(folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    if not configs:
        raise UserError(f'{folder}: expected {FILE} of a model folder, or the config and checkpoints of a training')
    if best:
        verify(best[-1])
        checkpoint = best[-1]
    else:
        newest = find_newest(folder)
        if newest.path is None:
            why = f' ({"; ".join(newest.skipped)})' if newest.skipped else ''
            raise UserError(f'{folder} has no checkpoint that can be used{why}')
        checkpoint = Path(newest.path)
    inside, seal = folder / FOLDER, read_seal(checkpoint)
    if seal and (inside / FILE).is_file() and ModelInfo.load(inside).training.get('checkpoint_seal') == seal.sha256:
        return load_folder(inside, device, configs[-1])
    return load_checkpoint(str(checkpoint), str(configs[-1]), device)


def load_checkpoint(name: str, config: str | None, device: str | None) -> Model:
    """A checkpoint with its config; a published classifier is known by its tensors."""
    checkpoint = read_checkpoint(name)
    if config is None:
        config = _config_of_published(checkpoint, name)
    meta = checkpoint.get('meta')
    dataset_meta = meta.get('dataset_meta') if isinstance(meta, Mapping) else None
    return _load(_describe(config, dataset_meta), checkpoint, name, device)


def load_named(name: str, device: str | None, allow_random: bool) -> Model:
    """A model of the index, with its published weights."""
    entry = zoo.find(name)
    if entry.address is None and allow_random:
        return load_random(str(entry.config), device, allow_random)
    return load_checkpoint(str(zoo.pull(name)), str(entry.config), device)


def load_random(config: str, device: str | None, allow_random: bool) -> Model:
    """A model as it is initialised, from its config."""
    if not allow_random:
        raise UserError(
            f'{config} is a config and has no weights: give a checkpoint with --config {config}; --random '
            '(allow_random=True) takes random weights, whose predictions mean nothing'
        )
    info = _describe(config, None)
    info = replace(info, extra={**info.extra, 'weights': 'random'})
    return TorchModel(info, _build(info, initialise=True), _device(device))


def _load(info: ModelInfo, checkpoint: Mapping[str, Any], name: str, device: str | None) -> Model:
    module = _build(info)
    with quiet():
        load_into(module, checkpoint, name=name)
    return TorchModel(info, module, _device(device))


def _describe(config: str, dataset_meta: Mapping[str, Any] | None) -> ModelInfo:
    cfg = _read_config(config)
    with quiet():
        return describe(cfg, dataset_meta)


def _read_config(config: str) -> Config:
    if not Path(config).is_file():
        raise UserError(f'config not found: {config}')
    try:
        return Config.fromfile(config)
    except (FileNotFoundError, ImportError) as error:
        raise UserError(f'{config} needs what is not there: {error}') from None


def _config_of_published(checkpoint: Mapping[str, Any], name: str) -> str:
    source = recognise(find_state_dict(checkpoint, name), name)
    arch = source.architecture.arch if source.architecture is not None else None
    entry = next((e for e in zoo.entries() if arch and e.name == f'lightvit_{arch[0]}_imagenet'), None)
    classes = source.state.get('head.fc.weight')
    if source.kind != 'classifier' or entry is None or classes is None or classes.shape[0] != 1000:
        raise UserError(f'{name} is a {source}, which needs its config: --config FILE (config=FILE in Python)')
    return str(entry.config)


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'device {name!r} cannot be used: {str(error).splitlines()[0]}') from None
    return device


def _build(info: ModelInfo, initialise: bool = False) -> nn.Module:
    import_toolbox(info.scope)
    with quiet():
        module: Any = build_model({'model': info.model, 'default_scope': info.scope})
        if initialise:
            module.init_weights()
    return module
