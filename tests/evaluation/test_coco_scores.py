# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Scores of detections: pycocotools is the oracle of hotcoco, mmdet's metric of what is printed, faults of the rest."""

from __future__ import annotations

import contextlib
import copy
import io
import json

import numpy as np
import pytest
import scenes

pytest.importorskip('hotcoco')

from mmlightvit.evaluation.coco_scores import AREAS, METRICS, CocoScores
from mmlightvit.evaluation.matches import average_precision, draws, interval, metrics_of_draws
from mmlightvit.evaluation.predictions import coco_results, read
from mmlightvit.evaluation.truth import of_coco


def scores_of(labels: dict, results: list[dict], kind: str = 'bbox') -> CocoScores:
    truth = of_coco(labels, None, 'set')
    content = read(results, truth)
    found, _ = coco_results(content, truth)
    return CocoScores(truth.coco, found, kind)


def pycocotools_of(labels: dict, results: list[dict], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The twelve metrics and the precision array."""
    coco = pytest.importorskip('pycocotools.coco')
    cocoeval = pytest.importorskip('pycocotools.cocoeval')
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = copy.deepcopy(labels)
        truth.createIndex()
        plain = [{k: v for k, v in item.items() if k != 'bbox' or kind == 'bbox'} for item in copy.deepcopy(results)]
        if kind == 'bbox':
            plain = [{k: v for k, v in item.items() if k != 'segmentation'} for item in plain]
        else:
            mask = pytest.importorskip('pycocotools.mask')
            for item in plain:
                if isinstance(item['segmentation']['counts'], list):
                    item['segmentation'] = mask.frPyObjects(item['segmentation'], *item['segmentation']['size'])
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(plain), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats), evaluation.eval['precision']


def assert_equal_to_pycocotools(labels: dict, results: list[dict], kind: str) -> None:
    stats, precision = pycocotools_of(labels, results, kind)
    found = scores_of(labels, results, kind)
    ours = [-1 if found.metrics[name] is None else found.metrics[name] for name in METRICS]
    np.testing.assert_allclose(ours, stats, rtol=0, atol=1e-15)  # means of the same numbers in another order
    curves = precision[:, :, :, 0, -1]
    np.testing.assert_array_equal(found.precision_curves(), np.where(curves < 0, np.nan, curves))


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize('crowd', [0.0, 0.3])
def test_equal_to_pycocotools(kind, crowd):
    labels = scenes.truth(crowd=crowd)
    results = scenes.noisy(labels, masks=True)
    assert len({r['score'] for r in results}) < len(results)  # scores tie
    assert_equal_to_pycocotools(labels, results, kind)


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_equal_to_pycocotools_on_coco(shared, split, kind):
    """Real objects, some of them crowds, found as well as their neighbours and themselves moved would find them."""
    hotcoco = pytest.importorskip('hotcoco')
    labels = json.loads((shared / f'data/coco/annotations/instances_{split}2017.json').read_text())
    assert any(item['iscrowd'] for item in labels['annotations'])
    sizes = {image['id']: (image['height'], image['width']) for image in labels['images']}
    rng = np.random.default_rng(0)
    ids = [category['id'] for category in labels['categories']]
    results = []
    for item in labels['annotations']:
        height, width = sizes[item['image_id']]
        mask = hotcoco.COCO(dict(images=labels['images'], categories=[], annotations=[])).ann_to_mask(item)
        for _ in range(2):
            dx, dy = (int(v) for v in rng.integers(-6, 7, 2))
            moved = np.roll(mask, (dy, dx), (0, 1))
            code = hotcoco.mask.encode(np.asfortranarray(moved))
            x, y, w, h = item['bbox']
            results.append(
                dict(
                    image_id=item['image_id'],
                    category_id=item['category_id'] if rng.random() > 0.2 else int(rng.choice(ids)),
                    bbox=[x + dx, y + dy, w, h],
                    segmentation=dict(size=[height, width], counts=code['counts'].decode()),
                    score=round(float(rng.random()), 2),
                )
            )
    assert_equal_to_pycocotools(labels, results, kind)


def test_equal_to_the_digits_of_mmdet(tmp_path):
    """tools/test.py prints what mmdet's metric returns."""
    torch = pytest.importorskip('torch')
    pytest.importorskip('mmdet')
    from mmlightvit.registry import METRICS as REGISTRY

    labels = scenes.truth(crowd=0.1)
    results = scenes.noisy(labels)
    (tmp_path / 'truth.json').write_text(json.dumps(labels))
    metric = REGISTRY.build(dict(type='mmlightvit.CocoMetric', ann_file=str(tmp_path / 'truth.json'), metric='bbox'))
    names = tuple(category['name'] for category in labels['categories'])
    metric.dataset_meta = dict(classes=names)
    place = {category['id']: n for n, category in enumerate(labels['categories'])}
    for image in labels['images']:
        own = [r for r in results if r['image_id'] == image['id']]
        boxes = np.array([r['bbox'] for r in own], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        predicted = dict(
            bboxes=torch.from_numpy(boxes),
            scores=torch.tensor([r['score'] for r in own], dtype=torch.float32),
            labels=torch.tensor([place[r['category_id']] for r in own], dtype=torch.int64),
        )
        shape = image['height'], image['width']
        metric.process({}, [dict(img_id=image['id'], ori_shape=shape, pred_instances=predicted)])
    printed = metric.evaluate(size=len(labels['images']))
    found = scores_of(labels, results).metrics
    for theirs, ours in (('mAP', 'AP'), ('mAP_50', 'AP50'), ('mAP_75', 'AP75'), ('mAP_s', 'APs'), ('mAP_m', 'APm')):
        assert printed[f'coco/bbox_{theirs}'] == round(found[ours], 3)


# -- matches and their draws ------------------------------------------------------------------------------------------
def test_matches_give_the_metrics_of_the_set():
    found = scores_of(*_noisy(crowd=0.2))
    ones = np.ones((len(found.image_ids), 1), np.float32)
    values, of_classes = metrics_of_draws(found.matches, ones)
    assert set(values) == set(METRICS)
    for name, value in values.items():
        expected = found.metrics[name]
        np.testing.assert_allclose(value[0], np.nan if expected is None else expected, atol=1e-6)
    np.testing.assert_allclose(of_classes[:, 0], [row['AP'] for row in found.per_class()], atol=1e-6)


def test_a_draw_is_the_set_with_pictures_repeated():
    """A set in which a picture stands as often as it was drawn has the AP that its weights give."""
    labels, results = _noisy(crowd=0.1, pictures=12)
    results = [r | dict(score=r['score'] + n * 1e-6) for n, r in enumerate(results)]  # a draw may break ties otherwise
    weights = draws(12, 3)
    ours = average_precision(scores_of(labels, results).matches(), weights)
    for draw, counts in enumerate(weights.T.astype(int)):
        repeated, found = dict(labels, images=[], annotations=[]), []
        for image, count in zip(labels['images'], counts):
            for _ in range(count):
                new = dict(image, id=len(repeated['images']) + 1, file_name=f'{len(repeated["images"])}.png')
                repeated['images'].append(new)
                own = [a for a in labels['annotations'] if a['image_id'] == image['id']]
                repeated['annotations'] += [a | dict(image_id=new['id']) for a in own]
                found += [r | dict(image_id=new['id']) for r in results if r['image_id'] == image['id']]
        expected = scores_of(repeated, found).per_class()
        np.testing.assert_allclose(ours[:, :, draw].mean(0), [row['AP'] for row in expected], atol=2e-3)


def test_an_interval_holds_the_value_and_narrows_with_the_set():
    widths = []
    for pictures in (20, 320):
        found = scores_of(*_noisy(pictures=pictures))
        sample = average_precision(found.matches(), draws(pictures)).mean((0, 1))
        low, high = interval(found.metrics['AP'], sample, pictures)
        assert low < found.metrics['AP'] < high
        widths.append(high - low)
    assert 2.5 < widths[0] / widths[1] < 6  # 4 in the mean, a root of 16


def test_few_pictures_have_no_interval():
    assert interval(0.5, np.linspace(0.4, 0.6, 100), 9) is None
    assert interval(0.5, np.linspace(0.4, 0.6, 100), 10) is not None


# -- faults -----------------------------------------------------------------------------------------------------------
def _noisy(**kwargs) -> tuple[dict, list[dict]]:
    labels = scenes.truth(**kwargs)
    return labels, scenes.noisy(labels)


def kinds(labels: dict, results: list[dict], iou: float = 0.5) -> tuple[dict[str, float], dict[str, float]]:
    """What each kind of error costs, and how often it occurs."""
    found = scores_of(labels, results).errors(iou)
    return {k: v['cost'] for k, v in found.items()}, {k: v['count'] for k, v in found.items()}


def only(counts: dict[str, float], kind: str) -> None:
    """``kind`` occurs, and hardly anything else."""
    assert counts[kind] > 0
    assert counts[kind] >= 0.9 * sum(counts.values()), counts


def test_no_fault_is_no_error():
    labels = scenes.truth()
    costs, counts = kinds(labels, scenes.perfect(labels))
    assert not any(costs.values())
    assert not any(counts.values())


def test_swapped_classes_are_wrong_classes():
    labels = scenes.truth()
    results = scenes.swapped(scenes.perfect(labels), 3, 13)
    costs, counts = kinds(labels, results)
    only(counts, 'Cls')
    assert max(costs, key=costs.get) == 'Cls'
    found = scores_of(labels, results)
    working = found.working(coco_results(read(results, of_coco(labels)), of_coco(labels))[0], 0.5)
    matrix = working.confusion
    assert matrix[0, 1] == sum(a['category_id'] == 3 for a in labels['annotations'])
    assert matrix[0, 0] == matrix[1, 1] == 0
    assert matrix[2, 2] > 0
    assert {s['type'] for s in working.suspects} == {'wrong_label'}


def test_boxes_shifted_both_ways_are_badly_placed():
    labels = scenes.truth()
    costs, counts = kinds(labels, scenes.shifted(scenes.perfect(labels), 0.2, 0.2))
    only(counts, 'Loc')
    assert max(costs, key=costs.get) == 'Loc'


def test_boxes_shifted_one_way_are_badly_placed_at_a_higher_iou():
    """Shifted by a fifth of its width, a box still overlaps itself by two thirds."""
    labels = scenes.truth()
    results = scenes.shifted(scenes.perfect(labels), 0.2, 0)
    assert not any(kinds(labels, results)[1].values())
    only(kinds(labels, results, 0.75)[1], 'Loc')


def test_doubled_detections_are_found_twice():
    labels = scenes.truth()
    costs, counts = kinds(labels, scenes.doubled(scenes.perfect(labels)))
    only(counts, 'Dupe')
    assert max(costs, key=costs.get) == 'Dupe'


def test_missing_labels_are_suspected():
    labels = scenes.truth()
    partial = scenes.every_tenth_missing(labels)
    results = scenes.perfect(labels)
    only(kinds(partial, results)[1], 'Bkg')
    truth = of_coco(partial)
    found, _ = coco_results(read(results, truth), truth)
    suspects = CocoScores(truth.coco, found).working(found, 0.5).suspects
    missing = [a for n, a in enumerate(labels['annotations']) if n % 10 == 0]
    assert {s['type'] for s in suspects} == {'missing_annotation'}
    assert sorted((s['result']['image_id'], s['result']['bbox']) for s in suspects) == sorted(
        (a['image_id'], a['bbox']) for a in missing
    )


def test_a_detection_in_a_crowd_is_no_mistake():
    labels = scenes.truth(crowd=0.4)
    everything = [
        dict(image_id=a['image_id'], category_id=a['category_id'], bbox=a['bbox'], score=0.9)
        for a in labels['annotations']
    ]
    truth = of_coco(labels)
    found, _ = coco_results(read(everything, truth), truth)
    working = CocoScores(truth.coco, found).working(found, 0.5)
    assert working.confusion[-1].sum() == working.confusion[:, -1].sum() == 0
    assert np.trace(working.confusion) == sum(not a['iscrowd'] for a in labels['annotations'])
    assert not working.suspects


def test_areas_are_cocos():
    assert AREAS['medium'] == (32**2, 96**2)
