# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Models of the toolboxes: the same numbers as tools/test.py, every form of the model argument, three tasks at once."""

from __future__ import annotations

import json
import os
import shutil
import warnings

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope

from mmlightvit import load_model
from mmlightvit.checkpoint.load import load_into
from mmlightvit.errors import UserError
from mmlightvit.model_folder.info import ModelInfo
from mmlightvit.model_folder.write import write_folder, write_model_folder
from mmlightvit.toolboxes import build_model, import_toolbox

for toolbox in ('mmdet', 'mmpretrain', 'mmseg'):
    pytest.importorskip(toolbox)

TASKS = ('detection', 'classification', 'segmentation')


@pytest.fixture(scope='module')
def expected(trained):
    """What the test loop gives for each picture: the data set's pipeline, then ``model.test_step``."""
    found = {}
    for task in TASKS:
        cfg = Config.fromfile(trained[task].config)
        import_toolbox(cfg.default_scope)
        with DefaultScope.overwrite_default_scope(cfg.default_scope), warnings.catch_warnings():
            warnings.filterwarnings('ignore', '`reduce_zero_label` will be deprecated')  # mmseg's own data sets
            dataset = DATASETS.build(cfg.test_dataloader.dataset)
            model = build_model(cfg)
            load_into(model, str(trained[task].checkpoint))
            model.eval()
            with torch.no_grad():
                samples = [model.test_step(pseudo_collate([dataset[i]]))[0] for i in range(len(dataset))]
        found[task] = {sample.img_path: sample for sample in samples}
    return found


def hold_against(result, sample) -> None:
    """Boxes to 0.01 px, scores to 1e-4, label maps to 99.99 % of their pixels."""
    if result.task == 'classification':
        np.testing.assert_allclose(result.probs, sample.pred_score.numpy(), atol=1e-4)
    elif result.task == 'segmentation':
        assert (result.label_map == sample.pred_sem_seg.data[0].numpy()).mean() >= 0.9999
    else:
        instances = sample.pred_instances
        order = np.argsort(-instances.scores.numpy(), kind='stable')
        assert len(result) == len(order) > 3
        np.testing.assert_allclose(result.boxes, instances.bboxes.numpy()[order], atol=0.01)
        np.testing.assert_allclose(result.scores, instances.scores.numpy()[order], atol=1e-4)
        np.testing.assert_array_equal(result.labels, instances.labels.numpy()[order])
        np.testing.assert_array_equal(result.masks.dense(), np.asarray(instances.masks)[order])


@pytest.mark.parametrize('task', TASKS)
def test_predictions_are_those_of_the_test_loop(trained, expected, task):
    work = trained[task]
    model = load_model(work.checkpoint, config=str(work.config))
    assert model.task == ('instance' if task == 'detection' else task)
    for path in work.pictures:
        hold_against(model.predict(path, score_thr=0), expected[task][str(path)])


def _scope():
    # By name: MMEngine puts a copy of the scope that was there back.
    scope = DefaultScope.get_current_instance()
    return scope and scope.scope_name


def test_three_tasks_in_any_order_and_no_scope_stays(trained, expected):
    before = _scope()
    models = {task: load_model(trained[task].folder) for task in TASKS}
    for task in (*TASKS, *reversed(TASKS)):
        path = trained[task].pictures[0]
        hold_against(models[task].predict(path, score_thr=0), expected[task][str(path)])
    assert _scope() == before


@pytest.mark.parametrize('task', TASKS)
def test_a_model_folder_predicts_the_same(trained, expected, task, tmp_path):
    work = trained[task]
    cfg = Config.fromfile(work.config)
    info = write_model_folder(tmp_path, cfg, work.checkpoint, metrics={'metric': 0.5}, training={'epochs': 3})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'README.md', 'config.py', 'labels.txt', 'model.json', 'model.safetensors',
    ]  # fmt: skip
    (tmp_path / 'config.py').write_text('raise SystemExit("executed")')
    assert ModelInfo.load(tmp_path) == ModelInfo.from_json(info.to_json())
    model = load_model(tmp_path)
    assert model.info.metrics == {'metric': 0.5}
    assert (tmp_path / 'labels.txt').read_text().splitlines() == list(model.classes)
    card = (tmp_path / 'README.md').read_text()
    assert card.startswith('---\nlibrary_name: mmlightvit\npipeline_tag: image-')
    assert 'epochs: 3; batch: not stated' in card
    head = yaml.safe_load(card.split('---')[1])
    assert head['tags'] == ['lightvit', info.task]
    assert head['metrics'] == {'detection': ['map'], 'classification': ['accuracy'], 'segmentation': ['mean_iou']}[task]
    assert head['license'] == 'unknown'
    assert '| metric | 0.5 |' in card
    assert 'licence of the weights: not stated' in card
    for path in work.pictures:
        hold_against(model.predict(path, score_thr=0), expected[task][str(path)])


def test_pictures_of_one_size_go_through_together(trained):
    for task in TASKS:
        model, path = load_model(trained[task].folder), trained[task].pictures[0]
        (first, second), alone = (
            model.predict([path, path], batch_size=2, score_thr=0),
            model.predict(path, score_thr=0),
        )
        for result in (first, second):
            if task == 'detection':
                np.testing.assert_allclose(result.boxes, alone.boxes, atol=0.01)
            elif task == 'classification':
                np.testing.assert_allclose(result.probs, alone.probs, atol=1e-5)
            else:
                assert (result.label_map == alone.label_map).mean() > 0.999


def test_forms_of_arrays_agree(trained):
    from PIL import Image

    model, path = load_model(trained['classification'].folder), trained['classification'].pictures[1]
    pixels = np.asarray(Image.open(path))
    reference = model.predict(path).probs
    for form, channels in (
        (pixels, 'rgb'),
        (pixels[..., ::-1], 'bgr'),
        (torch.from_numpy(pixels.transpose(2, 0, 1).copy()), 'rgb'),
    ):
        np.testing.assert_array_equal(model.predict(form, channels=channels).probs, reference)


def test_the_best_checkpoint_of_a_work_directory(trained, tmp_path):
    from mmlightvit.durable.seal import atomic_save

    work = trained['classification']
    shutil.copy(work.config, tmp_path)
    with pytest.raises(UserError, match='no checkpoint that can be used'):
        load_model(tmp_path)
    content = torch.load(work.checkpoint, weights_only=True)
    atomic_save(content, tmp_path / 'epoch_1.pth', iteration=5, epoch=1, resumable=True)
    assert load_model(tmp_path).classes == tuple(map(str, range(10)))
    (tmp_path / 'epoch_1.pth').write_bytes((tmp_path / 'epoch_1.pth').read_bytes()[:-500])
    with pytest.raises(UserError, match=r'epoch_1\.pth is damaged'):
        load_model(tmp_path)
    with pytest.raises(UserError, match=r'expected model\.json'):
        (tmp_path / work.config.name).unlink()
        load_model(tmp_path)


def test_the_model_folder_of_a_work_directory_has_the_thresholds(trained, tmp_path):
    """Of the checkpoint that is taken, and of no other."""
    from dataclasses import replace

    from mmlightvit.durable.seal import atomic_save, read_seal
    from mmlightvit.model_folder.info import FILE

    work, inside, checkpoint = trained['detection'], tmp_path / 'model', tmp_path / 'epoch_1.pth'
    shutil.copy(work.config, tmp_path)
    content = torch.load(work.checkpoint, weights_only=False)
    atomic_save(content, checkpoint, iteration=5, epoch=1, resumable=True)
    info = write_model_folder(inside, Config.fromfile(work.config), checkpoint,
                              training={'checkpoint_seal': read_seal(checkpoint).sha256})  # fmt: skip
    names = tuple(f'digit {name}' for name in info.classes)
    changed = replace(info.with_thresholds(0.2, {}, 'val'), classes=names, input=info.input.with_size(64))
    (inside / FILE).write_text(changed.to_json())
    model = load_model(tmp_path)
    assert set(model.thresholds.values()) == {np.float32(0.2).item()}
    assert model.classes == names
    assert model.input.resize['short'] == 64
    atomic_save(
        {**content, 'meta': {}}, checkpoint, iteration=5, epoch=1, resumable=True
    )  # a further run, which was cut short
    assert load_model(tmp_path).thresholds == dict.fromkeys(info.classes, np.float32(0.3).item())


def test_a_published_classifier_needs_no_config(repo, tmp_path):
    from mmlightvit.published import rename_to_published

    cfg = Config.fromfile(repo / 'configs' / 'lightvit_t_imagenet.py')
    torch.manual_seed(0)
    model = build_model(cfg)
    state = {key: value for key, value in model.state_dict().items() if not key.startswith('data_preprocessor')}
    torch.save(dict(state_dict=rename_to_published(state, 'classifier')), tmp_path / 'lightvit_tiny.ckpt')
    loaded = load_model(tmp_path / 'lightvit_tiny.ckpt')
    assert len(loaded.classes) == 1000
    assert 'goldfish' in loaded.classes[1]
    assert loaded.predict(np.zeros((50, 70, 3), np.uint8)).probs.sum() == pytest.approx(1, abs=1e-4)


def test_a_name_takes_the_cached_weights(repo, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setenv('MMLIGHTVIT_OFFLINE', '1')
    with pytest.raises(UserError, match='lightvit_t_imagenet is not here and MMLIGHTVIT_OFFLINE is set'):
        load_model('lightvit_t_imagenet')
    with pytest.raises(UserError, match='no weights of retinanet_lightvit_t_1x are published'):
        load_model('retinanet_lightvit_t_1x')
    cache = tmp_path / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    model = build_model(Config.fromfile(repo / 'configs' / 'lightvit_t_imagenet.py'))
    torch.save(dict(state_dict=model.state_dict()), cache / 'lightvit_tiny_78.7.ckpt')
    assert load_model('lightvit_t_imagenet').info.name == 'lightvit_t_imagenet'


def test_random_weights_only_when_asked_for(trained):
    config = trained['classification'].config
    with pytest.raises(UserError, match='has no weights'):
        load_model(config)
    assert load_model(config, allow_random=True).predict(np.zeros((32, 32, 3), np.uint8)).probs.shape == (10,)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (dict(config=None), r'is a own classifier|is an? own classifier|needs its config'),
        (dict(config='missing.py'), r'config not found: missing\.py'),
        (dict(device='gpu'), "device 'gpu' cannot be used"),
    ],
)
def test_mistakes_are_one_line(trained, arguments, words):
    work = trained['classification']
    with pytest.raises(UserError, match=words):
        load_model(work.checkpoint, **{'config': str(work.config), **arguments})


# -- a model folder is data -------------------------------------------------------------------------------------------
PAYLOADS = [
    {'type': 'os.system', 'command': 'touch executed'},
    {'type': 'evil.X'},
    [[{'deep': [{'type': 'subprocess.call', 'args': ['touch', 'executed']}]}]],
    {'type': 'torch.load', 'f': 'executed'},
    {'type': 'builtins.exec', 'object': 'open("executed", "w")'},
    {'type': 'mmdet.os.system', 'command': 'touch executed'},
    {'type': 'Linear', '_scope_': 'evil'},
    {'type': ['os.system']},
    {'nms': {'type': '__import__("os").system("touch executed")'}},
    {'roi_layer': {'type': 'nms'}},
]


@pytest.fixture(scope='module')
def folder(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp('model')
    write_model_folder(path, Config.fromfile(trained['detection'].config), trained['detection'].checkpoint)
    return path


def changed(folder, target, change) -> None:
    """A copy of a model folder with a changed model.json."""
    shutil.copytree(folder, target)
    content = json.loads((target / 'model.json').read_text())
    change(content)
    (target / 'model.json').write_text(json.dumps(content))


@pytest.mark.parametrize('payload', PAYLOADS)
@pytest.mark.parametrize('place', ['test_cfg', 'whole'])
def test_nothing_that_a_folder_names_is_run(folder, tmp_path, monkeypatch, payload, place):
    (tmp_path / 'evil.py').write_text('open("executed", "w")')
    (tmp_path / 'evil').mkdir()
    (tmp_path / 'evil' / 'registry.py').write_text('open("executed", "w")')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def change(content):
        if place == 'whole' and isinstance(payload, dict) and 'type' in payload:
            content['model'] = payload
        else:
            content['model']['test_cfg']['rcnn']['more'] = payload

    changed(folder, tmp_path / 'm', change)
    with pytest.raises(UserError) as caught:
        load_model(tmp_path / 'm')
    assert 'which is no model part' in str(caught.value)
    assert not os.path.exists('executed')


@pytest.mark.parametrize('name', ['AnchorGenerator', 'mmdet.AnchorGenerator', 'MaxIoUAssigner'])
def test_a_file_that_has_the_name_of_a_part_is_not_run(folder, tmp_path, monkeypatch, name):
    """The parts are on the list, but the models' registry does not have them."""
    (tmp_path / f'{name.rpartition(".")[2]}.py').write_text('open("executed", "w")')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    changed(folder, tmp_path / 'm', lambda content: content['model'].update(neck={'type': name}))
    with pytest.raises(UserError, match=r'AnchorGenerator|MaxIoUAssigner'):
        load_model(tmp_path / 'm')
    assert not os.path.exists('executed')


def test_the_first_payload_is_named(folder, tmp_path):
    payload = {'type': 'os.system', 'command': 'true'}
    changed(folder, tmp_path / 'm', lambda content: content['model'].update(backbone=payload))
    with pytest.raises(UserError, match=r"^model\.json asks for 'os\.system', which is no model part$"):
        load_model(tmp_path / 'm')


@pytest.mark.parametrize(
    ('part', 'setting', 'value'),
    [
        ('backbone', 'init_cfg', {'type': 'Pretrained', 'checkpoint': 'http://127.0.0.1:9/evil.pth'}),
        ('rpn_head', 'pretrained', 'http://127.0.0.1:9/evil.pth'),
        ('rpn_head', 'where', 'weights/evil.pth'),
    ],
)
def test_a_folder_that_names_a_path_or_an_address_is_refused(folder, tmp_path, part, setting, value):
    changed(folder, tmp_path / 'm', lambda content: content['model'][part].update({setting: value}))
    with pytest.raises(UserError, match=rf'^model\.json asks for .*\(model\.{part}\.{setting}\), .* no file, address'):
        load_model(tmp_path / 'm')


def test_weights_that_were_exchanged_are_noticed(trained, tmp_path):
    work = trained['classification']
    info = write_model_folder(tmp_path / 'a', Config.fromfile(work.config), work.checkpoint)
    state = torch.load(work.checkpoint, weights_only=True)['state_dict']
    write_folder(tmp_path / 'b', info, {key: value * 0 for key, value in state.items()})
    shutil.copy(tmp_path / 'b' / 'model.safetensors', tmp_path / 'a')
    with pytest.raises(UserError, match='SHA-256'):
        load_model(tmp_path / 'a')


def test_the_command_on_a_trained_model(trained, tmp_path, monkeypatch, capsys):
    from mmlightvit.cli import main

    monkeypatch.chdir(tmp_path)
    work = trained['detection']
    source = str(work.pictures[0].parent)
    assert main(['predict', str(work.folder), source, '--score-thr', '0.05', '--json', '--explain']) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)['results']) == 3
    assert len(list((tmp_path / 'outputs' / 'predict' / 'explain').glob('*.jpg'))) == 3
