# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The traceable detectors give mmdet's own predictions, for padded pictures too."""

from __future__ import annotations

import minute
import pytest
import torch
from mmdet.structures import DetDataSample
from variants import TEST_ARCH

from mmlightvit.deploy.detector import detector
from mmlightvit.errors import UserError

CONFIGS = ['mask_rcnn_lightvit_t_1x', 'cascade_mask_rcnn_lightvit_t_3x', 'retinanet_lightvit_t_1x']
# Height and width of the picture, and of the padded input.
SIZES = [(96, 160, 96, 160), (90, 150, 96, 160), (201, 333, 224, 352)]


@pytest.mark.filterwarnings('ignore:To copy construct from a tensor:UserWarning')
@pytest.mark.parametrize('config', CONFIGS)
def test_predictions_are_those_of_mmdet(config):
    model = minute.model(config, TEST_ARCH).module
    ours = detector(model).eval()
    classes = set()
    for height, width, *padded in SIZES:
        image = torch.randn(1, 3, *padded, generator=torch.Generator().manual_seed(height))
        meta = dict(ori_shape=(height, width), img_shape=(height, width), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=dict(meta, img_id=0, pad_shape=padded, batch_input_shape=padded))
        with torch.no_grad():
            want = model(image, [sample], mode='predict')[0].pred_instances
            dets, labels, *masks = ours(image, torch.tensor([height, width]))
        assert len(want) > 5
        classes.update(want.labels.tolist())
        assert torch.equal(labels, want.labels)
        torch.testing.assert_close(dets[:, :4], want.bboxes, rtol=0, atol=1e-4)
        torch.testing.assert_close(dets[:, 4], want.scores, rtol=0, atol=1e-6)
        assert len(masks) == int('mask' in config)
        assert all(mask.shape == (len(want), 28, 28) for mask in masks)
    assert len(classes) > 1


def test_parts_that_nobody_has_compared_are_refused():
    model = minute.model('mask_rcnn_lightvit_t_1x').module
    model.roi_head.test_cfg.nms.type = 'soft_nms'
    with pytest.raises(UserError, match='soft_nms'):
        detector(model)
    with pytest.raises(UserError, match='a Linear cannot be exported end to end'):
        detector(torch.nn.Linear(1, 1))
