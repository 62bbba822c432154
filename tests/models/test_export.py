# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""torch.export with dynamic batch, height and width gives the eager outputs at other sizes than the example's."""

from __future__ import annotations

import oracles
import pytest
import torch
from torch import nn

from mmlightvit.models.backbones import LightViT

# Batch, height, width: whole windows, padded ones, one window, one row, and odd grids.
SIZES = [(2, 112, 112), (3, 100, 130), (2, 56, 56), (4, 224, 112), (2, 64, 300), (5, 33, 57), (2, 300, 225)]


def export(model, example):
    """Without guards on memory layout: they refuse sizes (one window, whole windows) that the graph gets right."""
    dynamic = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        program = torch.export.export(model, (example,), dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},))
    return program.module(check_guards=False)


@pytest.mark.parametrize('form', [pytest.param('featmap', marks=pytest.mark.slow), 'classifier'])
def test_exported_equals_eager(form):
    if form == 'featmap':
        model = LightViT('test')
    else:
        model = nn.Sequential(LightViT('test', out_type='raw', out_indices=(2,)), oracles.PlainHead(5, 32, 16))
    oracles.scramble(model).eval()
    # More than one window in each stage, or torch takes the one for a constant.
    exported = export(model, torch.randn(2, 3, 300, 460))
    for size in SIZES:
        image = torch.randn(size[0], 3, *size[1:])
        with torch.no_grad():
            got, want = exported(image), model(image)
        for a, b in zip(*([x] if isinstance(x, torch.Tensor) else x for x in (got, want)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda text, size=size: f'{size}: {text}')
    operators = {str(node.target) for node in exported.graph.nodes}
    assert not [name for name in operators if 'mkldnn' in name]
