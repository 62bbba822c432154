# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The paper's models on photographs: predictions are those of the test loop.

Nobody has weights here, so the heads are made to speak up: with their usual first weights a detector finds nothing.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from test_torch_backend import hold_against

from mmlightvit.inference.torch_backend import TorchModel, quiet
from mmlightvit.model_folder.describe import describe
from mmlightvit.toolboxes import build_model, import_toolbox

for toolbox in ('mmdet', 'mmpretrain', 'mmseg'):
    pytest.importorskip(toolbox)

#: Of each config, the last layer of its classifier, how wide its weights are spread, and what makes it quick.
MODELS = {
    'mask_rcnn_lightvit_t_1x': ('roi_head.bbox_head.fc_cls', 2.0, {'rpn.max_per_img': 200, 'rcnn.max_per_img': 20}),
    'lightvit_t_imagenet': ('head.fc', 0.1, {}),
    'upernet_lightvit_t_ade20k': ('decode_head.conv_seg', 0.5, {}),
}


def speaking(cfg: Config, layer: str, spread: float) -> torch.nn.Module:
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    with quiet():
        model = build_model(cfg)
        model.init_weights()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and 'backbone' not in name:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    torch.nn.init.normal_(model.get_submodule(layer).weight, std=spread)
    return model.eval()


@pytest.mark.parametrize(('count', 'part'), [(2, 4), pytest.param(10, 1, marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', MODELS)
def test_predictions_on_photographs_are_those_of_the_test_loop(repo, shared, name, count, part):
    """A few photographs made small; slow: more of them, at the size of the paper."""
    cfg = Config.fromfile(repo / 'configs' / f'{name}.py')
    layer, spread, quick = MODELS[name]
    if part > 1:
        cfg.merge_from_dict({f'model.test_cfg.{key}': value for key, value in quick.items()})
        for step in cfg.test_dataloader.dataset.pipeline:
            if step['type'] == 'Resize':
                step['scale'] = tuple(side // part for side in step['scale'])
    import_toolbox(cfg.default_scope)
    model = TorchModel(describe(cfg), speaking(cfg, layer, spread), torch.device('cpu'))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        steps = [step for step in cfg.test_dataloader.dataset.pipeline if step['type'] != 'LoadAnnotations']
        pipeline = Compose(steps)
        answers = set()
        for path in sorted((shared / 'data/coco/val2017').iterdir())[:count]:
            with torch.no_grad():
                sample = model.module.test_step(pseudo_collate([pipeline({'img_path': str(path), 'img_id': 0})]))[0]
            result = model.predict(path, score_thr=0)
            hold_against(result, sample)
            if result.boxes is not None:
                assert result.masks.areas().max() > 100
                answers |= set(result.labels.tolist())
            else:
                answers |= set(np.unique(result.label_map) if result.probs is None else result.top(5)[0][:1])
    assert len(answers) > 1 or result.probs is not None
