# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Run-length codes against COCO's own, outlines against the pixels they enclose."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.ndimage import label

from mmlightvit.pictures.masks import Masks, decode, encode, paste


def blob(rng: np.random.RandomState, height: int, width: int) -> np.ndarray:
    """Parts, holes and touching corners in every share of pixels."""
    cells = rng.rand(height // 3 + 1, width // 3 + 1).repeat(3, 0).repeat(3, 1)[:height, :width]
    return (cells if rng.rand() < 0.5 else rng.rand(height, width)) < rng.choice([0, 0.1, 0.5, 0.9, 1])


def shoelace(loop: np.ndarray) -> float:
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(loop, np.roll(loop, -1, axis=0))) / 2


@pytest.fixture(scope='module')
def masks() -> list[np.ndarray]:
    rng = np.random.RandomState(0)
    return [blob(rng, *rng.randint(1, 40, 2)) for _ in range(200)]


def test_codes_are_those_of_coco(masks):
    coco = pytest.importorskip('pycocotools.mask')
    for mask in masks:
        expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))['counts'].decode()
        assert encode(mask) == expected
        np.testing.assert_array_equal(decode(expected, *mask.shape), mask)


def test_large_runs_come_back():
    mask = np.zeros((3000, 4000), bool)
    mask[10:2990, 5:3990] = True
    assert (decode(encode(mask), 3000, 4000) == mask).all()


def test_a_part_of_a_picture_is_coded_as_the_whole(masks):
    for mask in masks:
        whole = np.zeros((mask.shape[0] + 7, mask.shape[1] + 11), bool)
        whole[3:-4, 5:-6] = mask
        assert encode(mask, (3, 5), whole.shape) == encode(whole)


def test_areas_windows_and_selection(masks):
    for mask in masks:
        stack = np.stack([mask, ~mask])
        coded = Masks.from_dense(stack)
        np.testing.assert_array_equal(coded.dense(), stack)
        np.testing.assert_array_equal(coded.areas(), stack.sum(axis=(1, 2)))
        assert coded[np.array([False, True])] == coded[1:] == coded[[1]] == Masks.from_dense(stack[1:])
        window, top, left = coded.window(0)
        placed = np.zeros_like(mask)
        placed[top : top + window.shape[0], left : left + window.shape[1]] = window
        np.testing.assert_array_equal(placed, mask)


def test_boxes_only_save_looking():
    mask = np.zeros((1, 50, 60), bool)
    mask[0, 10:20, 30:44] = True
    assert Masks.from_dense(mask, np.array([[30.4, 10.2, 43.6, 19.7]])) == Masks.from_dense(mask)


def test_outlines_enclose_exactly_the_pixels(masks):
    for mask in masks:
        coded = Masks.from_dense(mask[None])
        outer, holes = coded.outlines(0)
        assert all(shoelace(loop) > 0 for loop in outer)
        assert all(shoelace(loop) < 0 for loop in holes)
        assert len(outer) == label(mask)[1]
        assert sum(map(shoelace, outer + holes)) == mask.sum()
        (polygon,) = coded.polygons()
        assert len(polygon) == 0 or shoelace(polygon) == pytest.approx(mask.sum())


def test_outlines_drawn_by_coco_are_the_mask(masks):
    coco = pytest.importorskip('pycocotools.mask')
    for mask in masks:
        outer, holes = Masks.from_dense(mask[None]).outlines(0)
        if not outer or holes:
            continue
        codes = coco.frPyObjects([loop.ravel().tolist() for loop in outer], *mask.shape)
        np.testing.assert_array_equal(coco.decode(coco.merge(codes)).astype(bool), mask)


def test_holes_are_bridged_dropped_or_refused():
    ring = np.ones((1, 9, 9), bool)
    ring[0, 3:6, 3:6] = False
    masks = Masks.from_dense(ring)
    with pytest.warns(UserWarning, match='1 holes and further parts'):
        (dropped,) = masks.polygons(holes='drop')
    assert shoelace(dropped) == 81
    assert shoelace(masks.polygons()[0]) == 72
    with pytest.raises(ValueError, match='1 parts and 1 holes'):
        masks.polygons(holes='error')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert shoelace(Masks.from_dense(np.ones((1, 4, 5), bool)).polygons(holes='drop')[0]) == 20


def test_maps_are_pasted_as_mmdet_pastes_them():
    torch = pytest.importorskip('torch')
    mask_head = pytest.importorskip('mmdet.models.roi_heads.mask_heads.fcn_mask_head')
    rng = np.random.RandomState(1)
    small = rng.rand(30, 28, 28).astype(np.float32)
    boxes = np.sort(rng.rand(30, 2, 2) * [200, 150], axis=1).reshape(30, 4).astype(np.float32)
    boxes[0] = 0, 0, 200, 150
    boxes[1] = 20.25, 30.25, 20.25, 60.5  # without width
    for index in range(30):  # each alone, as on a CPU
        expected, (rows, columns) = mask_head._do_paste_mask(
            torch.from_numpy(small[index, None, None]), torch.from_numpy(boxes[index, None]), 150, 200, skip_empty=True
        )
        whole = np.zeros((150, 200), bool)
        whole[rows, columns] = expected[0].numpy() >= 0.5
        mine = paste(small[index, None], boxes[index, None], 150, 200)[0]
        assert (mine != whole).sum() <= 1  # a probability of one half, to the last bit
