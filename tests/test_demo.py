# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The demos in small: data, a few steps, a test, pictures; and the detector that starts from the classifier.

What the demos reach at full length stands in docs/demo.md. Each run is a forked process.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contact_sheet import contact_sheet, predict
from digits import SEGMENTATION_CLASSES, TASK_SETTINGS, prepare
from PIL import Image
from processes import run_forked

from mmlightvit.cli import test, train
from mmlightvit.cli.config import load_config
from mmlightvit.durable.safe_loading.read import read_checkpoint
from mmlightvit.explain.curves import plot_logs, read_run
from mmlightvit.toolboxes import TOOLBOXES, import_toolbox

SHORT = ['train_cfg.max_epochs=2', 'train_cfg.val_interval=1', 'default_hooks.logger.interval=1']
DEMOS = {
    'detection': ('mask_rcnn_lightvit_digits', SHORT, 'epoch_2.pth', 'coco/segm_mAP'),
    'classification': ('lightvit_digits', SHORT, 'epoch_2.pth', 'accuracy/top1'),
    'segmentation': (
        'semantic_fpn_lightvit_digits',
        ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.logger.interval=1',
         'default_hooks.checkpoint.interval=2'],
        'iter_2.pth',
        'mIoU',
    ),
}  # fmt: skip


@pytest.fixture(scope='module', autouse=True)
def toolboxes() -> None:
    """Imported before anything forks."""
    for scope in TOOLBOXES:
        pytest.importorskip(scope)
        import_toolbox(scope)


def train_demo(repo: Path, task: str, root: Path, *options: str) -> Path:
    """Train the task's demo for two steps or epochs on a few images; gives the checkpoint."""
    name, short, checkpoint, _ = DEMOS[task]
    prepare(task, root / 'data', replace(TASK_SETTINGS[task], num_train=10, num_val=10))
    arguments = [f'{repo}/configs/demo/{name}.py', '--work-dir', f'{root}/run', '--data-root', f'{root}/data']
    train.train(train.parser().parse_args([*arguments, '--cfg-options', *short, *options]))
    return root / 'run' / checkpoint


def run_demo(repo: Path, task: str, root: Path) -> float:
    """All steps of a demo; gives the metric that tools/test.py finds."""
    name, _, _, metric = DEMOS[task]
    checkpoint = train_demo(repo, task, root)
    config = f'{repo}/configs/demo/{name}.py'
    arguments = [config, str(checkpoint), '--work-dir', f'{root}/run', '--data-root', f'{root}/data']
    metrics = test.test(test.parser().parse_args(arguments))
    plot_logs([read_run(root / 'run')], root / 'curves.png')
    cfg = test.prepare(test.parser().parse_args(arguments))
    # No box of a model trained for two epochs is sure, so all are drawn.
    contact_sheet(predict(cfg, str(checkpoint), 3, score_thr=0.0), root / 'predictions.png', columns=2)
    return float(metrics[metric])


@pytest.mark.parametrize('task', DEMOS)
def test_a_demo_from_data_to_pictures(repo, tmp_path, task):
    (measured,) = run_forked(1, run_demo, repo, task, tmp_path)
    run = read_run(tmp_path / 'run')
    steps, values = run.metrics[DEMOS[task][3]]
    # The checkpoint tested is the one validated last.
    assert values[-1] == pytest.approx(measured, abs=0.011)
    assert steps[-1] == run.training['loss'][0][-1]
    sizes = {}
    for name in ('curves', 'predictions'):
        with Image.open(tmp_path / f'{name}.png') as picture:
            assert len(picture.convert('RGB').getcolors(1 << 24)) > 100
            sizes[name] = picture.size
    assert sizes['predictions'][1] > 1.5 * 200, 'three images in two columns are two rows'


def detector_from_classifier(repo: Path, root: Path) -> bool:
    """Whether the backbone of a detector that starts from the classifier has the classifier's parameters."""
    checkpoint = train_demo(repo, 'classification', root)
    source = read_checkpoint(checkpoint)['state_dict']
    cfg = load_config(f'{repo}/configs/demo/mask_rcnn_lightvit_digits.py')
    cfg.merge_from_dict(readme_options(repo, checkpoint))
    from mmdet.registry import MODELS

    model = MODELS.build(cfg.model)
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    model.init_weights()
    equal = changed = 0
    for key, value in model.backbone.state_dict().items():
        if key.startswith('norm'):
            assert f'backbone.{key}' not in source  # the output norms of dense tasks start fresh
            continue
        equal += int(torch.equal(value, source[f'backbone.{key}']))
        changed += int(not torch.equal(value, before[key]))
        assert torch.equal(value, source[f'backbone.{key}']), key
    return equal > 100 and changed > 100


def readme_options(repo: Path, checkpoint: Path) -> dict[str, str]:
    """The options that docs/demo.md gives for starting the detector from the classifier."""
    text = (repo / 'docs' / 'demo.md').read_text()
    options = dict(re.findall(r'(model\.backbone\.init_cfg\.\w+)=(\S+)', text))
    assert options['model.backbone.init_cfg.checkpoint'] == 'work_dirs/demo/classification/epoch_8.pth'
    return {**options, 'model.backbone.init_cfg.checkpoint': str(checkpoint)}


def test_a_detector_starts_from_the_classifier(repo, tmp_path):
    assert run_forked(1, detector_from_classifier, repo, tmp_path) == [True]


def test_the_configs_name_the_classes_that_are_drawn(repo):
    names = {task: load_config(f'{repo}/configs/demo/{demo[0]}.py').metainfo.classes for task, demo in DEMOS.items()}
    assert tuple(names['segmentation']) == SEGMENTATION_CLASSES
    assert tuple(names['detection']) == tuple(names['classification']) == SEGMENTATION_CLASSES[1:]


def test_the_three_backbones_are_one(repo):
    backbones = [load_config(f'{repo}/configs/demo/{demo[0]}.py').model.backbone for demo in DEMOS.values()]
    for backbone in backbones:
        backbone.pop('out_indices', None)
        backbone.pop('out_type', None)
    assert backbones[0] == backbones[1] == backbones[2]


def test_makefile_names_the_checkpoints_that_the_configs_leave(repo):
    text = (repo / 'Makefile').read_text()
    calls = dict(re.findall(r'run_demo,\w+,(\w+),(\w+\.pth)\)', text))
    for name, *_ in DEMOS.values():
        schedule = load_config(f'{repo}/configs/demo/{name}.py').train_cfg
        iterations = schedule.get('max_iters')
        assert calls[name] == (f'iter_{iterations}.pth' if iterations else f'epoch_{schedule.max_epochs}.pth')
