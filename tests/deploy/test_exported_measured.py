# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""An exported file is measured as the model is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('hotcoco')

from mmlightvit.evaluation import predictions
from mmlightvit.evaluation.measure import measure
from mmlightvit.evaluation.truth import Truth


@pytest.fixture
def photos(pictures, tmp_path):
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f'{number}.png')
    return tmp_path


@pytest.mark.parametrize('task', ['classification', 'segmentation'])
def test_other_tasks(exported, photos, task):
    model, path, _ = exported(task)
    names = tuple(f'{number}.png' for number in range(3))
    results = [model.predict(photos / name) for name in names]
    if task == 'classification':
        labels = np.array([result.top(2)[number % 2][0] for number, result in enumerate(results)])
        truth = Truth('set', task, tuple(model.classes), names, photos, labels=labels)
        right = 'accuracy', 'top1', 200 / 3
    else:
        maps = tuple(photos / f'map{number}.png' for number in range(3))
        for result, file in zip(results, maps):
            labels = result.label_map.copy()
            labels[: len(labels) // 4] = (labels[: len(labels) // 4] + 1) % len(model.classes)
            Image.fromarray(labels.astype(np.uint8)).save(file)
        truth = Truth('set', task, tuple(model.classes), names, photos, maps=maps)
        right = 'pixels', 'aAcc', 75.0
    found = measure(predictions.answers(str(path), truth), truth).values
    assert found[right[0]][right[1]] == pytest.approx(right[2], abs=0.5)
