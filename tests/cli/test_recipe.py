# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit train FOLDER``: the config that each option gives."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import planted
import pytest

from mmlightvit.cli import main, options, recipe, train
from mmlightvit.cli.config import load_config
from mmlightvit.data.folder import DatasetFolder
from mmlightvit.errors import UserError

TOOLBOXES = {'classification': 'mmpretrain', 'detection': 'mmdet', 'instance': 'mmdet', 'segmentation': 'mmseg'}
NO_WEIGHTS = ['--from', 'none']


def _import(folder: Path, task: str) -> Path:
    source, out = folder / 'data', folder / 'pets'
    if task == 'classification':
        planted.write_folders(source, images=2)
    elif task == 'segmentation':
        planted.write_labelled(source, images=2)
    else:
        planted.write_coco(source, images=3)
    names = ['--classes', ','.join(['background', *planted.CLASSES])] if task == 'segmentation' else []
    assert main(['data', 'import', str(source), '--out', str(out), '--task', task, *names]) == 0
    return out


@pytest.fixture(params=TOOLBOXES)
def pets(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared folder of each task, and the current directory beside it."""
    pytest.importorskip(TOOLBOXES[request.param])
    monkeypatch.chdir(tmp_path)
    return _import(tmp_path, request.param)


@pytest.fixture
def boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared folder for detection."""
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    return _import(tmp_path, 'detection')


def _prepare(*arguments: Any) -> Any:
    args = train.parser().parse_args([str(item) for item in arguments])
    train.require(args)
    cfg = train.prepare(args)
    train.check(cfg)
    return cfg


def test_the_recipe_of_the_task(pets: Path) -> None:
    folder = DatasetFolder.load(pets)
    cfg = _prepare(pets, *NO_WEIGHTS)
    assert cfg.default_scope == TOOLBOXES[folder.task]
    assert cfg.work_dir == 'work_dirs/pets'
    assert cfg.model.backbone.get('init_cfg') is None
    assert not cfg.model.backbone.get('norm_eval')
    assert cfg.auto_scale_lr.enable
    (hook,) = cfg.custom_hooks
    assert (hook.type, hook.patience) == ('mmlightvit.EarlyStoppingHook', 20)
    assert hook.monitor == cfg.default_hooks.checkpoint.save_best
    assert hook.min_delta == (0.0005 if TOOLBOXES[folder.task] == 'mmdet' else 0.05)


def test_the_order_of_precedence_is_what_the_docs_say(repo: Path) -> None:
    rows = []
    for number, (name, stage) in enumerate(options.STAGES.items(), 1):
        flags = ', '.join(f'`{item.flag}`' for item in options.TRAIN if item.stage == name)
        rows.append(f'| {number} | {stage.meaning} | {flags} |')
    text = (repo / 'docs/training.md').read_text()
    assert '\n'.join(rows).replace(', `--local-rank`', '') in text  # older launchers' way, which has no help either


def test_a_later_stage_has_the_last_word(boxes: Path) -> None:
    settings = ['--cfg-options', 'optim_wrapper.optimizer.lr=0.5', 'randomness.seed=5', 'work_dir=a']
    given = ['--lr', '0.25', '--seed', '0', '--work-dir', 'b', '--workers', '0']
    cfg = _prepare(boxes, *NO_WEIGHTS, *given, *settings)
    assert (cfg.optim_wrapper.optimizer.lr, cfg.randomness.seed, cfg.work_dir) == (0.25, 0, 'b')
    assert cfg.train_dataloader.num_workers == 0
    cfg = _prepare(boxes, *NO_WEIGHTS, *settings)
    assert (cfg.optim_wrapper.optimizer.lr, cfg.randomness.seed, cfg.work_dir) == (0.5, 5, 'a')


def test_the_line_that_is_printed_gives_the_same_config(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    args = [pets, *NO_WEIGHTS, '--epochs', 3, '--batch', 2, '--seed', 5, '--size', 96, '--workers', 0, '--freeze', 1]
    cfg = train.announced(train.parser().parse_args([str(item) for item in args]))
    program, tool, written = capsys.readouterr().out.splitlines()[-1].split()
    assert (program, tool, written) == ('python', 'tools/train.py', 'work_dirs/pets/config.py')
    Path('work_dirs/pets').mkdir(parents=True)
    cfg.dump(written)  # as the runner does
    again = _prepare(written)
    assert again.to_dict() == cfg.to_dict()
    assert (again.train_dataloader.batch_size, again.randomness.seed, again.model.backbone.frozen_stages) == (2, 5, 1)
    pictures = DatasetFolder.load(pets).info['splits']['train']['pictures']
    if again.default_scope == 'mmseg':
        assert again.train_cfg.max_iters == 3 * math.ceil(pictures / 2)
        assert again.train_cfg.val_interval == math.ceil(pictures / 2)
        assert again.param_scheduler[0].end == again.train_cfg.max_iters
    else:
        assert again.train_cfg.max_epochs == 3
        assert max(item['end'] for item in again.param_scheduler if item['by_epoch']) == 3
    sizes = json.dumps([again.train_dataloader.dataset.pipeline, again.val_dataloader.dataset.pipeline])
    assert '96' in sizes
    assert not any(number in sizes for number in ('800', '512', '224'))


@pytest.mark.parametrize(
    ('scope', 'name', 'arch'),
    [
        ('detection', 'retinanet_lightvit_s_1x', 'small'),
        ('instance', 'cascade_mask_rcnn_lightvit_b_3x', 'base'),
        ('segmentation', 'upernet_lightvit_s_ade20k', 'small'),
        ('classification', 'lightvit_s_imagenet', 'small'),
    ],
)
def test_another_model_of_the_task(scope: str, name: str, arch: str, tmp_path: Path) -> None:
    pytest.importorskip(TOOLBOXES[scope])
    pets = _import(tmp_path, scope)
    plain = load_config(str(pets / 'config.py'))
    cfg = load_config(str(pets / 'config.py'))
    folder = DatasetFolder.load(pets)
    recipe.use_model(cfg, name, folder)
    assert cfg.model.backbone.arch == arch
    assert f'lightvit_{arch}' in cfg.model.backbone.init_cfg.checkpoint
    heads = [head for head in recipe._dicts(cfg.model) if 'num_classes' in head]
    assert heads
    assert all(head['num_classes'] == len(folder.classes) for head in heads)
    for key in ('train_dataloader', 'val_evaluator', 'param_scheduler', 'optim_wrapper', 'train_cfg'):
        assert cfg[key] == plain[key]


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--model', 'retinanet_lightvit_q_1x'], 'no config of that name; nearest: retinanet_lightvit_'),
        (['--model', 'mask_rcnn_lightvit_t_1x'], 'is not for detection'),
        (['--model', 'lightvit_t_imagenet'], 'is not for detection'),
        (['--from', 'lightvit_t_imagnet'], 'nearest: lightvit_t_imagenet'),
        (['--balance', 'loss'], 'use repeat'),
        (['--fold', '1'], 'has no fold 1'),
        (['--size', '7'], 'at least 32'),
        (['--epochs', '0'], 'at least 1'),
        (['--device', 'gpu'], 'expected cpu, cuda or cuda:N'),
        (['--workers', '-1'], '--workers expects a number of at least 0, got -1'),
        (['--batch', '0'], '--batch expects a number of at least 1'),
    ],
)
def test_a_wrong_option_is_a_line(boxes: Path, arguments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        _prepare(boxes, *arguments)


def test_a_class_alone_is_nothing_to_learn(tmp_path: Path) -> None:
    planted.write_folders(tmp_path / 'data', images=1)
    only = ['--classes', planted.CLASSES[0]]
    assert main(['data', 'import', str(tmp_path / 'data'), '--out', str(tmp_path / 'pets'), *only]) == 0
    with pytest.raises(UserError, match='has one class, disk: there is nothing to tell apart'):
        _prepare(tmp_path / 'pets')


def test_a_start_from_a_model_needs_no_other_weights(boxes: Path) -> None:
    (boxes / 'model').mkdir()
    (boxes / 'model/model.safetensors').touch()
    cfg = _prepare(boxes, '--from', boxes)
    assert cfg.load_from == str(boxes / 'model/model.safetensors')
    assert cfg.load_other_classes
    assert cfg.model.backbone.get('init_cfg') is None


def test_options_of_a_folder_are_refused_for_a_config(boxes: Path) -> None:
    with pytest.raises(UserError, match='--balance goes with a prepared folder'):
        _prepare(boxes / 'config.py', '--balance', 'repeat')
    assert _prepare(boxes / 'config.py', *NO_WEIGHTS).custom_hooks == []
    assert _prepare(boxes / 'config.py', *NO_WEIGHTS, '--patience', 3).custom_hooks[0].patience == 3


def test_the_rate_is_scaled_unless_it_is_given(boxes: Path) -> None:
    cfg = _prepare(boxes, *NO_WEIGHTS, '--lr', '0.003', '--patience', 0)
    assert cfg.optim_wrapper.optimizer.lr == 0.003
    assert not cfg.auto_scale_lr.get('enable')
    assert cfg.custom_hooks == []


def test_balance_repeats_pictures_of_rare_classes(boxes: Path, capsys: pytest.CaptureFixture) -> None:
    from mmlightvit.toolboxes import import_toolbox

    folder = DatasetFolder.load(boxes)
    file = folder.file_of('train')
    content = json.loads(file.read_text())
    rare, common = content['annotations'][0]['category_id'], len(content['images'])
    others = [category['id'] for category in content['categories'] if category['id'] != rare]
    first = content['annotations'][0]
    # The first class in the first picture alone, the others in all.
    content['annotations'] = [
        {**first, 'id': number, 'image_id': image['id'], 'category_id': category}
        for number, (image, category) in enumerate(
            [(image, other) for image in content['images'] for other in others] + [(content['images'][0], rare)], 1
        )
    ]
    file.write_text(json.dumps(content))
    cfg = _prepare(boxes, *NO_WEIGHTS, '--balance', 'repeat')
    lines = capsys.readouterr().out.splitlines()
    assert (
        f'{folder.classes[rare - 1]}: pictures x {math.sqrt(0.75 / 0.5):.2f}' in lines
    )  # the median of 0.5 and 1, over 0.5
    assert f'{folder.classes[others[0] - 1]}: pictures x 1.00' in lines
    import_toolbox('mmdet')
    from mmdet.registry import DATASETS
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmdet'):
        built = DATASETS.build(cfg.train_dataloader.dataset)
    assert (common, len(built)) == (2, 3)  # the picture of the rare class comes twice


@pytest.mark.parametrize('task', ['classification', 'segmentation'])
def test_balance_weighs_the_loss(tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(TOOLBOXES[task])
    monkeypatch.chdir(tmp_path)
    pets = _import(tmp_path, task)
    cfg = _prepare(pets, *NO_WEIGHTS, '--balance', 'loss')
    loss = cfg.model.head.loss if task == 'classification' else cfg.model.decode_head.loss_decode
    weights = loss.class_weight
    assert len(weights) == len(DatasetFolder.load(pets).classes)
    assert sum(weights) / len(weights) == pytest.approx(1, abs=1e-3)
    if task == 'segmentation':
        assert weights[0] == min(weights)  # the background is the largest
