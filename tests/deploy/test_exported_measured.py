# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``val``, ``report`` and ``compare`` take an exported file as they take the model, and say the same of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('hotcoco')

from mmlightvit.cli import call
from mmlightvit.evaluation import predictions
from mmlightvit.evaluation.measure import measure
from mmlightvit.evaluation.truth import Truth


@pytest.fixture
def photos(pictures, tmp_path):
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f'{number}.png')
    return tmp_path


def test_a_detector(exported, photos, capsys):
    """The truth is what the model finds, moved a little, so that some of it counts as right."""
    model, path, _ = exported('instance')
    names = [f'{number}.png' for number in range(3)]
    images, objects = [], []
    for number, name in enumerate(names, 1):
        result = model.predict(photos / name, score_thr=0)
        images.append(dict(id=number, file_name=name, height=result.height, width=result.width))
        for item in result[:12].to_coco(number)[::2]:
            x, y, w, h = item['bbox']
            del item['score']
            objects.append({**item, 'bbox': [x + 1, y, w, h], 'area': w * h, 'iscrowd': 0, 'id': len(objects) + 1})
    categories = [dict(id=place + 1, name=name) for place, name in enumerate(model.classes)]
    truth = photos / 'truth.json'
    truth.write_text(json.dumps(dict(images=images, annotations=objects, categories=categories)))
    about = dict(name='m', task='instance', classes=list(model.classes), weights_sha256=None)
    whole = Truth('', 'instance', tuple(model.classes), tuple(names), photos)
    ours = predictions.content_of(about, predictions.predict(model, whole, 1), whole)
    (photos / 'torch.json').write_text(json.dumps(ours))

    def values(name):
        capsys.readouterr()
        assert call('val', [str(name), str(truth), '--json']) == 0
        return json.loads(capsys.readouterr().out)

    reference, found = values(photos / 'torch.json'), values(path)
    assert 0 < reference['segm']['AP'] < 1
    for kind in ('bbox', 'segm'):
        assert found[kind] == pytest.approx(reference[kind], abs=1e-3)
    assert call('compare', [str(path), str(photos / 'torch.json'), str(truth)]) == 0
    assert '3 pictures are too few to tell: +0.000 AP' in capsys.readouterr().out
    pytest.importorskip('matplotlib')
    assert call('report', [str(path), str(truth), '--out', str(photos / 'report'), '--json']) == 0
    written = json.loads((photos / 'report/metrics.json').read_text())
    assert written['metrics']['segm']['AP']['value'] == pytest.approx(found['segm']['AP'])
    assert call('report', [str(path), str(truth), '--set-thresholds']) == 1
    assert 'needs a folder with model.json' in capsys.readouterr().err


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
