# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Minute models of every kind that can be exported, with weights that find something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import oracles
import torch
from mmengine.config import Config
from variants import TEST_ARCH

from mmlightvit.inference.torch_backend import TorchModel
from mmlightvit.model_folder.describe import describe
from mmlightvit.toolboxes import build_model, import_toolbox

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
#: Tracing a block takes seconds, and a stage's blocks are alike.
_ARCH = {**TEST_ARCH, 'num_blocks': [1, 1, 1]}
_WIDTHS = list(_ARCH['embed_dims'])
_NUM_CLASSES = 5


def model(config: str, arch: dict = _ARCH) -> TorchModel:
    """The model of a config in a minute architecture; its pictures are made 96 pixels high."""
    cfg = Config.fromfile(CONFIGS / f'{config}.py')
    import_toolbox(cfg.default_scope)
    cfg.model.backbone.update(arch=arch, init_cfg=None)
    {'mmpretrain': _classifier, 'mmdet': _detector, 'mmseg': _segmenter}[cfg.default_scope](cfg.model)
    info = describe(cfg, {'classes': [f'class {i}' for i in range(_NUM_CLASSES)], 'palette': None})
    resize = {'short': 112, 'long': 160} if cfg.default_scope == 'mmdet' else {'short': 112}
    crop = (96, 96) if info.input.crop else None
    info = replace(info, input=replace(info.input, resize=resize, crop=crop))
    module = oracles.scramble(build_model(cfg))
    if cfg.default_scope == 'mmdet':
        _find_something(module)
    return TorchModel(info, module, torch.device('cpu'))


def _classifier(cfg):
    cfg.head.update(num_classes=_NUM_CLASSES, in_channels=_WIDTHS[-1], hidden_channels=16)


def _detector(cfg):
    cfg.neck.update(in_channels=_WIDTHS, out_channels=16)
    if 'rpn_head' not in cfg:
        cfg.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1, num_classes=_NUM_CLASSES)
        return
    roi_head = cfg.roi_head
    cfg.rpn_head.update(in_channels=16, feat_channels=16)
    for head in roi_head.bbox_head if isinstance(roi_head.bbox_head, list) else [roi_head.bbox_head]:
        head.update(in_channels=16, fc_out_channels=32, num_classes=_NUM_CLASSES)
        if 'conv_out_channels' in head:
            head.update(conv_out_channels=16, num_shared_convs=1, norm_cfg=dict(type='BN'))
    roi_head.mask_head.update(in_channels=16, conv_out_channels=16, num_convs=1, num_classes=_NUM_CLASSES)
    roi_head.bbox_roi_extractor.out_channels = roi_head.mask_roi_extractor.out_channels = 16
    cfg.test_cfg.rpn.update(nms_pre=100, max_per_img=50)
    cfg.test_cfg.rcnn.max_per_img = 50


def _segmenter(cfg):
    if cfg.get('neck') is not None:
        cfg.neck.update(in_channels=_WIDTHS, out_channels=16)
        cfg.decode_head.update(in_channels=[16] * 4)
    else:
        cfg.decode_head.update(in_channels=_WIDTHS)
    cfg.decode_head.update(channels=16, num_classes=_NUM_CLASSES, norm_cfg=dict(type='BN'))
    cfg.auxiliary_head = None


def _find_something(module):
    """Scores that differ and are not at their limits, several classes, and boxes of the order of their anchors."""
    generator = torch.Generator().manual_seed(1)
    spreads = {'fc_cls': 2.0, 'fc_reg': 0.05, 'retina_cls': 0.1, 'retina_reg': 0.02, 'rpn_cls': 0.1, 'rpn_reg': 0.02}
    for name, value in module.named_parameters():
        for part, spread in spreads.items():
            if part in name:
                value.data.normal_(0, 0.0 if name.endswith('bias') else spread, generator=generator)
