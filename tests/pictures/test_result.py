# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Results, and their conversions read by the tools they are for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from inference.results import CLASSES, result
from PIL import Image

from mmlightvit.errors import UserError
from mmlightvit.pictures.masks import Masks


def test_objects_are_chosen():
    found = result()
    assert len(found) == 3
    assert found.names == ['cat', 'guinea pig', 'cat']
    for chosen in (found[1], found[1:2], found[[1]], found[np.array([False, True, False])], found[-2]):
        assert chosen.names == ['guinea pig']
        assert len(chosen.masks) == len(chosen.boxes) == len(chosen.scores) == 1
    assert found.filter(score_thr=0.5).names == ['cat', 'guinea pig']
    assert found.filter(classes=['guinea pig']).names == ['guinea pig']
    assert len(found.filter(score_thr=0.95)) == 0
    assert found.filter(score_thr=0.95)
    with pytest.raises(UserError, match="no 'cats'; there are cat, dog, guinea pig"):
        found.filter(classes=['cats'])
    with pytest.raises(TypeError, match='no objects'):
        result('classification')[0]


def test_top_classes():
    found = result('classification')
    assert found.top(2) == [(1, 'dog', pytest.approx(0.7)), (0, 'cat', pytest.approx(0.2))]
    assert len(found) == 1
    assert found.names == ['dog']


def test_summaries():
    assert result().summary() == '2 cats, 1 guinea pig'
    assert result()[:0].summary() == 'nothing'
    assert result('classification').summary() == 'dog 0.70'
    assert result('segmentation').summary() == 'cat 75%, guinea pig 25%'


def test_plain_data():
    content = json.loads(json.dumps(result().to_dict()))
    assert {key: content[key] for key in ('path', 'frame', 'width', 'height', 'task')} == dict(
        path='pets/a.jpg', frame=None, width=80, height=60, task='instance'
    )
    first = content['objects'][0]
    assert (first['class_id'], first['class'], first['score']) == (0, 'cat', 0.9)
    assert first['box'] == [10, 10, 40, 30]
    assert first['mask']['size'] == [60, 80]
    assert 'mask' not in result('detection').to_dict()['objects'][0]
    assert result('classification').to_dict()['probs'][0] == {'class_id': 1, 'class': 'dog', 'score': 0.7}
    assert result('segmentation').to_dict()['label_map'] == {'share': {'cat': 0.75, 'guinea pig': 0.25}}


def test_coco_reads_it(tmp_path):
    coco_module = pytest.importorskip('pycocotools.coco')
    truth = {
        'images': [{'id': 7, 'height': 60, 'width': 80, 'file_name': 'a.jpg'}],
        'categories': [{'id': place + 1, 'name': name} for place, name in enumerate(CLASSES)],
        'annotations': result().to_coco_annotations(7, 1),
    }
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    coco = coco_module.COCO(str(path))
    loaded = coco.loadRes(result().to_coco(7))
    from pycocotools.cocoeval import COCOeval

    for kind in ('bbox', 'segm'):
        evaluation = COCOeval(coco, loaded, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1)
    for annotation, mask in zip(truth['annotations'], result().masks.dense()):
        np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), mask)
        assert annotation['area'] == mask.sum()
    # Two parts are two polygons of one object; a hole needs a code.
    assert isinstance(truth['annotations'][1]['segmentation'], dict)
    assert len(truth['annotations'][2]['segmentation']) == 2


def test_category_ids_can_be_others():
    assert [entry['category_id'] for entry in result().to_coco(1)] == [1, 3, 1]
    assert [entry['category_id'] for entry in result().to_coco(1, [17, 18, 90])] == [17, 90, 17]
    assert result('detection').to_coco(1)[0]['bbox'] == [10, 10, 30, 20]


def test_yolo_lines():
    lines = result('detection').to_yolo(scores=True).splitlines()
    assert lines[0] == '0 0.312500 0.333333 0.375000 0.333333 0.900000'
    polygon = np.array(result().to_yolo().splitlines()[0].split()[1:], float).reshape(-1, 2) * [80, 60]
    assert polygon[:, 0].min() == pytest.approx(10, abs=1e-3)
    assert polygon[:, 1].max() == pytest.approx(30, abs=1e-3)
    assert result()[:0].to_yolo() == ''
    empty = result(masks=Masks.from_dense(np.zeros((3, 60, 80), bool)))
    assert len(empty.to_yolo().splitlines()[0].split()) == 1 + 4 * 2


def test_supervision_reads_it():
    supervision = pytest.importorskip('supervision')
    found = result()
    detections = found.to_supervision()
    assert isinstance(detections, supervision.Detections)
    np.testing.assert_array_equal(detections.xyxy, found.boxes)
    np.testing.assert_array_equal(detections.mask, found.masks.dense())
    assert detections.data['class_name'].tolist() == found.names
    assert len(detections[detections.confidence > 0.5]) == 2
    assert len(found[:0].to_supervision()) == 0


def test_hugging_face_form():
    assert result().to_hf()[0] == {
        'score': pytest.approx(0.9),
        'label': 'cat',
        'box': {'xmin': 10, 'ymin': 10, 'xmax': 40, 'ymax': 30},
    }
    assert result('classification').to_hf()[0]['label'] == 'dog'
    with pytest.raises(UserError, match='no objects'):
        result('segmentation').to_hf()


def test_crops():
    found = result()
    first = found.crops()[0]
    np.testing.assert_array_equal(first, found.image[10:30, 10:40])
    assert found.crops(pad=0.5)[0].shape == (40, 55, 3)
    edge = result(boxes=np.array([[80, 60, 80, 60]] * 3, np.float32))
    assert edge.crops()[0].shape == (1, 1, 3)
    with pytest.raises(UserError, match='keep_image'):
        result(image=None).crops()


@pytest.mark.parametrize('task', ['instance', 'detection', 'classification', 'segmentation'])
def test_saved_pictures_and_data(tmp_path, task):
    found = result(task)
    drawn = found.draw()
    assert drawn.shape == (60, 80, 3)
    assert (drawn != found.image).any()
    saved = np.asarray(Image.open(found.save(tmp_path / 'new' / 'a.png')))
    np.testing.assert_array_equal(saved, drawn)
    assert json.loads(found.save(tmp_path / 'a.json').read_text()) == found.to_dict()
    with pytest.raises(UserError, match='expected an ending'):
        found.save(tmp_path / 'a.xyz')


def test_what_is_below_the_threshold_is_not_drawn():
    found = result()
    np.testing.assert_array_equal(found.draw(score_thr=0.95), found.image)
    assert (found.draw(score_thr=0.5) != found.draw()).any()
