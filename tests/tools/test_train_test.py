# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Training and testing through the entry point: the published configs on a few small images.

Every run is in forked processes, so that the toolboxes are imported once and MMEngine's global state stays apart.
"""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_data
import torch
from mmengine.hooks import Hook
from processes import run_forked

from mmlightvit import load_model
from mmlightvit.cli import test, train
from mmlightvit.cli.config import load_config
from mmlightvit.cli.run import build_runner
from mmlightvit.toolboxes import TOOLBOXES, import_toolbox

RETINANET = [
    *tiny_data.DETECTION,
    'model.bbox_head.num_classes=2',
    'model.bbox_head.stacked_convs=1',
    *(f'tta_pipeline.1.transforms.0.{index}.scale=({size},{size})' for index, size in enumerate((64, 32, 96))),
]
MASK_RCNN = [
    *tiny_data.DETECTION,
    'model.roi_head.bbox_head.num_classes=2',
    'model.roi_head.mask_head.num_classes=2',
    'model.roi_head.mask_head.num_convs=1',
    'model.train_cfg.rcnn.sampler.num=16',
    'model.train_cfg.rpn_proposal.max_per_img=50',
    'model.test_cfg.rpn.max_per_img=20',
    'model.test_cfg.rcnn.max_per_img=5',
]
CASES = {
    'detection': ('retinanet_lightvit_t_1x.py', RETINANET, tiny_data.write_coco),
    'classification': ('lightvit_t_imagenet.py', tiny_data.CLASSIFICATION, tiny_data.write_image_folders),
    'segmentation': ('semantic_fpn_lightvit_t_ade20k.py', tiny_data.SEGMENTATION, tiny_data.write_ade),
}
METRIC = {'detection': 'coco/bbox_mAP', 'classification': 'accuracy/top1', 'segmentation': 'mIoU'}


@pytest.fixture(scope='module', autouse=True)
def toolboxes() -> None:
    """Imported before anything forks."""
    for scope in TOOLBOXES:
        pytest.importorskip(scope)
        import_toolbox(scope)


def _train(*arguments: str) -> list[float]:
    """What there is to check about a run, in types that a weights-only load takes."""
    runner = train.train(train.parser().parse_args(arguments))
    hooks = [type(hook).__name__ for hook in runner.hooks]
    rate = runner.optim_wrapper.optimizer.param_groups[0]['initial_lr']
    losses = runner.message_hub.get_scalar('train/loss').data[0].tolist()
    return [
        runner.world_size,
        float('EMAHook' in hooks),
        float(str(runner.optim_wrapper.cast_dtype)[-2:]),
        rate,
        *losses,
    ]


def _predict(folder: str) -> list:
    """Task, epochs and size of an answer of the model folder that a training leaves."""
    model = load_model(folder)
    result = model.predict(np.zeros((48, 64, 3), np.uint8))
    return [model.task, model.info.training['epochs'], result.height, result.width]


def _test(*arguments: str) -> dict[str, float]:
    return {name: float(value) for name, value in test.test(test.parser().parse_args(arguments)).items()}


@pytest.mark.parametrize('task', CASES)
def test_two_processes_in_bfloat16_then_test(task, repo, tmp_path):
    """--launcher --amp --ema --auto-scale-lr --data-root for training; --tta --amp --out --show-dir for testing."""
    config, options, write_data = CASES[task]
    write_data(tmp_path / 'data', images=2)
    common = [
        str(repo / 'configs' / config),
        '--data-root',
        str(tmp_path / 'data'),
        '--work-dir',
        str(tmp_path / 'run'),
    ]
    extra = ['--amp', '--ema', '--auto-scale-lr', '--launcher', 'pytorch', '--cfg-options', *options]
    for world_size, has_ema, precision, rate, *losses in run_forked(2, _train, *common, *extra):
        assert (world_size, has_ema, precision) == (2, 1, 16)
        base = load_config(common[0])
        batch = dict(option.split('=', 1) for option in options)['train_dataloader.batch_size']
        scale = 2 * int(batch) / base.auto_scale_lr.base_batch_size
        assert rate == pytest.approx(base.optim_wrapper.optimizer.lr * scale)
        assert losses and all(math.isfinite(loss) and loss > 0 for loss in losses)

    [predicted] = run_forked(1, _predict, str(tmp_path / 'run' / 'model'))
    assert predicted == [task, 0 if task == 'segmentation' else 1, 48, 64]

    checkpoint = str(next(path for path in (tmp_path / 'run').glob('*.pth') if not path.name.startswith('best')))
    out = tmp_path / ('labels' if task == 'segmentation' else 'out.pkl')
    pictures = tmp_path / 'pictures'
    testing = [common[0], checkpoint, *common[1:], '--amp', '--out', str(out)]
    # mmpretrain draws the network's input, of which there are several with --tta: the two exclude each other there.
    testing += ['--show-dir', str(pictures)] if task == 'classification' else ['--tta', '--show-dir', str(pictures)]
    # A detector this young is sure of nothing; without a threshold it has boxes to merge and to draw all the same.
    more = ['model.test_cfg.score_thr=0.0'] if task == 'detection' else []
    [metrics] = run_forked(1, _test, *testing, '--cfg-options', *options, *more)
    assert 0 <= metrics[METRIC[task]] <= 100
    assert [path for path in pictures.rglob('*') if path.suffix in ('.png', '.jpg')]
    if task == 'classification':
        [metrics] = run_forked(1, _test, *common[:1], checkpoint, *common[1:], '--tta', '--cfg-options', *options)
        assert 0 <= metrics[METRIC[task]] <= 100
    if task == 'segmentation':
        assert len(list(out.iterdir())) == 2
    else:
        with open(out, 'rb') as file:
            assert len(pickle.load(file)) == (2 if task == 'detection' else 4)
    # The same images without labels are predicted alike, and not measured.
    if task == 'detection':
        return  # test_predictions_as_json
    dataset = 'test_dataloader.dataset.'
    without = ['with_label=False'] if task == 'classification' else ['data_prefix.seg_map_path=None']
    unlabelled = tmp_path / ('maps' if task == 'segmentation' else 'out.json')
    testing = [common[0], checkpoint, *common[1:], '--out', str(unlabelled), '--cfg-options', *options]
    assert run_forked(1, _test, *testing, *(dataset + setting for setting in without)) == [{}]
    if task == 'segmentation':
        assert {path.name for path in unlabelled.iterdir()} == {path.name for path in out.iterdir()}
    else:
        found = json.loads(unlabelled.read_text())['results']
        assert {Path(result['path']).parent.name for result in found} == {'cat', 'dog'}
        assert [len(result['probs']) for result in found] == [2] * 4
        assert all(sum(entry['score'] for entry in result['probs']) == pytest.approx(1) for result in found)


def test_mask_rcnn_trains_in_bfloat16_and_tests(repo, tmp_path):
    tiny_data.write_coco(tmp_path / 'data', images=2)
    common = [str(repo / 'configs/mask_rcnn_lightvit_t_1x.py'), '--data-root', str(tmp_path / 'data')]
    common += ['--work-dir', str(tmp_path / 'run')]
    [[_, _, precision, _, *losses]] = run_forked(1, _train, *common, '--amp', '--cfg-options', *MASK_RCNN)
    assert precision == 16
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    checkpoint = str(tmp_path / 'run' / 'epoch_1.pth')
    options = [*MASK_RCNN, 'model.test_cfg.rcnn.score_thr=0.0']
    [metrics] = run_forked(1, _test, common[0], checkpoint, *common[1:], '--amp', '--cfg-options', *options)
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(metrics)


def test_predictions_as_json_measure_the_same_and_need_no_labels(repo, tmp_path):
    """The file, read by COCO's own API, gives the metrics; images without annotations give the same file."""
    coco_api = pytest.importorskip('pycocotools.coco')
    coco_eval = pytest.importorskip('pycocotools.cocoeval')
    tiny_data.write_coco(tmp_path / 'data', images=2, size=128)
    torch.manual_seed(1)
    common = [str(repo / 'configs/mask_rcnn_lightvit_t_1x.py'), str(tmp_path / 'run' / 'epoch_1.pth')]
    common += ['--data-root', str(tmp_path / 'data'), '--work-dir', str(tmp_path / 'run')]
    run_forked(1, _train, common[0], *common[2:], '--amp', '--cfg-options', *MASK_RCNN)
    # Much is found by chance where hardly anything is asked for.
    options = ['--cfg-options', *MASK_RCNN, 'model.test_cfg.rcnn.score_thr=0.0', 'model.test_cfg.rcnn.max_per_img=100']
    options = [option for option in options if option != 'model.test_cfg.rcnn.max_per_img=5']
    [metrics] = run_forked(1, _test, *common, '--out', str(tmp_path / 'out.json'), *options)
    truth = coco_api.COCO(tmp_path / 'data/annotations/instances_val2017.json')
    found = truth.loadRes(str(tmp_path / 'out.json'))
    for kind in ('bbox', 'segm'):
        measured = coco_eval.COCOeval(truth, found, kind)
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
        assert measured.stats[1] == pytest.approx(metrics[f'coco/{kind}_mAP_50'], abs=1e-3)

    content = json.loads((tmp_path / 'data/annotations/instances_val2017.json').read_text())
    del content['annotations']
    (tmp_path / 'data/annotations/image_info.json').write_text(json.dumps(content))
    ann_file = 'test_dataloader.dataset.ann_file=annotations/image_info.json'
    again = run_forked(1, _test, *common, '--out', str(tmp_path / 'again.json'), *options, ann_file)
    assert again == [{}]
    assert json.loads((tmp_path / 'again.json').read_text()) == json.loads((tmp_path / 'out.json').read_text())


class _KeepStart(Hook):
    """Keep the weights that a training begins with."""

    def before_train(self, runner):
        self.weights = {name: value.detach().clone() for name, value in runner.model.named_parameters()}


def _learn(*arguments: str) -> tuple[list[float], list[str], list[str]]:
    """The losses; what was trained; and what is as it was."""
    runner = build_runner(train.prepare(train.parser().parse_args(arguments)))
    runner.register_hook(start := _KeepStart())
    runner.train()
    trained = {name: value for name, value in runner.model.named_parameters() if value.requires_grad}
    unchanged = [name for name, value in trained.items() if torch.equal(value, start.weights[name])]
    return runner.message_hub.get_scalar('train/loss').data[0].tolist(), list(trained), unchanged


def test_forty_steps_on_one_image_change_every_part(repo, tmp_path):
    tiny_data.write_coco(tmp_path / 'data', images=1, size=128)
    options = [
        *(option for option in MASK_RCNN if 'max_epochs' not in option),
        'train_cfg.max_epochs=40',
        'train_cfg.val_interval=100',
        'default_hooks.checkpoint.interval=100',
        'param_scheduler=[]',  # no warm-up
        'optim_wrapper.optimizer.lr=1e-4',
        'train_dataloader.dataset.pipeline.2.scale=(128,128)',
    ]
    common = [str(repo / 'configs/mask_rcnn_lightvit_t_1x.py'), '--data-root', str(tmp_path / 'data')]
    common += ['--work-dir', str(tmp_path / 'run')]
    [(losses, trained, unchanged)] = run_forked(1, _learn, *common, '--cfg-options', *options)
    assert len(losses) == 40
    assert sum(losses[-5:]) / 5 < losses[0] / 2  # which proposals are drawn makes single losses jump
    parts = ('backbone.patch_embed', 'backbone.global_token', 'backbone.stages', 'backbone.norm', 'neck', 'rpn_head')
    for part in (*parts, 'roi_head.bbox_head', 'roi_head.mask_head'):
        assert [name for name in trained if name.startswith(part)], part
    assert unchanged == []


@pytest.mark.parametrize(
    ('tool', 'arguments', 'said'),
    [
        ('train.py', ['no_such_config.py'], 'no_such_config.py'),
        ('test.py', ['CONFIG', 'no_such.pth'], 'no_such.pth'),
    ],
)
def test_a_tool_reports_in_one_line(tool, arguments, said, repo, tmp_path):
    arguments = [str(repo / 'configs/lightvit_t_imagenet.py') if item == 'CONFIG' else item for item in arguments]
    ran = subprocess.run(
        [sys.executable, repo / 'tools' / tool, *arguments, '--work-dir', tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    [line] = ran.stderr.splitlines()
    assert line.startswith('error: ')
    assert said in line


@pytest.mark.parametrize('parser', [train.parser(), test.parser()])
def test_help_has_an_example(parser):
    assert 'examples:' in parser.format_help()
