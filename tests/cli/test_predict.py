# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The command line of predict, on a model that no network made: lines, files, exit codes, memory."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from inference.results import CLASSES, Fake, picture
from inference.test_sources import film
from PIL import Image

from mmlightvit.cli import main, predict
from mmlightvit.pictures.masks import decode


def rows_of(path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def folder(tmp_path):
    pictures = tmp_path / 'pics'
    (pictures / 'sub').mkdir(parents=True)
    for index, name in enumerate(['a.png', 'b.jpg', 'sub/c.png']):
        Image.fromarray(picture(seed=index)).save(pictures / name)
    return pictures


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Run the command on a made-up model; returns exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, task='instance', model=None, **changes):
        monkeypatch.setattr(predict, 'load_model', lambda *_, **__: model or Fake(task, **changes))
        code = main(['predict', 'MODEL', *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_lines_and_summary(call, folder, tmp_path):
    code, out, err = call('pics')
    lines = out.splitlines()
    assert code == 0
    assert err == ''
    assert lines[0].startswith('image 1/2 pics/a.png: 60x80, 1 cat, 1 dog, ')
    assert lines[0].endswith(' ms')
    assert lines[2].startswith('2 pictures, 4 objects, 0 skipped; median ')
    assert lines[2].endswith('; outputs/predict')
    assert sorted(path.name for path in (tmp_path / 'outputs/predict').rglob('*.*')) == [
        'a.jpg', 'b.jpg', 'predictions.json',
    ]  # fmt: skip


def test_folders_are_never_written_into(call, folder, tmp_path):
    for number in ('', '-2', '-3'):
        assert call('pics/a.png')[1].splitlines()[-1].endswith(f'; outputs/predict{number}')
    code, _, err = call('pics/a.png', '--out', 'outputs/predict')
    assert code == 1
    assert err == 'error: --out outputs/predict exists and is not empty; name another folder, or add --overwrite\n'
    assert call('pics/a.png', '--out', 'outputs/predict', '--overwrite')[0] == 0
    assert call('pics/a.png', '--out', 'new/deep')[0] == 0
    call('pics/a.png', '--save', 'none')
    assert not (tmp_path / 'outputs/predict-4').exists()


def test_bad_pictures(call, folder):
    (folder / 'bad.png').write_bytes(b'')
    code, out, _ = call('pics', 'missing.jpg', '--save', 'json', '--out', 'o')
    assert code == 1
    assert out.splitlines()[-3].startswith('2 pictures, 4 objects, 2 skipped; ')
    assert out.splitlines()[-2:] == [
        'skipped: pics/bad.png: the file is empty',
        'skipped: missing.jpg: the file is missing',
    ]
    content = json.loads((folder.parent / 'o/predictions.json').read_text())
    assert [entry['path'] for entry in content['skipped']] == ['pics/bad.png', 'missing.jpg']
    assert len(content['results']) == 2
    code, out, err = call('pics/bad.png')
    assert (code, out, err) == (1, '', 'error: pics/bad.png: the file is empty\n')
    assert call('pics/bad.png', '--on-error', 'skip')[0] == 1
    assert call('pics', '--on-error', 'stop')[2] == 'error: pics/bad.png: the file is empty\n'


def test_json_on_stdout(call, folder, tmp_path):
    code, out, err = call('pics', '--json', '--save', 'none')
    content = json.loads(out)
    assert code == 0
    assert content['format'] == 'mmlightvit-predictions/1'
    assert content['model'] == {
        'name': 'pets', 'task': 'instance', 'classes': list(CLASSES), 'weights_sha256': None,
    }  # fmt: skip
    assert [result['path'] for result in content['results']] == ['pics/a.png', 'pics/b.jpg']
    assert err.startswith('2 pictures, 4 objects')
    assert not (tmp_path / 'outputs').exists()


def test_every_file_of_instances(call, folder, tmp_path):
    code, _, _ = call('pics', '--recursive', '--out', 'o', '--save', *predict.KINDS)
    out = tmp_path / 'o'
    assert code == 0
    found = sorted(str(path.relative_to(out)) for path in out.rglob('*') if path.is_file())
    assert found == sorted(
        [
            'predictions.json', 'predictions.csv', 'coco.json', 'coco_images.json', 'annotations.json', 'classes.txt',
            *(f'{kind}/{stem}.{ending}' for stem in ('a', 'b', 'sub/c')
              for kind, ending in (('pictures', 'jpg'), ('labels', 'txt'), ('masks', 'png'))),
            *(f'crops/{name}/{stem}-{n}.jpg' for stem in ('a', 'b', 'sub/c') for n, name in ((1, 'cat'), (2, 'dog'))),
        ]
    )  # fmt: skip
    assert (out / 'classes.txt').read_text().splitlines() == list(CLASSES)
    images = json.loads((out / 'coco_images.json').read_text())
    assert [(image['id'], image['file_name']) for image in images] == [
        (1, 'pics/a.png'), (2, 'pics/b.jpg'), (3, 'pics/sub/c.png'),
    ]  # fmt: skip
    results = json.loads((out / 'coco.json').read_text())
    assert [entry['image_id'] for entry in results] == [1, 1, 2, 2, 3, 3]
    assert decode(results[0]['segmentation']['counts'], 60, 80).sum() == 31 * 41
    dataset = json.loads((out / 'annotations.json').read_text())
    assert [category['id'] for category in dataset['categories']] == [1, 2, 3]
    assert [annotation['id'] for annotation in dataset['annotations']] == [1, 2, 3, 4, 5, 6]
    assert len(dataset['images']) == 3
    rows = rows_of(out / 'predictions.csv')
    assert len(rows) == 6
    assert rows[0]['class'] == 'cat'
    assert rows[0]['area'] == str(31 * 41)
    assert np.asarray(Image.open(out / 'masks/a.png')).max() == 1  # the surest object has the pixels


def test_label_maps_and_classes_of_pictures(call, folder, tmp_path):
    assert call('pics', '--out', 's', '--save', 'masks', 'csv', 'pictures', task='segmentation')[0] == 0
    mask = Image.open(tmp_path / 's/masks/a.png')
    assert mask.mode == 'P'
    assert np.unique(np.asarray(mask)).tolist() == [0, 1, 2]
    rows = rows_of(tmp_path / 's/predictions.csv')
    assert sum(float(row['share']) for row in rows) == pytest.approx(2, abs=1e-4)
    assert call('pics', '--out', 'c', '--save', 'csv', task='classification')[0] == 0
    rows = rows_of(tmp_path / 'c/predictions.csv')
    assert [row['class'] for row in rows[:3]] == ['dog', 'cat', 'guinea pig']
    code, _, err = call('pics', '--save', 'txt', task='classification')
    assert code == 1
    assert err == 'error: --save txt is not for classification; there are pictures, json, csv\n'


def test_ids_of_a_coco_file(call, folder, tmp_path):
    truth = {
        'images': [{'id': 42, 'file_name': 'a.png'}, {'id': 17, 'file_name': 'x/b.jpg'}],
        'categories': [{'id': 9, 'name': 'dog'}, {'id': 5, 'name': 'cat'}, {'id': 7, 'name': 'guinea pig'}],
    }
    (tmp_path / 'gt.json').write_text(json.dumps(truth))
    assert call('pics', '--save', 'coco', '--coco-gt', 'gt.json', '--out', 'o')[0] == 0
    results = json.loads((tmp_path / 'o/coco.json').read_text())
    assert [(entry['image_id'], entry['category_id']) for entry in results] == [(42, 5), (42, 9), (17, 5), (17, 9)]
    code, _, err = call('pics/sub', '--save', 'coco', '--coco-gt', 'gt.json', '--out', 'p')
    assert (code, err) == (1, 'error: --coco-gt has no single image called c.png\n')
    del truth['categories'][0]
    (tmp_path / 'gt.json').write_text(json.dumps(truth))
    code, _, err = call('pics', '--save', 'coco', '--coco-gt', 'gt.json', '--out', 'q')
    assert 'has no category dog; it has cat, guinea pig' in err
    assert call('pics', '--coco-gt', 'gt.json')[2] == 'error: --coco-gt is for --save coco\n'


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--classes', 'bird'], "no 'bird'; there are cat, dog, guinea pig"),
        (['--score-thr', '30'], 'from 0 to 1'),
        (['--every', '0'], '--every'),
        (['--size', '0'], 'at least 1'),
        (['--save', 'none', 'json'], '--save none stands alone'),
    ],
)
def test_wrong_options_are_one_line(call, folder, arguments, words):
    code, _, err = call('pics', *arguments)
    assert code == 1
    assert err.startswith('error: ')
    assert err.count('\n') == 1
    assert words in err


@pytest.mark.parametrize('option', [('--score-thr', '0.5'), ('--classes', 'cat'), ('--max-det', '3')])
@pytest.mark.parametrize('task', ['classification', 'segmentation'])
def test_what_chooses_objects_is_refused_where_there_are_none(call, folder, tmp_path, task, option):
    code, _, err = call('pics', *option, task=task)
    assert (code, err) == (1, f'error: {option[0]} would not be read: a model for {task} finds no objects\n')
    assert not (tmp_path / 'outputs').exists()


def test_a_labelled_video(call, tmp_path):
    cv2 = pytest.importorskip('cv2')
    film(tmp_path / 'red.mp4', frames=10)
    code, out, _ = call('red.mp4', '--every', '2', '--out', 'o', '--save', 'pictures', 'txt', 'json')
    assert code == 0
    assert out.startswith('video 1/1 (frame 1/5) red.mp4: 48x64, ')
    capture = cv2.VideoCapture(str(tmp_path / 'o/pictures/red.mp4'))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(6.25)
    assert len(list((tmp_path / 'o/labels').glob('red_*.txt'))) == 5
    content = json.loads((tmp_path / 'o/predictions.json').read_text())
    assert [result['frame'] for result in content['results']] == [0, 2, 4, 6, 8]


def test_memory_stays_flat_over_a_long_video(call, tmp_path):
    """Of the whole process, so that what OpenCV keeps counts too; after the first hundred frames."""
    psutil = pytest.importorskip('psutil')
    pytest.importorskip('cv2')
    film(tmp_path / 'long.mp4', frames=500, size=(32, 48))
    model, seen = Fake('instance'), []

    def run(pictures):
        if len(model.batches) % 100 == 99:
            seen.append(psutil.Process().memory_info().rss)
        found = Fake.run(model, pictures)
        model.batches[-1] = None
        return found

    model.run = run
    kinds = ('pictures', 'json', 'coco', 'csv')
    assert call('long.mp4', '--out', 'o', '--save', *kinds, model=model)[0] == 0
    assert len(seen) == 5
    assert (seen[-1] - seen[0]) / 4 < 1e6


def test_files_are_complete_when_a_run_is_stopped(call, folder, tmp_path):
    model = Fake()

    def run(pictures):
        if len(model.batches) == 1:
            raise KeyboardInterrupt
        return Fake.run(model, pictures)

    model.run = run
    code, _, err = call('pics', '--out', 'o', '--save', *predict.KINDS, model=model)
    assert (code, err) == (130, 'error: interrupted\n')
    assert len(json.loads((tmp_path / 'o/predictions.json').read_text())['results']) == 1
    assert len(json.loads((tmp_path / 'o/annotations.json').read_text())['images']) == 1
    assert not [path for path in (tmp_path / 'o').rglob('*') if 'incomplete' in path.name]
