# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The sheet of predictions: each stands beside its truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from contact_sheet import contact_sheet
from PIL import Image

from mmlightvit.errors import UserError
from mmlightvit.pictures.result import Result

GREY = np.full((320, 320, 3), 128, np.uint8)
EMPTY = Result('detection', ('disk',), 320, 320, boxes=np.empty((0, 4), np.float32), labels=np.empty(0, np.int64),
               scores=np.empty(0, np.float32), image=GREY)  # fmt: skip
FOUND = replace(
    EMPTY,
    boxes=np.array([[100, 100, 220, 220]], np.float32),
    labels=np.zeros(1, np.int64),
    scores=np.ones(1, np.float32),
)


def coloured_columns(path: Path) -> np.ndarray:
    """Which columns of a picture hold a colour that is no grey."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert('RGB')).astype(int)
    return (np.ptp(pixels, axis=2) > 60).any(axis=0)


@pytest.mark.parametrize(('truth', 'found'), [(FOUND, EMPTY), (EMPTY, FOUND)], ids=['missed', 'made up'])
def test_truth_is_on_the_left_and_the_prediction_on_the_right(tmp_path: Path, truth: Result, found: Result) -> None:
    contact_sheet([(truth, found)], tmp_path / 'sheet.png')
    columns = coloured_columns(tmp_path / 'sheet.png')
    left, right = np.array_split(columns, 2)
    assert (left.any(), right.any()) == (len(truth) == 1, len(found) == 1)


def test_label_maps_stand_beside_theirs(tmp_path: Path) -> None:
    ground = np.zeros((320, 320), np.uint8)
    found = Result('segmentation', ('ground', 'disk'), 320, 320, label_map=ground, image=GREY)
    for values, differs in (({}, False), ({0: 1}, True), ({0: 255}, True)):  # 255 is ignored, and black
        truth = replace(found, label_map=np.full_like(ground, values.get(0, 0)))
        contact_sheet([(truth, found)], tmp_path / 'sheet.png')
        with Image.open(tmp_path / 'sheet.png') as image:
            rows = np.asarray(image.convert('RGB'))[:320].astype(int)
        left, right = rows[:, : rows.shape[1] // 2], rows[:, -(rows.shape[1] // 2) :]
        middle = slice(100, 140)  # under no name and no line
        assert (np.abs(left[middle, middle] - right[middle, middle]).max() > 30) == differs


def test_a_sheet_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='no predictions'):
        contact_sheet([], tmp_path / 'sheet.png')
