# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The form that is exported computes what the backbone does, for all of its switches and for any size."""

from __future__ import annotations

import onnx_ir as ir
import oracles
import pytest
import torch
from variants import SWITCHES, TEST_ARCH

from mmlightvit.deploy.export_modules import Backbone
from mmlightvit.deploy.graph import to_onnx
from mmlightvit.deploy.runtime import open_file
from mmlightvit.deploy.verify import TRACED, verify_maps
from mmlightvit.deploy.window_order import WindowGrid, in_window_order
from mmlightvit.models.backbones import LightViT


@pytest.mark.parametrize(('height', 'width', 'window'), [(14, 21, 7), (9, 16, 7), (3, 4, 7), (1, 1, 7), (11, 5, 3)])
def test_order_of_tokens(height, width, window):
    """Against a loop over windows and cells."""
    grid = WindowGrid(height, width, window)
    tokens = torch.arange(1, height * width + 1).float().view(1, -1, 1)
    want = []
    for top in range(0, height, window):
        for left in range(0, width, window):
            for y in range(top, top + window):
                for x in range(left, left + window):
                    want.append(y * width + x + 1 if y < height and x < width else 0)
    ordered = grid.order(tokens)
    real = torch.ones(len(want), 1) if grid.real is None else grid.real
    assert (ordered * real).flatten().tolist() == want
    assert real.flatten().tolist() == [float(value > 0) for value in want]
    assert torch.equal(grid.raster(ordered), tokens)
    halved = grid.halved()
    assert (halved.height, halved.width) == ((height + 1) // 2, (width + 1) // 2)
    cells = grid.cells(ordered, halved)
    merged = torch.nn.functional.pad(tokens.view(height, width), (0, width % 2, 0, height % 2))
    for y in range(halved.height):
        for x in range(halved.width):
            place = int(halved.place(torch.tensor(y), torch.tensor(x)))
            group = merged[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            assert cells[0, place, :, 0].tolist() == [float(group[i]) for i in ((0, 0), (1, 0), (0, 1), (1, 1))]


def proven(backbone, path, example=TRACED):
    """The certificate of a backbone's graph."""
    oracles.scramble(backbone).eval()
    outputs = [f'stage{i}' for i in backbone.out_indices]
    dynamic = [{0: 'batch', 2: 'height', 3: 'width'}]
    module = Backbone(backbone)
    ir.save(to_onnx(in_window_order(module), (torch.randn(2, 3, *example),), dynamic, ['image'], outputs), path)
    return verify_maps(module, open_file(path).run)


@pytest.mark.parametrize('out_type', ['featmap', 'tokens'])
def test_backbone(out_type, tmp_path):
    assert proven(LightViT(TEST_ARCH, out_type=out_type), tmp_path / 'model.onnx')['verified']


@pytest.mark.slow
@pytest.mark.parametrize('name', SWITCHES)
def test_switches(name, tmp_path):
    assert proven(LightViT(TEST_ARCH, **SWITCHES[name]), tmp_path / 'model.onnx')['verified']
