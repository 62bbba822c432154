# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What a report leaves in its folder, for ordinary sets and for odd ones."""

from __future__ import annotations

import csv
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import scenes
from PIL import Image

pytest.importorskip('hotcoco')
pytest.importorskip('matplotlib')
pytest.importorskip('sklearn')

from mmlightvit.errors import UserError
from mmlightvit.evaluation.report import report_from_label_maps, report_from_predictions
from mmlightvit.evaluation.truth import Truth, of_coco

FILES = (
    *('index.html', 'metrics.json', 'per_class.csv', 'confusion.csv', 'confusion.png', 'pr.png', 'f1.png', 'tide.png'),
    *('calibration.png', 'label_errors.csv', 'predictions.json', 'worst'),
)


class Links(HTMLParser):
    """Everything in a page that a browser would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found += [value for key, value in attrs if key in ('src', 'href', 'srcset', 'data', 'action')]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def report(labels: dict, results: list[dict], out: Path, pictures: bool = False) -> tuple[dict, str]:
    out.mkdir()
    root = scenes.draw_pictures(labels, out.with_name(f'{out.name}-pictures')) if pictures else None
    metrics = report_from_predictions(results, of_coco(labels, root, 'set'), out)
    assert json.loads((out / 'metrics.json').read_text()) == json.loads(json.dumps(metrics))
    assert 'NaN' not in (out / 'metrics.json').read_text()
    return metrics, (out / 'index.html').read_text()


@pytest.fixture(scope='module')
def ordinary(tmp_path_factory):
    labels = scenes.truth(pictures=30, crowd=0.05)
    out = tmp_path_factory.mktemp('ordinary') / 'report'
    return *report(labels, scenes.noisy(labels, masks=True), out, pictures=True), out, labels


def test_all_files_are_there(ordinary):
    _, _, out, _ = ordinary
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert len(list((out / 'worst').glob('*.jpg'))) == 24


def test_the_page_asks_for_nothing_elsewhere(ordinary):
    _, page, _, _ = ordinary
    links = Links(page).found
    assert links
    assert all(link.startswith(('data:image/', '#')) for link in links)
    assert not re.search(r'https?:|url\(|@import', page)
    assert 'width=device-width' in page
    assert len(page) < 5e6


def test_masks_are_measured_beside_boxes(ordinary):
    metrics, page, _, _ = ordinary
    assert set(metrics['metrics']) == {'bbox', 'segm'}
    assert 'AP (masks)' in page
    for found in metrics['metrics'].values():
        assert 0 <= found['AP']['low'] < found['AP']['value'] < found['AP']['high'] <= 1


def test_tables_agree_with_the_numbers(ordinary):
    metrics, _, out, labels = ordinary
    listed = rows(out / 'per_class.csv')
    assert [row['class'] for row in listed] == [category['name'] for category in labels['categories']]
    assert [float(row['AP']) for row in listed] == [row['AP'] for row in metrics['per_class']]
    mean = np.mean([float(row['AP']) for row in listed])
    assert mean == pytest.approx(metrics['metrics']['bbox']['AP']['value'])
    confusion = rows(out / 'confusion.csv')
    assert [row['truth'] for row in confusion][-1] == list(confusion[0])[-1] == 'background'
    for row, found in zip(confusion, metrics['per_class']):
        counts = {name: int(value) for name, value in row.items() if name != 'truth'}
        assert sum(counts.values()) == found['objects']
    shares = metrics['at_thresholds']
    hits = sum(int(row[row['truth']]) for row in confusion[:-1])
    assert hits / metrics['data']['objects'] == pytest.approx(shares['recall'], abs=0.05)


def test_sizes_add_up(ordinary):
    metrics, _, _, labels = ordinary
    assert metrics['sizes']['small'] == sum(a['area'] <= 32**2 and not a['iscrowd'] for a in labels['annotations'])
    assert sum(metrics['sizes'].values()) == metrics['data']['objects']


def test_worst_pictures_are_the_worst(ordinary):
    _, page, out, _ = ordinary
    f1 = [float(value) for value in re.findall(r'F1 (\d\.\d\d); ', re.sub('alt="[^"]*"', '', page))]
    assert len(f1) == 24
    assert f1 == sorted(f1)
    with Image.open(sorted((out / 'worst').iterdir())[0]) as picture:
        assert picture.width > 2 * scenes.WIDTH


def test_predictions_give_the_same_report_again(ordinary, tmp_path):
    metrics, _, out, labels = ordinary
    (tmp_path / 'again').mkdir()
    again = report_from_predictions(out / 'predictions.json', of_coco(labels, None, 'set'), tmp_path / 'again')
    assert again['metrics'] == metrics['metrics']
    assert again['thresholds'] == metrics['thresholds']


def test_names_and_not_places_join_model_and_labels(tmp_path):
    """A model whose classes are in another order, and one more; labels of a class that it does not know."""
    labels = scenes.truth(classes=3)
    names = ['class 1', 'something else', 'class 0']
    ids = {category['id']: category['name'] for category in labels['categories']}
    results = []
    for image in labels['images']:
        own = [a for a in labels['annotations'] if a['image_id'] == image['id'] and ids[a['category_id']] in names]
        objects = [
            {'class_id': names.index(ids[a['category_id']]), 'class': ids[a['category_id']], 'score': 0.9,
             'box': [a['bbox'][0], a['bbox'][1], a['bbox'][0] + a['bbox'][2], a['bbox'][1] + a['bbox'][3]]} for a in own
        ]  # fmt: skip
        size = dict(width=image['width'], height=image['height'])
        results.append(dict(path=f'/elsewhere/{image["file_name"]}', frame=None, objects=objects, **size))
    content = dict(
        format='mmlightvit-predictions/1', model=dict(name='m', task='detection', classes=names), results=results
    )
    metrics = report_from_predictions(content, of_coco(labels), tmp_path)
    assert metrics['metrics']['bbox']['AP']['value'] == pytest.approx(1)
    assert [row['class'] for row in metrics['per_class']] == ['class 1', 'class 0']
    assert 'does not know class 2' in ' '.join(metrics['notes'])
    assert 'does not have something else' in ' '.join(metrics['notes'])
    other = dict(content, model=dict(content['model'], classes=['x']))
    with pytest.raises(UserError, match='no class in common'):
        report_from_predictions(other, of_coco(labels), tmp_path)


def test_a_picture_of_another_size_is_an_error(tmp_path):
    labels = scenes.truth()
    wrong = [dict(path=labels['images'][0]['file_name'], width=5, height=7, objects=[])]
    content = dict(
        format='mmlightvit-predictions/1', model=dict(name='m', task='detection', classes=['class 0']), results=wrong
    )
    with pytest.raises(UserError, match='5x7'):
        report_from_predictions(content, of_coco(labels), tmp_path)


# -- odd sets ---------------------------------------------------------------------------------------------------------
def test_no_detections_at_all(tmp_path):
    metrics, page = report(scenes.truth(), [], tmp_path / 'report', pictures=True)
    assert metrics['metrics']['bbox']['AP']['value'] == 0
    assert 'found nothing at all' in page
    assert metrics['thresholds']['default'] == 0.3
    assert len(list((tmp_path / 'report' / 'worst').iterdir())) == 24


def test_more_detections_than_coco_counts(tmp_path):
    """The surest hundred of a class in a picture count, and the page says that there were more."""
    labels = scenes.truth(pictures=12, classes=1)
    image, category = labels['images'][0]['id'], labels['categories'][0]['id']
    crowd = [
        dict(image_id=image, category_id=category, bbox=[float(n % 12) * 10, 90, 9, 9], score=0.5 - n / 1000)
        for n in range(150)
    ]
    found = [item for item in scenes.noisy(labels) if item['score'] > 0.5]
    own = sum(item['image_id'] == image for item in found)
    (much, page), (less, _) = (
        report(labels, found + crowd[:count], tmp_path / str(count)) for count in (150, 100 - own)
    )
    assert much['metrics'] == less['metrics']
    assert much['thresholds'] == less['thresholds']
    assert much['at_thresholds'] == less['at_thresholds']
    assert less['notes'] == []
    assert 'In 1 of the pictures the surest 100 detections of a class count' in page


def test_an_empty_class(tmp_path):
    labels = scenes.truth()
    labels['categories'].append(dict(id=99, name='nowhere'))
    metrics, page = report(labels, scenes.perfect(labels), tmp_path / 'report')
    assert metrics['per_class'][-1]['AP'] is None
    assert metrics['metrics']['bbox']['AP']['value'] == pytest.approx(1)
    assert 'Not in this set, so not measured: nowhere' in page
    assert rows(tmp_path / 'report' / 'per_class.csv')[-1]['AP'] == ''


def test_one_picture(tmp_path):
    labels = scenes.truth(pictures=1)
    metrics, page = report(labels, scenes.noisy(labels), tmp_path / 'report', pictures=True)
    assert metrics['metrics']['bbox']['AP']['low'] is None
    assert 'under 10 pictures' in page


def test_one_class(tmp_path):
    labels = scenes.truth(classes=1)
    metrics, _ = report(labels, scenes.noisy(labels), tmp_path / 'report')
    assert metrics['metrics']['bbox']['AP']['value'] == pytest.approx(metrics['per_class'][0]['AP'])


def test_eighty_classes(tmp_path):
    labels = scenes.truth(pictures=60, classes=80)
    metrics, page = report(labels, scenes.noisy(labels), tmp_path / 'report')
    assert len(rows(tmp_path / 'report' / 'confusion.csv')) == 81
    assert all(f'class {n}' in page for n in range(80))
    assert len(set(metrics['thresholds']['per_class'].values())) == 1  # all are rare


def test_no_object_in_any_picture(tmp_path):
    labels = scenes.truth()
    empty = labels | dict(annotations=[])
    metrics, _ = report(empty, scenes.noisy(labels), tmp_path / 'report')
    assert metrics['metrics']['bbox']['AP'] == dict(value=None, low=None, high=None)


def test_names_are_text_and_not_markup(tmp_path):
    labels = scenes.truth(classes=1)
    labels['categories'][0]['name'] = '<script>alert("&")</script>'
    _, page = report(labels, scenes.noisy(labels), tmp_path / 'report')
    assert page.count('<script>') == 1  # ours, which sorts tables
    assert '<script>alert("&")' in html.unescape(page)


def test_no_pictures_is_an_error():
    with pytest.raises(UserError, match='no pictures'):
        of_coco(dict(images=[], annotations=[], categories=[]))


def test_predictions_that_were_cut_off_are_said_to_be(ordinary, tmp_path):
    _, _, out, labels = ordinary
    content = json.loads((out / 'predictions.json').read_text()) | dict(score_thr=0.3)
    metrics = report_from_predictions(content, of_coco(labels), tmp_path)
    assert 'cut off at a score' in metrics['notes'][0]


def test_a_report_needs_neither_torch_nor_mmengine(repo, tmp_path):
    from test_imports import run_without

    labels = scenes.truth()
    for name, content in (('truth', labels), ('found', scenes.noisy(labels))):
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    call = f"call('report', ['{tmp_path}/found.json', '{tmp_path}/truth.json', '--out', '{tmp_path}/out'])"
    out = run_without({'torch', 'mmengine', 'mmcv', 'cv2'}, f'from mmlightvit.cli import call\nprint({call})', repo)
    assert out.splitlines()[-1] == '0'


def test_a_missing_package_is_named(repo, tmp_path):
    from test_imports import run_without

    code = "from mmlightvit.cli import call\nimport sys\nsys.stderr = sys.stdout\nprint(call('report', ['a', 'b']))"
    said = run_without({'sklearn'}, code, repo).splitlines()
    assert said == ['error: mmlightvit report needs scikit-learn: pip install "mmlightvit[report]"', '1']


# -- other tasks ------------------------------------------------------------------------------------------------------
def test_a_classifier(tmp_path):
    rng = np.random.default_rng(0)
    classes = tuple(f'class {n}' for n in range(7))
    labels = rng.integers(0, 6, 60)  # the last class does not occur
    names = tuple(f'{n}.png' for n in range(60))
    (tmp_path / 'pictures').mkdir()
    results = []
    for name, label in zip(names, labels):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(tmp_path / 'pictures' / name)
        scores = rng.dirichlet(np.ones(7)) * 0.5
        scores[label if rng.random() < 0.8 else rng.integers(7)] += 0.5
        order = np.argsort(-scores)[:5]
        probs = [{'class_id': int(i), 'class': classes[i], 'score': float(scores[i])} for i in order]
        results.append(dict(path=name, width=30, height=20, probs=probs))
    model = dict(name='m', task='classification', classes=classes)
    content = dict(format='mmlightvit-predictions/1', model=model, results=results)
    truth = Truth('set', 'classification', classes, names, tmp_path / 'pictures', labels=labels)
    (tmp_path / 'report').mkdir()
    metrics = report_from_predictions(content, truth, tmp_path / 'report')
    first = np.array([classes.index(r['probs'][0]['class']) for r in results])
    assert metrics['metrics']['top1']['value'] == pytest.approx(100 * (first == labels).mean())
    assert metrics['per_class'][-1]['recall'] is None
    mistakes = rows(tmp_path / 'report' / 'label_errors.csv')
    assert len(mistakes) == (first != labels).sum()
    assert [float(row['score']) for row in mistakes] == sorted((float(row['score']) for row in mistakes), reverse=True)
    assert all(link.startswith(('data:', '#')) for link in Links((tmp_path / 'report/index.html').read_text()).found)
    with pytest.raises(UserError, match='labelled for instance'):
        report_from_predictions(content, of_coco(scenes.truth()), tmp_path / 'report')


def test_a_segmenter(tmp_path):
    rng = np.random.default_rng(0)
    classes = ('sky', 'tree', 'road')
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'pictures').mkdir()
    (tmp_path / 'report').mkdir()
    names, maps, predicted = [], [], []
    for n in range(30):
        truth = np.repeat(rng.integers(0, 2, (4, 1)), 10, 0).repeat(30, 1).astype(np.uint8)
        truth[0, :5] = 255
        said = np.where(rng.random(truth.shape) < 0.02 * n, 2, np.where(truth == 255, 0, truth))
        Image.fromarray(rng.integers(0, 255, (*truth.shape, 3), np.uint8)).save(tmp_path / f'pictures/{n}.png')
        Image.fromarray(truth).save(tmp_path / f'labels/{n}.png')
        names.append(f'{n}.png')
        maps.append(tmp_path / f'labels/{n}.png')
        predicted.append((n, said))
    truth = Truth('set', 'segmentation', classes, tuple(names), tmp_path / 'pictures', maps=tuple(maps))
    metrics = report_from_label_maps(iter(predicted), truth, tmp_path / 'report', dict(name='m', classes=classes))
    assert metrics['per_class'][2]['IoU'] == 0
    assert metrics['per_class'][2]['accuracy'] is None
    assert metrics['metrics']['aAcc']['low'] < metrics['metrics']['aAcc']['value']
    worst = sorted((tmp_path / 'report/worst').iterdir())
    assert len(worst) == 24
    assert {int(path.stem.split('_')[1]) for path in worst[:3]} <= set(range(25, 30))
