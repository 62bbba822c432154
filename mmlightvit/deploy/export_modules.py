# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The parts of a model that can be exported, their inputs and outputs.

Cuts: ``end2end`` is the whole model; ``features`` leaves out what follows the layers of a detector, the head of a
segmenter and the last layer of a classifier; ``backbone`` is the backbone alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmlightvit.errors import UserError
from mmlightvit.model_folder.info import InputSpec
from mmlightvit.tasks import TASKS

CUTS = ('end2end', 'features', 'backbone')
#: Height and width of the example of a trace for any size, which needs padding everywhere.
TRACED = (225, 231)


@dataclass(frozen=True)
class ExportModule:
    """A module that can be exported.

    Attributes:
        module: Takes an image (B, 3, height, width), and of detectors the size of the picture in it.
        outputs: Names of its outputs.
        takes_size: Whether it takes that size.
        batch: Whether it takes several images at once.
    """

    module: nn.Module
    outputs: tuple[str, ...]
    takes_size: bool = False
    batch: bool = True

    def example(self, static: tuple[int, int] | None) -> tuple[Tensor, ...]:
        """Arguments of a trace for one height and width, or for any."""
        height, width = static or TRACED
        image = torch.randn(2 if self.batch else 1, 3, height, width, generator=torch.Generator().manual_seed(0))
        return (image, torch.tensor([height, width])) if self.takes_size else (image,)

    @property
    def inputs(self) -> tuple[str, ...]:
        return ('image', 'size') if self.takes_size else ('image',)

    def dynamic(self, static: tuple[int, int] | None) -> tuple[Mapping[int, str], ...]:
        """The dimensions of the arguments that may differ."""
        image = {0: 'batch'} if self.batch else {}
        image |= {} if static else {2: 'height', 3: 'width'}
        return (image, {}) if self.takes_size else (image,)


def export_module(model: Any, task: str, cut: str = 'end2end', normalise: InputSpec | None = None) -> ExportModule:
    """The part of a toolbox's model that ends at a cut.

    Args:
        model: In eval mode.
        task: Its task.
        cut: One of :data:`CUTS`.
        normalise: The image comes as pixel values, RGB, and the graph does the rest.

    Raises:
        UserError: The model has a part that nobody has compared with its toolbox.
    """
    if cut == 'backbone':
        part = ExportModule(Backbone(model.backbone), tuple(f'stage{i}' for i in model.backbone.out_indices))
    elif not (TASKS[task].has_objects or TASKS[task].has_label_map):
        is_whole = cut == 'end2end'
        part = ExportModule(Classifier(model, embed=not is_whole), ('probs' if is_whole else 'embedding',))
    elif cut == 'features':
        part = _features(model)
    elif TASKS[task].has_objects:
        from mmlightvit.deploy.detector import detector

        has_masks = getattr(getattr(model, 'roi_head', None), 'with_mask', False)
        outputs = ('dets', 'labels', 'masks') if has_masks else ('dets', 'labels')
        part = ExportModule(detector(model), outputs, takes_size=True, batch=False)
    else:
        from mmlightvit.deploy.segmenter import Segmenter

        part = ExportModule(Segmenter(model), ('logits',))
    module = part.module if normalise is None else Normalised(part.module, normalise)
    return ExportModule(module.eval(), part.outputs, part.takes_size, part.batch)


def _features(model: Any) -> ExportModule:
    module = Features(model)
    with torch.no_grad():
        count = len(module(torch.zeros(1, 3, 64, 64)))
    return ExportModule(module, tuple(f'map{i}' for i in range(count)))


class Backbone(nn.Module):
    """The backbone alone."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.backbone(image)


class Features(nn.Module):
    """Backbone, neck and, of a detector, the maps of its dense head: all of the levels' scores, then all deltas."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.neck = model.neck if model.with_neck else nn.Identity()
        self.head = getattr(model, 'rpn_head', None) or getattr(model, 'bbox_head', None)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = tuple(self.neck(self.backbone(image)))
        if self.head is None:
            return maps
        scores, deltas = self.head(maps)
        return (*maps, *scores, *deltas)


class Classifier(nn.Module):
    """A LightViT classifier: probabilities (B, classes), or what its last layer sees."""

    def __init__(self, model: Any, embed: bool) -> None:
        from mmlightvit.models.heads.lightvit_head import LightViTHead

        super().__init__()
        if type(model.head) is not LightViTHead:
            raise UserError(f'a {type(model.head).__name__} cannot be exported; a LightViTHead can')
        self.backbone, self.head, self.embed = model.backbone, model.head, embed

    def forward(self, image: Tensor) -> Tensor:
        mean = self.head.pre_logits(self.backbone(image))
        return mean if self.embed else self.head.fc(mean).softmax(dim=-1)


class Normalised(nn.Module):
    """Normalisation and order of channels in front of a module, so that it takes RGB pixel values."""

    def __init__(self, module: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.module, self.is_bgr = module, spec.channels == 'bgr'
        self.mean = nn.Buffer(torch.tensor(spec.mean).view(3, 1, 1))
        self.std = nn.Buffer(torch.tensor(spec.std).view(3, 1, 1))

    def forward(self, image: Tensor, size: Tensor | None = None) -> Any:
        image = ((image.flip(1) if self.is_bgr else image) - self.mean) / self.std
        if size is None:
            return self.module(image)
        rows, columns = torch.arange(image.shape[2]) < size[0], torch.arange(image.shape[3]) < size[1]
        return self.module(image * (rows[:, None] & columns[None]).float(), size)  # what pads is zero
