# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The stem and the stages of a backbone, timed inside of it."""

from __future__ import annotations

import csv
import io

import pytest
from stages import StageSpeed, measure_stages, stage_cells
from steps import Case
from torch import nn
from variants import TEST_ARCH

from mmlightvit.cost.counting import count
from mmlightvit.cost.tables import render
from mmlightvit.errors import UserError
from mmlightvit.models.backbones import LightViT


def test_stages_are_timed_one_by_one():
    backbone = LightViT(TEST_ARCH)
    parts = measure_stages(backbone, Case(batch=2, height=64, width=64), rounds=2)
    assert [part.name for part in parts] == ['stem', 'stage 1', 'stage 2', 'stage 3']
    assert sum(part.macs for part in parts) == count(backbone, (64, 64)).macs
    assert all(part.seconds > 0 and part.efficiency == pytest.approx(part.macs * part.throughput) for part in parts)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.modules())


def test_table():
    headers, *rows = csv.reader(io.StringIO(render(*stage_cells([StageSpeed('stem', 10**9, 0.02)]), 'csv')))
    assert rows == [['stem', '1000000000', '0.02', '50', '5e+10']] and len(headers) == 5


def test_another_model():
    with pytest.raises(UserError, match='stages: expected a LightViT, got a Conv2d'):
        measure_stages(nn.Conv2d(3, 4, 1), Case())
