# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit val`` and ``report`` print the numbers of tools/test.py, from a model of each task."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image
from pycocotools.mask import area

pytest.importorskip('hotcoco')
pytest.importorskip('mmdet')

from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope

from mmlightvit import load_model
from mmlightvit.cli import call
from mmlightvit.evaluation.predictions import answers
from mmlightvit.evaluation.report import write_report
from mmlightvit.evaluation.truth import of_config
from mmlightvit.toolboxes import build_model, import_toolbox

KEYS = {
    'detection': {
        f'coco/{kind}_{theirs}': (kind, ours)
        for kind in ('bbox', 'segm')
        for theirs, ours in (('mAP', 'AP'), ('mAP_50', 'AP50'), ('mAP_75', 'AP75'), ('mAP_s', 'APs'), ('mAP_m', 'APm'))
    },
    'classification': {'accuracy/top1': ('accuracy', 'top1')},
    'segmentation': {name: ('pixels', name) for name in ('aAcc', 'mIoU', 'mAcc')},
}
DIGITS = {'detection': 3, 'classification': 4, 'segmentation': 2}


@pytest.fixture(scope='module')
def labelled(trained, tmp_path_factory):
    """The models' data, labelled so that some answers are right: by the models themselves, with errors."""
    found = {}
    for task, work in trained.items():
        folder = tmp_path_factory.mktemp(f'labelled-{task}')
        shutil.copytree(work.folder, folder, dirs_exist_ok=True)
        config = folder / work.config.name
        config.write_text(config.read_text().replace(str(work.folder), str(folder)))
        _label(task, load_model(work.checkpoint, config=str(config)), folder / 'data')
        found[task] = folder, config, folder / work.checkpoint.name
    return found


def _label(task: str, model, data) -> None:
    rng = np.random.default_rng(0)
    if task == 'detection':
        path = data / 'annotations/val.json'
        content = json.loads(path.read_text())
        content['annotations'] = []
        for image in content['images']:
            result = model.predict(data / 'val' / image['file_name'], score_thr=0)[:40]
            for item in result.to_coco(image['id']):
                if area(item['segmentation']) and rng.random() < 0.7:  # a run leaves objects without a pixel out
                    item['bbox'] = [v + rng.uniform(-1, 1) for v in item['bbox'][:2]] + item['bbox'][2:]
                    item.update(id=len(content['annotations']) + 1, area=item['bbox'][2] * item['bbox'][3], iscrowd=0)
                    del item['score']
                    content['annotations'].append(item)
        path.write_text(json.dumps(content))
    elif task == 'segmentation':
        for path in (data / 'annotations/validation').iterdir():
            picture = data / 'images/validation' / f'{path.stem}.jpg'
            labels = model.predict(picture).label_map.copy()
            labels[rng.random(labels.shape) < 0.3] = rng.integers(0, 11)
            Image.fromarray(labels.astype(np.uint8)).save(path)


def printed_by_the_test_loop(config, checkpoint) -> dict[str, float]:
    """What mmengine's test loop hands to the log."""
    import torch
    from mmengine.dataset import pseudo_collate

    from mmlightvit.checkpoint.load import load_into

    cfg = Config.fromfile(config)
    import_toolbox(cfg.default_scope)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), warnings.catch_warnings():
        warnings.filterwarnings('ignore', '`reduce_zero_label` will be deprecated')  # mmseg's own data sets
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        model = build_model(cfg)
        load_into(model, str(checkpoint))
        model.eval()
        metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        for item in metrics:
            if 'ann_file' in item:
                item.ann_file = dataset.ann_file
        evaluator = Evaluator(metrics)
        evaluator.dataset_meta = dataset.metainfo
        with torch.no_grad():
            for index in range(len(dataset)):
                batch = pseudo_collate([dataset[index]])
                evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
        return evaluator.evaluate(len(dataset))


@pytest.mark.parametrize('task', KEYS)
def test_val_prints_what_the_test_loop_does(labelled, task, capsys):
    _, config, checkpoint = labelled[task]
    printed = printed_by_the_test_loop(config, checkpoint)
    capsys.readouterr()
    assert call('val', [str(checkpoint), str(config), '--config', str(config), '--split', 'test', '--json']) == 0
    ours = json.loads(capsys.readouterr().out)
    compared = 0
    for key, (kind, name) in KEYS[task].items():
        value = ours[kind][name]
        if value is None:
            assert printed[key] == -1
            continue
        assert round(float(printed[key]), DIGITS[task]) == round(value, DIGITS[task]), key
        compared += 0 < value < (1 if task == 'detection' else 100)
    assert compared >= 1


def test_thresholds_are_kept_where_predict_finds_them(labelled, tmp_path, capsys):
    from mmlightvit.model_folder.write import write_model_folder

    _, config, checkpoint = labelled['detection']
    folder = tmp_path / 'model'
    write_model_folder(folder, Config.fromfile(config), checkpoint)
    before = load_model(folder).thresholds
    arguments = [str(folder), str(config), '--split', 'test', '--set-thresholds', '--out', str(tmp_path / 'report')]
    assert call('report', arguments) == 0
    chosen = json.loads((tmp_path / 'report/metrics.json').read_text())['thresholds']
    after = load_model(folder)
    assert after.thresholds == pytest.approx(chosen['per_class'])
    assert after.thresholds != before
    assert 'F1 at IoU 0.5' in after.info.thresholds['chosen_on']
    picture = next((config.parent / 'data/val').glob('*.png'))
    result = after.predict(picture)
    assert len(result) > 0
    assert all(score >= np.float32(chosen['per_class'][name]) for name, score in zip(result.names, result.scores))


@pytest.mark.parametrize('task', KEYS)
def test_report_of_a_model(labelled, task, tmp_path):
    pytest.importorskip('matplotlib')
    _, config, checkpoint = labelled[task]
    truth = of_config(config, 'val')
    found = write_report(answers(str(checkpoint), truth, config=str(config)), truth, tmp_path)
    assert found['data']['pictures'] == len(truth.pictures)
    assert (tmp_path / 'index.html').is_file()
    assert (tmp_path / 'predictions.json').is_file()
    if task == 'detection':
        assert set(found['metrics']) == {'bbox', 'segm'}
        assert list((tmp_path / 'worst').iterdir())
