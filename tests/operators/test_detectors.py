# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""mmdet's own detectors with LightViT in front learn by the operators that stand in for mmcv's, and predict."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip('mmdet')

from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from operator_cases import extension, stand_in
from variants import FOUR_STAGES, TEST_ARCH

from mmlightvit.toolboxes import import_toolbox

SMALL = dict(type='mmlightvit.LightViT', arch=TEST_ARCH, out_indices=(0, 1, 2))
PYRAMID = dict(type='mmlightvit.LightViTFPN', in_channels=[8, 16, 32], out_channels=32)
FEW = {'num_layers': 1}
#: What becomes of mmdet's widths and numbers of boxes; half a width is an encoding's number of features.
SMALLER = {2048: 64, 1024: 64, 512: 32, 256: 32, 2000: 100, 1000: 50}
#: Config of mmdet, and what becomes of its model.
DETECTORS = {
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py': dict(backbone=SMALL, neck=dict(in_channels=[8, 16, 32])),
    'dino/dino-4scale_r50_8xb2-12e_coco.py': dict(
        backbone=SMALL,
        neck=dict(in_channels=[8, 16, 32]),
        num_queries=20,
        encoder=FEW,
        decoder=FEW,
        bbox_head=dict(embed_dims=32),
    ),
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': dict(
        backbone=dict(type='mmlightvit.LightViT', arch=FOUR_STAGES, patch_stride=4, out_indices=(0, 1, 2, 3)),
        panoptic_head=dict(in_channels=[8, 8, 16, 16], num_queries=20),
        data_preprocessor=dict(batch_augments=None),
    ),
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py': dict(backbone=SMALL, neck=PYRAMID),
    'retinanet/retinanet_r50_fpn_1x_coco.py': dict(
        backbone=SMALL, neck=dict(PYRAMID, num_transposed=0, extra_convs_on='input'), bbox_head=dict(
            anchor_generator=dict(strides=[8, 16, 32, 64, 128]))
    ),
    'solov2/solov2_r50_fpn_1x_coco.py': dict(backbone=SMALL, neck=PYRAMID),
    'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py': dict(backbone=SMALL, neck=PYRAMID),
}  # fmt: skip


def whole(part: dict) -> dict:
    """A part that names its type takes the place of the config's."""
    changed = {key: whole(value) if isinstance(value, dict) else value for key, value in part.items()}
    return {**changed, '_delete_': True} if 'type' in part else changed


def small(part: Any) -> Any:
    """A part of a config in small."""
    if isinstance(part, dict):
        return {key: 16 if key == 'num_feats' else small(value) for key, value in part.items()}
    if isinstance(part, (list, tuple)):
        return type(part)(map(small, part))
    return SMALLER.get(part, part) if isinstance(part, int) else part


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', DETECTORS)
def test_a_detector_learns_and_predicts(name):
    import_toolbox('mmdet')
    from mmdet.testing import demo_mm_inputs

    cfg = Config({'model': small(get_config(f'mmdet::{name}').model.to_dict())})
    cfg.merge_from_dict({'model': whole(DETECTORS[name])})
    with extension(stand_in()), DefaultScope.overwrite_default_scope('mmdet'):
        torch.manual_seed(0)
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        losses = []
        for _ in range(4):
            sizes = [[3, 96, 128], [3, 128, 96]]
            with_mask = not name.startswith('rtmdet')  # its assigner takes the centres of masks, if they are tensors
            data = demo_mm_inputs(2, sizes, num_classes=80, with_mask=with_mask)
            _, log = model.parse_losses(model(**model.data_preprocessor(data, True), mode='loss'))
            losses.append(float(log['loss']))
            optimizer.zero_grad()
            log['loss'].backward()
            optimizer.step()
        still = [key for key, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
        assert losses[-1] < losses[0], losses
        assert all('backbone' not in key and 'neck' not in key for key in still), still
        model.eval()
        with torch.no_grad():
            first, second = model(**model.data_preprocessor(data, False), mode='predict')
        assert first.pred_instances.bboxes.isfinite().all() and second.pred_instances.scores.isfinite().all()
