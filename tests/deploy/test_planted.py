# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Graphs that an exporter gets wrong without a word do not pass the verification."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from mmseg.models.utils import Upsample
from torch import nn
from torchvision.ops import nms

from mmlightvit.deploy.export_modules import TRACED
from mmlightvit.deploy.formats import open_file
from mmlightvit.deploy.formats.onnx import to_onnx
from mmlightvit.deploy.segmenter import OpenAdaptivePool, OpenUpsample
from mmlightvit.deploy.verify import verify_maps
from mmlightvit.errors import UserError

_OPEN = [{0: 'batch', 2: 'height', 3: 'width'}]


class Windows(nn.Module):
    """Pads to multiples of 7."""

    def __init__(self, rounded_up):
        super().__init__()
        self.rounded_up = rounded_up

    def forward(self, image):
        bottom, right = (self.rounded_up(length) - length for length in image.shape[2:])
        return F.pad(image, (0, right, 0, bottom))


class Boxes(nn.Module):
    """Boxes of the pixels' values, those kept by NMS; or those that NMS kept once."""

    def __init__(self, once=None):
        super().__init__()
        self.kept = None if once is None else nn.Buffer(self.keep(once))

    def forward(self, image):
        boxes = self.boxes(image)
        return boxes[self.keep(image) if self.kept is None else self.kept]

    def keep(self, image):
        return nms(self.boxes(image), image[0, 2].flatten()[:30], 0.3)

    @staticmethod
    def boxes(image):
        corner = image[0, :2].flatten(1)[:, :30].t() * 2
        return torch.cat([corner, corner + 2], dim=1)


def check(traced, truth, path):
    """The verification of a graph of ``traced`` as one of ``truth``."""
    graph = to_onnx(traced.eval(), (torch.randn(2, 3, *TRACED),), _OPEN, ['image'], ['out'])
    ir.save(graph, path)
    return verify_maps(truth, open_file(path).run)


def _pool(traced):
    pool = nn.AdaptiveAvgPool2d(3)
    return OpenAdaptivePool(pool) if traced else pool


PLANTED = {
    'upsampling': (Upsample(scale_factor=2), OpenUpsample(Upsample(scale_factor=2)), Upsample(scale_factor=2)),
    'pooling': (_pool(False), _pool(True), _pool(False)),
    'negative floor division': (
        Windows(lambda length: -(-length // 7) * 7),
        Windows(lambda length: (length + 6) // 7 * 7),
        Windows(lambda length: -(-length // 7) * 7),
    ),
    'nms': (Boxes(once=torch.randn(2, 3, *TRACED)), Boxes(), Boxes()),
}


@pytest.mark.parametrize('name', PLANTED)
def test_a_planted_graph_is_caught_and_ours_is_not(name, tmp_path):
    wrong, right, truth = PLANTED[name]
    assert len(check(right, truth, tmp_path / 'right.onnx')['verified']) >= 5
    with pytest.raises(UserError, match=r'the exported model is not the model|cannot be run'):
        check(wrong, truth, tmp_path / 'wrong.onnx')
