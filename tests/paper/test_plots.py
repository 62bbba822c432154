# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Plots draw the numbers they are given."""

from __future__ import annotations

import pytest
from PIL import Image
from plots import plot_accuracy, plot_stages, published_points, read_measured
from stages import StageSpeed

from mmlightvit.errors import UserError


def _is_picture(path):
    with Image.open(path) as picture:
        return min(picture.size) > 200


def test_published_points_are_those_of_table_3():
    points = {point.name: point for point in published_points()}
    assert len(points) == 19
    tiny = points['LightViT-T']
    assert (tiny.kind, tiny.top1) == ('ours', 78.7)
    assert dict(tiny.cost) == dict(flops=0.7, params=9.4, throughput=2578.0)
    assert points['Swin-T'].kind == 'Transformer' and points['RegNetY-4G'].kind == 'CNN'


def test_measured_points_join_the_plot(tmp_path):
    (tmp_path / 'mine.csv').write_text('name,top1,flops,params,throughput\nmine,75.5,0.5,,900\n')
    (point,) = read_measured(tmp_path / 'mine.csv')
    assert (point.name, point.top1, dict(point.cost)) == ('mine', 75.5, dict(flops=0.5, throughput=900.0))
    plot_accuracy([*published_points(), point], tmp_path / 'figure.png')
    assert _is_picture(tmp_path / 'figure.png')


@pytest.mark.parametrize('text, words', [
    ('name,top1\nmine,75\n', 'expected the columns name, top1 and at least one of'),
    ('', 'got nothing'),
    ('name,top1,flops\nmine,high,1\n', 'line 2: expected numbers'),
])  # fmt: skip
def test_a_wrong_csv(tmp_path, text, words):
    (tmp_path / 'mine.csv').write_text(text)
    with pytest.raises(UserError, match=words):
        read_measured(tmp_path / 'mine.csv')


def test_stages_are_drawn(tmp_path):
    plot_stages([StageSpeed('stem', 10**8, 0.02), StageSpeed('stage 1', 10**9, 0.1)], tmp_path / 'stages.png', 'title')
    assert _is_picture(tmp_path / 'stages.png')
