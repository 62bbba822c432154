# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Resizing against OpenCV, whole pipelines against the toolboxes'."""

from __future__ import annotations

import numpy as np
import pytest

from mmlightvit.errors import UserError
from mmlightvit.inference.preprocess import prepare, resize_bilinear, target_sizes
from mmlightvit.model_folder.info import InputSpec

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)


def test_bilinear_equals_opencv_to_the_last_bit():
    cv2 = pytest.importorskip('cv2')
    rng = np.random.RandomState(0)
    sizes = [(480, 640, 800, 1067), (64, 64, 32, 32), (1, 1, 8, 8), (10, 1000, 13, 1333), (7, 1, 20, 9), (2, 2, 1, 1)]
    sizes += [(1, 5, 1, 9), (900, 1200, 800, 1067), *(tuple(rng.randint(1, 200, 4).tolist()) for _ in range(60))]
    for height, width, new_height, new_width in sizes:
        pixels = noise(height, width)
        expected = cv2.resize(pixels, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(resize_bilinear(pixels, new_height, new_width), expected)


@pytest.mark.parametrize('size', [(480, 640), (640, 427), (1, 1), (1000, 10), (333, 500), (2000, 3000)])
def test_detection_and_segmentation_pipelines(size):
    transforms = pytest.importorskip('mmcv.transforms')
    pixels = noise(*size)
    spec = InputSpec(MEAN, STD, resize=dict(short=800, long=1333), pad_multiple=32)
    bgr = pixels[..., ::-1].copy()
    results = transforms.Resize(scale=(1333, 800), keep_ratio=True)(dict(img=bgr, img_shape=size))
    prepared = prepare(pixels, spec)
    height, width = results['img'].shape[:2]
    assert prepared.size == (height, width)
    assert prepared.scale == pytest.approx(results['scale_factor'][::-1])
    expected = (results['img'][..., ::-1].astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
    np.testing.assert_array_equal(prepared.array[:, :height, :width], expected.transpose(2, 0, 1))
    assert not prepared.array[:, height:].any()
    assert not prepared.array[:, :, width:].any()
    assert all(side % 32 == 0 for side in prepared.array.shape[1:])


@pytest.mark.parametrize('size', [(480, 640), (640, 427), (300, 300), (257, 1000), (31, 33)])
def test_classification_pipeline(size):
    transforms = pytest.importorskip('mmcv.transforms')
    processing = pytest.importorskip('mmpretrain.datasets.transforms.processing')
    pixels = noise(*size)
    results = dict(img=pixels.copy(), img_shape=size)
    results = processing.ResizeEdge(scale=256, edge='short', backend='pillow', interpolation='bicubic')(results)
    results = transforms.CenterCrop(crop_size=224)(results)
    spec = InputSpec((0.0,) * 3, (1.0,) * 3, resize=dict(short=256), crop=(224, 224), interpolation='bicubic')
    np.testing.assert_array_equal(prepare(pixels, spec).array, results['img'].transpose(2, 0, 1))


def test_sizes():
    assert target_sizes(480, 640, None) == []
    assert target_sizes(480, 640, dict(short=512, long=2048, multiple=32)) == [(512, 683), (512, 704)]
    assert target_sizes(5, 7, dict(height=64, width=96))[-1] == (64, 96)
    spec = InputSpec(MEAN, STD, resize=dict(short=800, long=1333))
    assert spec.with_size(400).resize == dict(short=400, long=666)
    classifier = InputSpec(MEAN, STD, resize=dict(short=256), crop=(224, 224)).with_size(112)
    assert (classifier.resize, classifier.crop) == (dict(short=128), (112, 112))
    assert InputSpec(MEAN, STD).with_size(48).resize == dict(height=48, width=48)
    with pytest.raises(UserError, match='at least 1 pixel'):
        spec.with_size(0)


def test_channels_can_be_bgr():
    pixels = noise(4, 5)
    rgb, bgr = (prepare(pixels, InputSpec((0,) * 3, (1,) * 3, channels)).array for channels in ('rgb', 'bgr'))
    np.testing.assert_array_equal(bgr, rgb[::-1])
