# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Which token serves which object: the numbers by hand, and a sheet for every kind of result."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmlightvit.errors import UserError
from mmlightvit.explain.attention import BlockMaps
from mmlightvit.explain.tokens import Thing, explain, serve
from mmlightvit.model_folder.info import InputSpec
from mmlightvit.models.backbones import LightViT
from mmlightvit.pictures.masks import Masks
from mmlightvit.pictures.result import Result

ARCH = dict(embed_dims=(16, 32), num_heads=(1, 2), num_blocks=(1, 1), ffn_ratios=(2, 2), num_global_tokens=4)


def thing(name: str, rows: slice) -> Thing:
    mask = np.zeros((32, 32), bool)
    mask[rows] = True
    return Thing(name, (0, 114, 178), mask)


@pytest.fixture
def maps():
    """Token 0 delivers to the upper half, token 1 to the lower, token 2 as token 0 does; token 3 to all alike."""
    upper = torch.zeros(4, 4)
    upper[:2] = 1
    broadcast = torch.stack([0.3 * upper + 0.1, 0.6 * (1 - upper) + 0.1, 0.3 * upper, torch.full((4, 4), 0.2)])
    aggregation = torch.stack([upper / 8, (1 - upper) / 8, upper / 8, torch.full((4, 4), 1 / 16)])
    return BlockMaps(2, 1, 8, aggregation[None], broadcast[None], None, None)


def test_lift_and_shares_by_hand(maps):
    found = serve(maps, [thing('roof', slice(0, 16)), thing('floor', slice(24, 32))], (32, 32))
    np.testing.assert_allclose(found.lift, [[0.4 / 0.25, 0.1 / 0.4, 2, 1], [0.1 / 0.25, 0.7 / 0.4, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(found.gathered, [[1, 0, 1, 0.5], [0, 0.5, 0, 0.25]], atol=1e-6)


def test_tokens_that_do_the_same_are_shown_once(maps):
    found = serve(maps, [thing('roof', slice(0, 16))], (32, 32))
    assert found.tokens[:2] == [2, 1]
    assert found.alike[0] == [0]


def test_padding_counts_for_nothing(maps):
    """Of a picture that fills the upper half of the input, every token has the lift 1."""
    found = serve(maps, [thing('all', slice(0, 32))], (16, 32))
    np.testing.assert_allclose(found.lift, 1, atol=1e-6)
    np.testing.assert_allclose(found.gathered[0, [0, 2, 3]], 1, atol=1e-6)


@pytest.mark.parametrize('kind', ['instance', 'detection', 'nothing', 'classification', 'segmentation'])
@pytest.mark.parametrize('shape', [(40, 60), (90, 30)])
def test_a_sheet_for_every_result(kind, shape):
    torch.manual_seed(0)
    height, width = shape
    backbone = LightViT(ARCH, window_size=4, patch_stride=4, out_indices=(0, 1)).eval()
    spec = InputSpec((0.0,) * 3, (255.0,) * 3, resize=dict(short=32, long=96), pad_multiple=16)
    model = SimpleNamespace(module=backbone, input=spec, device=torch.device('cpu'))
    image = np.random.RandomState(0).randint(0, 256, (height, width, 3), dtype=np.uint8)
    boxes = np.array([[2, 3, 20, 25], [5, 5, 5, 5]], np.float32)[: 0 if kind == 'nothing' else 2]
    found: dict = dict(boxes=boxes, scores=np.array([0.9, 0.8])[: len(boxes)], labels=np.array([0, 1])[: len(boxes)])
    if kind == 'instance':
        masks = np.zeros((2, height, width), bool)
        masks[0, 4:20, 3:12] = True
        found['masks'] = Masks.from_dense(masks)
    elif kind == 'classification':
        found = dict(probs=np.array([0.25, 0.75]))
    elif kind == 'segmentation':
        found = dict(label_map=np.arange(width)[None].repeat(height, 0) * 2 // width)
    task = 'instance' if kind == 'nothing' else kind
    result = Result(task, ('cat', 'dog'), height, width, path='a/b.jpg', image=image, **found)
    sheet = explain(model, result)
    assert sheet.dtype == np.uint8
    assert min(sheet.shape[:2]) > 300
    assert sheet.shape[1] > sheet.shape[0]
    with pytest.raises(UserError, match='keep_image'):
        explain(model, Result(task, ('cat', 'dog'), height, width, **found))
