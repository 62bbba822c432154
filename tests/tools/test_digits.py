# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The digits data sets: what is drawn, what is labelled, and when it is drawn again."""

import json
from dataclasses import replace
from pathlib import Path

import digits
import numpy as np
import pytest
from digits import CLASSES, DigitsSettings, Scans, draw_scene, glyph, prepare, run_lengths
from PIL import Image
from sklearn.datasets import load_digits

from mmlightvit.errors import UserError

SMALL = DigitsSettings(num_train=8, num_val=4)


def decode(code: dict, height: int, width: int) -> np.ndarray:
    """Column-order run lengths, decoded by walking over the pixels."""
    mask = np.zeros((height, width), dtype=bool)
    position, value = 0, False
    for count in code['counts']:
        for _ in range(count):
            mask[position % height, position // height] = value
            position += 1
        value = not value
    assert position == height * width
    return mask


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*')) if path.is_file()}


@pytest.mark.parametrize('seed', [0, 1])
def test_train_and_val_share_no_scan_and_together_are_all(seed):
    train, val = (Scans.load(split, seed) for split in ('train', 'val'))
    everything = load_digits().images
    assert len(train.labels) + len(val.labels) == len(everything)
    as_rows = [{image.tobytes() for image in scans.images} for scans in (train, val)]
    assert not as_rows[0] & as_rows[1]
    assert set(train.labels) == set(val.labels) == set(range(10))


def test_scans_of_another_seed_are_split_differently():
    assert not np.array_equal(Scans.load('val', 0).images, Scans.load('val', 1).images)


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="got 'test'"):
        Scans.load('test')


@pytest.mark.parametrize('height', [8, 45, 96])
def test_glyph_has_the_height_asked_for_and_follows_the_ink(height):
    scans = Scans.load('train')
    for scan in scans.images[:20]:
        alpha = glyph(scan, height)
        # The stroke's edge lies inside the outermost cell with ink, whose size is height / 8 or a little more.
        assert height * 0.7 <= alpha.shape[0] <= height * 1.15 + 1
        assert alpha.min() >= 0 and alpha.max() <= 1
        solid = alpha >= 0.5
        assert solid[[0, -1]].any(axis=1).all() and solid[:, [0, -1]].any(axis=0).all()
    # Bolder strokes hold the thinner ones.
    assert (glyph(scans.images[0], 80, 0.2) >= 0.5).sum() > (glyph(scans.images[0], 80, 0.6) >= 0.5).sum()
    # The middle of a ring is open, the middle of a bar is ink.
    zero, one = (scans.images[scans.labels == label].mean(axis=0) for label in (0, 1))
    middle = glyph(zero, 80)
    assert middle[middle.shape[0] // 2, middle.shape[1] // 2] == 0
    middle = glyph(one, 80)
    assert middle[middle.shape[0] // 2, middle.shape[1] // 2] == 1


def test_masks_are_the_visible_strokes():
    settings = replace(SMALL, min_digits=4, max_digits=6, min_height=30, max_height=60)
    scans = Scans.load('train')
    hidden = 0
    for seed in range(25):
        # The same stream without digits: what differs from it is covered by a mask, but for soft edges.
        scene = draw_scene(np.random.default_rng(seed), scans, settings)
        canvas = np.round(digits.texture(np.random.default_rng(seed), settings.image_size) * 255)
        covered = scene.masks.any(axis=0)
        change = np.abs(scene.image.astype(float) - canvas).max(axis=2) / 255
        # Outside are the soft edges alone; inside is a colour that stands out.
        assert (change[~covered] > 0.4).mean() < 0.01
        assert (change[covered] > 0.1).mean() > 0.9
        assert scene.masks.sum(axis=0).max() == 1, 'two masks share a pixel'
        assert scene.masks.any(axis=(1, 2)).all()
        for mask, (left, top, width, height) in zip(scene.masks, scene.boxes):
            rows, columns = np.nonzero(mask)
            assert (rows.min(), columns.min()) == (top, left)
            assert (rows.max(), columns.max()) == (top + height - 1, left + width - 1)
        dense = scene.dense_labels
        for label, mask in zip(scene.labels, scene.masks):
            assert (dense[mask] == label + 1).all()
        assert (dense[~covered] == 0).all()
        hidden += int(len(scene.labels) > 1)
    assert hidden > 10


def test_every_digit_keeps_most_of_its_strokes(monkeypatch):
    whole = []

    def record(scan, height, level):
        alpha = glyph(scan, height, level)
        whole.append(int((alpha >= 0.5).sum()))
        return alpha

    monkeypatch.setattr(digits, 'glyph', record)
    settings = replace(SMALL, min_digits=2, max_digits=2, min_height=60, max_height=60, min_visible=0.9)
    scans = Scans.load('train')
    overlapped = 0
    for seed in range(40):
        whole.clear()
        scene = draw_scene(np.random.default_rng(seed), scans, settings)
        area = scene.masks[0].sum()
        assert area >= 0.9 * whole[0]
        overlapped += int(area < whole[0])
    assert overlapped, 'no digit was hidden in part, so the rule was not tried'


def test_variation_changes_train_alone(tmp_path):
    for name, variation in (('as they are', 0.0), ('varied', 1.0)):
        prepare('classification', tmp_path / name, replace(SMALL, max_digits=1, variation=variation))
    plain, varied = (contents(tmp_path / name) for name in ('as they are', 'varied'))
    changed = {path for path in plain if plain[path] != varied[path]} - {'digits.json'}
    assert changed == {path for path in plain if path.startswith('train')}


def test_a_turned_glyph_leans():
    scan = np.zeros((8, 8), np.float32)
    scan[:, 3:5] = 1
    upright, turned, slanted = (glyph(scan, 80, **kwargs) >= 0.5 for kwargs in ({}, dict(turn=0.2), dict(slant=0.2)))
    for leaning in (turned, slanted):
        top, bottom = (np.flatnonzero(leaning[row]).mean() for row in (10, -10))
        # A tangent of 0.2 over the rows between the two, to either side.
        assert abs(top - bottom) == pytest.approx(0.2 * (len(leaning) - 20), rel=0.15)
    assert np.flatnonzero(upright[10]).mean() == np.flatnonzero(upright[-10]).mean()


@pytest.mark.parametrize('dark', [True, False])
def test_dark_ink_is_darker_than_its_canvas(dark):
    scans, rng = Scans.load('train'), np.random.default_rng(0)
    settings = replace(SMALL, max_digits=1, dark_ink=dark)
    darker = []
    for _ in range(20):
        scene = draw_scene(rng, scans, settings)
        darker.append(scene.image[scene.masks[0]].mean() < scene.image[~scene.masks[0]].mean())
    assert all(darker) is dark and any(darker)


def test_run_lengths_against_a_walk_over_the_pixels():
    rng = np.random.default_rng(0)
    masks = [rng.random((5, 7)) < 0.5 for _ in range(5)] + [np.zeros((3, 4), bool), np.ones((3, 4), bool)]
    for mask in masks:
        code = run_lengths(mask)
        assert code['size'] == list(mask.shape)
        assert np.array_equal(decode(code, *mask.shape), mask)


def test_coco_layout_agrees_with_the_pictures(tmp_path):
    assert prepare('detection', tmp_path / 'data', SMALL)
    for split, number in (('train', 8), ('val', 4)):
        content = json.loads((tmp_path / 'data' / 'annotations' / f'{split}.json').read_text())
        assert [category['name'] for category in content['categories']] == list(CLASSES)
        assert [category['id'] for category in content['categories']] == list(range(1, 11))
        assert len(content['images']) == number
        for image in content['images']:
            with Image.open(tmp_path / 'data' / split / image['file_name']) as picture:
                assert picture.size == (image['width'], image['height']) == (128, 128)
        assert {annotation['image_id'] for annotation in content['annotations']} == set(range(1, number + 1))
        for annotation in content['annotations']:
            mask = decode(annotation['segmentation'], 128, 128)
            assert mask.sum() == annotation['area'] > 0
            rows, columns = np.nonzero(mask)
            width, height = columns.max() - columns.min() + 1, rows.max() - rows.min() + 1
            assert annotation['bbox'] == [columns.min(), rows.min(), width, height]


def test_classification_layout_has_every_class_alike(tmp_path):
    settings = replace(digits.TASK_SETTINGS['classification'], num_train=30, num_val=10)
    prepare('classification', tmp_path / 'data', settings)
    for split, number in (('train', 3), ('val', 1)):
        for name in CLASSES:
            assert len(list((tmp_path / 'data' / split / name).glob('*.jpg'))) == number


def test_segmentation_layout_pairs_pictures_and_labels(tmp_path):
    prepare('segmentation', tmp_path / 'data', SMALL)
    seen = set()
    for folder in ('training', 'validation'):
        pictures = sorted((tmp_path / 'data' / 'images' / folder).iterdir())
        labels = sorted((tmp_path / 'data' / 'annotations' / folder).iterdir())
        assert [path.stem for path in pictures] == [path.stem for path in labels]
        for path in labels:
            with Image.open(path) as labels_image:
                seen |= set(np.unique(np.asarray(labels_image)).tolist())
    assert 0 in seen and len(seen) > 5 and seen <= set(range(11))


def test_the_same_settings_are_reused_and_others_drawn_anew(tmp_path):
    root = tmp_path / 'data'
    assert prepare('detection', root, SMALL)
    first = contents(root)
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    assert not prepare('detection', root, SMALL)
    assert {path: path.stat().st_mtime_ns for path in root.rglob('*')} == stamps
    assert prepare('detection', root, replace(SMALL, seed=1))
    assert contents(root)['train/000000.jpg'] != first['train/000000.jpg']
    assert prepare('detection', root, SMALL)
    assert contents(root) == first
    assert prepare('segmentation', root, SMALL)
    assert not (root / 'train').exists()
    assert [path.name for path in tmp_path.iterdir()] == ['data'], 'something temporary was left'


def test_what_an_interrupted_or_foreign_writer_left_is_not_taken(tmp_path, monkeypatch):
    def fail(root, settings):
        (root / 'half').touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(digits, '_WRITERS', {'detection': fail})
    with pytest.raises(KeyboardInterrupt):
        prepare('detection', tmp_path / 'data', SMALL)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'mine.txt').write_text('keep')
    with pytest.raises(UserError, match='holds no digits'):
        prepare('detection', tmp_path / 'data', SMALL)
    assert (tmp_path / 'data' / 'mine.txt').read_text() == 'keep'


@pytest.mark.parametrize(
    ('change', 'rule'),
    [
        (dict(seed=-1), 'seed >= 0'),
        (dict(max_height=200), 'max_height <= image_size'),
        (dict(min_digits=5), 'min_digits <= max_digits'),
        (dict(min_visible=0.0), 'min_visible'),
        (dict(stroke_level=1.0), 'stroke_level'),
        (dict(val_share=1.0), 'val_share'),
    ],
)
def test_settings_out_of_range_are_named(change, rule):
    with pytest.raises(UserError, match=rule):
        replace(SMALL, **change)


def test_a_task_that_cannot_be_is_named(tmp_path):
    with pytest.raises(UserError, match='one digit per image'):
        prepare('classification', tmp_path / 'data', SMALL)
    with pytest.raises(UserError, match='detecting'):
        prepare('detecting', tmp_path / 'data', SMALL)
