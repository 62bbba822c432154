# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""mmdet's detectors as plain torch that can be traced for every picture size.

The layers, the coders' numbers and the test settings are mmdet's; only what follows the layers is written anew, since
mmcv's operators cannot be traced: torchvision's ``nms`` and ``roi_align`` are standard operators of ONNX. A detector
whose parts are not all on the list below is refused, since nobody has compared its graph with mmdet.

Shape legend: n boxes, K classes.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from mmcv.cnn.utils import fuse_conv_bn
from mmdet.models import (
    CascadeRCNN,
    CascadeRoIHead,
    ConvFCBBoxHead,
    FasterRCNN,
    FCNMaskHead,
    MaskRCNN,
    RetinaHead,
    RetinaNet,
    RPNHead,
    Shared2FCBBoxHead,
    Shared4Conv1FCBBoxHead,
    SingleRoIExtractor,
    StandardRoIHead,
)
from mmdet.models.losses import CrossEntropyLoss
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from mmlightvit.errors import UserError

_BOX_HEADS = (ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead)


def detector(model: nn.Module) -> nn.Module:
    """The graph of a detector: ``forward(image, size)``.

    Shape:
        image (1, 3, height, width), padded; size (2,), the height and width that are picture -> dets (n, 5): x1 y1 x2
        y2 score, by falling score; labels (n,); with a mask head, masks (n, h, w): probabilities in the box.

    Raises:
        UserError: A part of it is none that has been compared with mmdet.
    """
    if type(model) is RetinaNet:
        return OneStage(model)
    if type(model) in (FasterRCNN, MaskRCNN, CascadeRCNN):
        return TwoStage(model)
    raise UserError(
        f'a {type(model).__name__} cannot be exported end to end: only Faster, Mask and Cascade R-CNN and RetinaNet '
        'have been compared with mmdet; --cut features leaves the head out'
    )


class OneStage(nn.Module):
    """RetinaNet."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        _expect(model.bbox_head, RetinaHead)
        self.backbone, self.neck, self.head = model.backbone, model.neck, model.bbox_head
        self.dense = DensePredictions(self.head)
        self.settings = _settings(model.bbox_head.test_cfg)

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        candidates = []
        for all_scores, deltas, anchors in self.dense(self.neck(self.backbone(image))):
            places = (all_scores > self.settings.get('score_thr', 0)).nonzero()
            top, order = _top(all_scores[places[:, 0], places[:, 1]], self.settings['nms_pre'])
            row, label = places[order].unbind(1)
            candidates.append((decode(self.head.bbox_coder, anchors[row], deltas[row], size), top, label))
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*candidates))
        boxes, scores, labels = _without_small(self.settings, boxes, scores, labels)
        kept = separate_nms(boxes, scores, labels, self.settings['nms'], image)[: self.settings['max_per_img']]
        return torch.cat([boxes[kept], scores[kept, None]], dim=1), labels[kept]


class TwoStage(nn.Module):
    """Faster, Mask and Cascade R-CNN."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        roi_head = fuse_conv_bn(copy.deepcopy(model.roi_head))  # a norm over no boxes at all cannot be traced
        _expect(model.rpn_head, RPNHead)
        _expect(roi_head, StandardRoIHead, CascadeRoIHead)
        self.backbone, self.neck, self.rpn_head = model.backbone, model.neck, model.rpn_head
        self.dense = DensePredictions(self.rpn_head)
        self.rpn_settings, self.settings = _settings(model.rpn_head.test_cfg), _settings(roi_head.test_cfg)
        self.box_heads, self.box_rois = _stages(roi_head.bbox_head), _stages(roi_head.bbox_roi_extractor)
        self.mask_heads = _stages(roi_head.mask_head if roi_head.with_mask else [])
        self.mask_rois = _stages(roi_head.mask_roi_extractor if roi_head.with_mask else [])
        if roi_head.with_shared_head or self.settings.get('mask_thr_binary', 0.5) != 0.5:
            raise UserError('a shared head, or masks cut elsewhere than at 0.5, cannot be exported')
        for head in self.box_heads:
            _expect(head, *_BOX_HEADS)
            _expect(head.loss_cls, CrossEntropyLoss)
            _expect(head.bbox_coder, DeltaXYWHBBoxCoder)
        for head in self.mask_heads:
            _expect(head, FCNMaskHead)
        for extractor in (*self.box_rois, *self.mask_rois):
            _expect(extractor, SingleRoIExtractor)

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        maps = self.neck(self.backbone(image))
        rois = self.proposals(maps, size, image)
        scores = []
        for stage, (head, extractor) in enumerate(zip(self.box_heads, self.box_rois)):
            logits, deltas = head(pooled(extractor, maps, rois))
            scores.append(logits)
            if stage + 1 < len(self.box_heads):
                rois = decode(head.bbox_coder, rois, _of_class(head, deltas, logits[:, :-1].argmax(dim=1)), size)
        mean = sum(scores) / float(len(scores)) if len(scores) > 1 else scores[0]
        boxes, kept_scores, labels = self.detections(rois, mean.softmax(dim=-1)[:, :-1], deltas, size, image)
        dets = torch.cat([boxes, kept_scores[:, None]], dim=1)
        return (dets, labels, self.masks(maps, boxes, labels)) if len(self.mask_heads) else (dets, labels)

    def proposals(self, maps: tuple[Tensor, ...], size: Tensor, image: Tensor) -> Tensor:
        """Boxes that may hold an object, (n, 4)."""
        candidates = []
        for level, (scores, deltas, anchors) in enumerate(self.dense(maps)):
            top, order = _top(scores.squeeze(1), self.rpn_settings['nms_pre'])
            boxes = decode(self.rpn_head.bbox_coder, anchors[order], deltas[order], size)
            candidates.append((boxes, top, torch.full_like(order, level)))
        boxes, scores, levels = (torch.cat(parts) for parts in zip(*candidates))
        boxes, scores, levels = _without_small(self.rpn_settings, boxes, scores, levels)
        kept = separate_nms(boxes, scores, levels, self.rpn_settings['nms'], image)
        return boxes[kept[: self.rpn_settings['max_per_img']]]

    def detections(
        self, rois: Tensor, scores: Tensor, deltas: Tensor, size: Tensor, image: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (n, 4), scores and labels of what is kept."""
        head = self.box_heads[-1]
        roi, labels = (scores > self.settings['score_thr']).nonzero().unbind(1)
        boxes = decode(head.bbox_coder, rois[roi], _of_class(head, deltas[roi], labels), size)
        scores = scores[roi, labels]
        kept = separate_nms(boxes, scores, labels, self.settings['nms'], image)[: self.settings['max_per_img']]
        return boxes[kept], scores[kept], labels[kept]

    def masks(self, maps: tuple[Tensor, ...], boxes: Tensor, labels: Tensor) -> Tensor:
        """Probabilities in each box, (n, h, w); of several heads, their mean."""
        probabilities = []
        for head, extractor in zip(self.mask_heads, self.mask_rois):
            logits = head(pooled(extractor, maps, boxes))
            channel = torch.zeros_like(labels) if head.class_agnostic else labels
            probabilities.append(logits[torch.arange(labels.shape[0]), channel].sigmoid())
        return sum(probabilities) / float(len(probabilities)) if len(probabilities) > 1 else probabilities[0]


class DensePredictions(nn.Module):
    """Predictions of a dense head, level by level: scores (n, K), deltas (n, 4) and anchors (n, 4)."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        _expect(head.prior_generator, AnchorGenerator)
        _expect(head.bbox_coder, DeltaXYWHBBoxCoder)
        if not head.use_sigmoid_cls or getattr(head.loss_cls, 'custom_cls_channels', False):
            raise UserError(f'the {type(head).__name__} does not take a sigmoid, and only those can be exported')
        self.head = head

    def forward(self, maps: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor, Tensor]]:
        out = []
        for level, (logits, deltas) in enumerate(zip(*self.head(maps))):
            scores = logits[0].permute(1, 2, 0).reshape(-1, self.head.cls_out_channels).sigmoid()
            out.append((scores, deltas[0].permute(1, 2, 0).reshape(-1, 4), self._anchors(logits, level)))
        return out

    def _anchors(self, logits: Tensor, level: int) -> Tensor:
        generator = self.head.prior_generator
        across, down = generator.strides[level]
        y = torch.arange(logits.shape[-2], dtype=torch.float32)[:, None] * down
        x = torch.arange(logits.shape[-1], dtype=torch.float32)[None] * across
        y, x = torch.broadcast_tensors(y, x)
        return (torch.stack([x, y, x, y], dim=-1)[:, :, None] + generator.base_anchors[level]).reshape(-1, 4)


def decode(coder: Any, boxes: Tensor, deltas: Tensor, size: Tensor) -> Tensor:
    """mmdet's ``DeltaXYWHBBoxCoder``, clipped to what is picture: boxes, deltas (n, 4) -> (n, 4)."""
    deltas = deltas * deltas.new_tensor(coder.stds) + deltas.new_tensor(coder.means)
    most = abs(math.log(16 / 1000))
    centre, extent = (boxes[:, :2] + boxes[:, 2:]) * 0.5, boxes[:, 2:] - boxes[:, :2]
    shift = extent * deltas[:, :2]
    if coder.add_ctr_clamp:
        shift, scale = shift.clamp(-coder.ctr_clamp, coder.ctr_clamp), deltas[:, 2:].clamp(max=most)
    else:
        scale = deltas[:, 2:].clamp(-most, most)
    centre, extent = centre + shift, extent * scale.exp()
    corners = torch.cat([centre - extent * 0.5, centre + extent * 0.5], dim=1)
    if not coder.clip_border:
        return corners
    return torch.minimum(corners.clamp(min=0), size.flip(0).repeat(2).to(corners.dtype))


def separate_nms(boxes: Tensor, scores: Tensor, groups: Tensor, settings: Any, image: Tensor) -> Tensor:
    """Places of the boxes kept, by falling score; only boxes of one group suppress each other.

    Groups are moved apart by more than the picture's side, which holds for no boxes at all, too.
    """
    if not settings.get('class_agnostic', False):
        boxes = boxes + (groups * (torch.sym_max(*image.shape[-2:]) + 1)).to(boxes.dtype)[:, None]
    return nms(boxes, scores, settings['iou_threshold'])


def pooled(extractor: Any, maps: tuple[Tensor, ...], boxes: Tensor) -> Tensor:
    """mmdet's ``SingleRoIExtractor`` on one picture: each box from the level of its size, (n, C, h, w)."""
    levels = extractor.num_inputs
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    scale = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level = torch.log2(scale / extractor.finest_scale + 1e-6).floor().clamp(0, levels - 1).long()
    out = boxes.new_zeros(boxes.shape[0], extractor.out_channels, *extractor.roi_layers[0].output_size)
    for i, layer in enumerate(extractor.roi_layers):
        place = (level == i).nonzero().squeeze(1)
        out[place] = roi_align(
            maps[i], rois[place], layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
        )
    return out


def _top(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The best ``most`` of scores (n,), and their places."""
    return scores.topk(torch.sym_min(scores.shape[0], most))


def _of_class(head: Any, deltas: Tensor, labels: Tensor) -> Tensor:
    """The deltas (n, 4) of one class each, from those of all classes."""
    if head.reg_class_agnostic:
        return deltas
    return deltas.reshape(-1, head.num_classes, 4)[torch.arange(labels.shape[0]), labels]


def _without_small(settings: Any, boxes: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    least = settings.get('min_bbox_size', -1)
    if least < 0:
        return boxes, *others
    kept = (boxes[:, 2:] - boxes[:, :2] > least).all(dim=1).nonzero().squeeze(1)
    return boxes[kept], *(other[kept] for other in others)


def _stages(parts: Any) -> nn.ModuleList:
    return nn.ModuleList(parts if isinstance(parts, nn.ModuleList | list) else [parts])


def _settings(test_cfg: Any) -> dict[str, Any]:
    settings = dict(test_cfg)
    kind = settings['nms'].get('type', 'nms')
    if kind != 'nms':
        raise UserError(f'{kind!r} is not the plain NMS, and only that can be exported')
    return settings


def _expect(part: Any, *types: type) -> None:
    if type(part) not in types:
        raise UserError(
            f'a {type(part).__name__} cannot be exported end to end: nobody has compared its graph with mmdet; '
            '--cut features leaves the head out'
        )
