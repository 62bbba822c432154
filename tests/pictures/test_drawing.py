# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The renderer: where lines, masks and labels are, and that letters can be read."""

from __future__ import annotations

import numpy as np
import pytest
from inference.results import CLASSES, result

from mmlightvit.errors import UserError
from mmlightvit.pictures.colours import COLOURS, colour_of
from mmlightvit.pictures.drawing import Canvas, enlargement, line_width, sheet
from mmlightvit.pictures.masks import Masks
from mmlightvit.pictures.result import Result


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def one_box(box, height=200, width=300, label=0, masks=None) -> Result:
    boxes, scores = np.array([box], np.float32), np.array([0.87], np.float32)
    found = dict(boxes=boxes, scores=scores, labels=np.array([label]), masks=masks)
    return Result('instance' if masks else 'detection', CLASSES, height, width, image=grey(height, width), **found)


def test_lines_grow_with_the_picture():
    assert (line_width(60, 80), line_width(480, 640), line_width(3000, 4000)) == (2, 2, 10)
    drawn = one_box((50, 60, 150, 160)).draw()
    changed = (drawn != 128).any(axis=2)
    assert changed[60:160, 50:52].all()
    assert changed[158:160, 50:150].all()
    assert not changed[62:158, 52:148].any()
    assert (drawn[100, 50] == colour_of(0)).all()


def test_masks_are_blended_with_an_outline():
    mask = np.zeros((1, 200, 300), bool)
    mask[0, 60:160, 50:150] = True
    drawn = one_box((50, 60, 150, 160), masks=Masks.from_dense(mask)).draw()
    expected = np.rint(0.55 * 128 + 0.45 * np.array(colour_of(0)))
    assert np.abs(drawn[110, 100] - expected).max() <= 1
    assert (drawn[200 - 20, 20] == 128).all()


@pytest.mark.parametrize('box', [(0, 0, 20, 15), (280, 190, 300, 200), (0, 0, 300, 200), (150, 100, 150, 100)])
def test_labels_stay_inside(box):
    drawn = one_box(box).draw()
    canvas = Canvas(grey(200, 300))
    canvas.box_label('cat 0.87', box, colour_of(0))
    ((left, top, right, bottom),) = canvas._taken
    assert left >= 0
    assert top >= 0
    assert right <= 300
    assert bottom <= 200
    assert drawn.shape == (200, 300, 3)


def test_labels_keep_off_each_other():
    canvas = Canvas(grey(400, 600))
    for _ in range(4):
        canvas.box_label('cat 0.87', (200, 150, 320, 250), colour_of(0))
    for index, (left, top, right, bottom) in enumerate(canvas._taken):
        for other in canvas._taken[:index]:
            assert min(right, other[2]) <= max(left, other[0]) or min(bottom, other[3]) <= max(top, other[1])


def test_letters_stand_out_from_every_colour():
    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(colour) / 255]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    for colour in COLOURS:
        canvas = Canvas(grey(60, 300))
        canvas.corner_label('Mmm 0.87', colour)
        pixels = canvas.pixels()[: int(canvas._taken[0][3]), : int(canvas._taken[0][2])].reshape(-1, 3)
        letters = pixels[np.abs(pixels.astype(int) - colour).sum(axis=1).argmax()]
        low, high = sorted([luminance(letters), luminance(colour)])
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_colours_are_of_classes_and_repeat():
    assert len(set(COLOURS)) == len(COLOURS) == 27
    assert colour_of(28) == colour_of(1)
    assert colour_of(1, [(1, 2, 3), (4, 5, 6)]) == (4, 5, 6)


def test_a_name_stands_in_its_region():
    label_map = np.zeros((200, 300), np.uint8)
    label_map[100:, 200:] = 1
    found = Result('segmentation', CLASSES, 200, 300, label_map=label_map, image=grey(200, 300))
    drawn = found.draw()
    solid = (drawn == colour_of(1)).all(axis=2)
    ys, xs = np.nonzero(solid)
    assert ys.min() >= 100
    assert xs.min() >= 200


def test_ignored_pixels_are_black_and_have_no_share():
    label_map = np.full((200, 300), 255, np.uint8)
    label_map[:100] = 1
    found = Result('segmentation', CLASSES, 200, 300, label_map=label_map, image=grey(200, 300))
    assert (found.draw()[100:] == 0).all()
    assert (found.draw()[:100] > 0).any(axis=2).mean() > 0.9
    assert found.shares() == [('dog', 20000 * 3 // 2, 1.0)]


def test_a_labelled_picture_has_the_name_of_its_class():
    labelled = Result('classification', CLASSES, 200, 300, labels=np.array([1]), image=grey(200, 300))
    assert (labelled.draw()[1, 1] == colour_of(1)).all()
    assert (labelled.draw()[100:] == 128).all()


def test_small_pictures_are_enlarged_to_be_read():
    assert enlargement(28, 28) == 18
    assert enlargement(480, 640) == 1
    drawn = result().draw(legible=True)
    assert drawn.shape == (360, 480, 3)


def test_pictures_side_by_side():
    made = sheet([(grey(60, 80), 'first'), (grey(120, 80), ''), (grey(60, 80), 'third')], columns=2, side=160)
    assert made.shape[1] == 2 * (160 + 8) + 8
    assert made.shape[0] == (240 + 24 + 8) + (120 + 24 + 8) + 8
    assert (made[8, 8] == 128).all()


def test_without_a_picture():
    with pytest.raises(UserError, match='keep_image'):
        result(image=None).draw()


def test_the_picture_of_a_result_stays_as_it_is():
    found = result()
    before = found.image.copy()
    found.draw()
    np.testing.assert_array_equal(found.image, before)
