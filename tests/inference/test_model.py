# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What all forms of a model share: forms of pictures, thresholds, order, batches, errors."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from inference.results import Fake, picture
from PIL import Image

from mmlightvit.errors import UserError
from mmlightvit.load import load_model
from mmlightvit.pictures.read import PictureError


@pytest.fixture
def folder(tmp_path):
    for index, size in enumerate([(60, 80), (60, 80), (80, 60)]):
        Image.fromarray(picture(*size, seed=index)).save(tmp_path / f'{index}.png')
    (tmp_path / 'notes.md').write_text('no picture')
    return tmp_path


def test_boxes_are_clipped_and_sorted():
    found = Fake().predict(picture())
    assert found.scores.tolist() == pytest.approx([0.8, 0.35])
    assert found.labels.tolist() == [0, 1]
    assert found.boxes[0].tolist() == [0, 0, 80, 60]
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)
    assert set(found.speed) == {'read', 'model', 'after'}
    np.testing.assert_array_equal(found.image, picture())


def test_thresholds():
    chosen = dict(default=0.3, per_class={'dog': 0.4, 'guinea pig': 0.2}, chosen_on='val')
    model = Fake(thresholds=chosen)
    assert model.thresholds == pytest.approx({'cat': 0.3, 'dog': 0.4, 'guinea pig': 0.2})
    assert model.predict(picture()).names == ['cat', 'guinea pig']
    assert model.predict(picture(), score_thr=0.0).names == ['cat', 'dog', 'guinea pig']
    assert model.predict(picture(), score_thr=0, classes=['dog']).names == ['dog']
    assert model.predict(picture(), score_thr=0, max_det=1).names == ['cat']
    for wrong in (dict(score_thr=30), dict(max_det=0), dict(batch_size=0), dict(size=0), dict(classes=['bird'])):
        with pytest.raises(UserError):
            model.predict(picture(), **wrong)


def test_the_form_of_the_answer_follows_the_form_of_the_question(folder):
    model = Fake('detection')
    path = folder / '0.png'
    assert model.predict(path).path == str(path)
    assert [found.path for found in model.predict([path])] == [str(path)]
    assert len(model.predict([str(path), picture(), Image.open(path), path.read_bytes()])) == 4
    assert [found.width for found in model.predict(folder)] == [80, 80, 60]
    assert len(model.predict(str(folder / '*.png'))) == 3
    assert model.predict([]) == []
    assert model.predict(path, keep_image=False).image is None
    with pytest.raises(TypeError, match='predict_iter'):
        model.predict('film.mp4')


def test_bad_pictures_raise_or_are_skipped(folder):
    model = Fake()
    pictures = [folder / '0.png', folder / 'notes.md', folder / '2.png']
    with pytest.raises(PictureError, match=r'notes\.md: it is not an image'):
        model.predict(pictures)
    first, second, third = model.predict(pictures, on_error='skip')
    assert (first.path, second, third.path) == (str(pictures[0]), None, str(pictures[2]))
    assert model.predict(pictures[1], on_error='skip') is None
    with pytest.raises(ValueError, match='on_error'):
        model.predict(pictures, on_error='ignore')


def test_batches_hold_pictures_of_one_size(folder):
    model = Fake()
    found = model.predict(folder, batch_size=3)
    assert [len(batch) for batch in model.batches] == [2, 1]
    assert [result.height for result in found] == [60, 60, 80]
    assert len({prepared.array.shape for prepared in model.batches[0]}) == 1
    with pytest.raises(PictureError):
        model.predict([folder / '0.png', 'missing.png'], batch_size=3)


def test_size_and_channels():
    model = Fake()
    model.predict(picture(), size=60)
    model.predict(picture()[..., ::-1], channels='bgr')
    model.predict(picture())
    small, bgr, rgb = (batch[0] for batch in model.batches)
    assert small.size == (60, 80)
    assert rgb.size == (120, 160)
    np.testing.assert_array_equal(bgr.array, rgb.array)


def test_other_tasks():
    classified = Fake('classification').predict(picture())
    assert classified.top(1)[0][:2] == (1, 'dog')
    label_map = Fake('segmentation').predict(picture()).label_map
    assert label_map.dtype == np.uint8
    assert label_map.shape == (60, 80)
    many = Fake('segmentation', classes=tuple(map(str, range(300)))).predict(picture())
    assert many.label_map.dtype == np.uint16


def test_threads_do_not_meet():
    model = Fake()
    run, busy = model.run, threading.Lock()

    def alone(pictures):
        assert busy.acquire(blocking=False)
        try:
            return run(pictures)
        finally:
            busy.release()

    model.run = alone
    found = []
    threads = [threading.Thread(target=lambda: found.extend(model.predict([picture()] * 5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20


def test_streams_go_on_after_a_bad_picture(folder):
    (folder / '1.png').write_bytes(b'')
    names = [found.path[-5:] for found in Fake().predict_iter(folder, on_error='skip', batch_size=2)]
    assert names == ['0.png', '2.png']
    with pytest.raises(PictureError, match='empty'):
        list(Fake().predict_iter(folder))


def test_unknown_models_are_named():
    pytest.importorskip('yaml')
    with pytest.raises(UserError, match=r"no model 'lightvit_tt': .* names of 'mmlightvit models'; nearest: lightvit_"):
        load_model('lightvit_tt')
