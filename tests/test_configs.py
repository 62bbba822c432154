# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Each config parses, builds and says what the paper says; each family takes a training step."""

from __future__ import annotations

import copy
import functools
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import tracked
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from torch import nn
from variants import TEST_ARCH

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')
pytest.importorskip('mmseg')

ROOT = Path(__file__).resolve().parents[1]

CONFIGS = sorted(
    str(path.relative_to(ROOT / 'configs'))
    for path in tracked.files(ROOT, 'configs')
    if '_base_' not in path.relative_to(ROOT / 'configs').parts
)
#: Number of configs per family: three variants, times schedules, times sources of the values.
FAMILIES = {'mask_rcnn': 12, 'retinanet': 3, 'cascade_mask_rcnn': 3, 'semantic_fpn': 3, 'upernet': 3}


@functools.cache
def load(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / name)


def build(cfg: Config, device: str = 'meta') -> nn.Module:
    """The model as the runner builds it; on `meta` nothing is allocated or drawn."""
    model = copy.deepcopy(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        return MODELS.build(model)


@functools.cache
def meta_model(name: str) -> nn.Module:
    return build(load(name))


# ------------------------------------------------------------------------------------------------------- every config


def test_every_family_is_there():
    for family, number in FAMILIES.items():
        assert len([name for name in CONFIGS if name.startswith(f'{family}_lightvit')]) == number
    assert {f'lightvit_{size}_imagenet.py' for size in 'tsb'} <= set(CONFIGS)


@pytest.mark.parametrize('name', CONFIGS)
def test_builds_and_its_settings_meet_the_model(name):
    cfg = load(name)
    model = meta_model(name)
    names = [key for key, _ in model.named_parameters()]
    assert len(names) > 100

    has_tokens = model.backbone.num_global_tokens > 0
    has_windows = model.backbone.window_size is not None
    for key in (cfg.optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys', {}):
        if (key == 'global_token' and not has_tokens) or (key == 'relative_position_bias_table' and not has_windows):
            continue
        assert any(key in parameter for parameter in names), f'{key} matches no parameter'

    assert cfg.auto_scale_lr.base_batch_size > 0
    assert cfg.auto_scale_lr.enable is False or 'enable' not in cfg.auto_scale_lr
    if cfg.default_scope != 'mmpretrain':  # padding to batch-mates would enter the global aggregation
        assert cfg.val_dataloader.batch_size == 1
        assert cfg.test_dataloader.batch_size == 1
    is_recipe = not name.startswith(('demo/', 'own_data/', 'examples/'))
    if is_recipe and not model.__class__.__name__.endswith('RCNN'):  # mmdet's merging knows boxes only
        assert 'tta_model' in cfg
        assert 'tta_pipeline' in cfg


@pytest.mark.parametrize('name', [name for name in CONFIGS if '/' not in name or name.startswith('ablation')])
def test_header_says_how_to_run_it_and_what_to_expect(name):
    text = (ROOT / 'configs' / name).read_text()
    header = text[: text.index('_base_ =')]
    assert re.search(rf'# Train: tools/(dist_)?train\.(sh|py) configs/{re.escape(name)}( 8)?\n', header)
    assert 'Published' in header
    assert 'Measured: not run.' in header


@pytest.mark.parametrize('name', [name for name in CONFIGS if '/' not in name and 'cifar' not in name])
def test_batch_size_of_eight_gpus_is_the_one_that_the_rate_is_for(name):
    cfg = load(name)
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size


@pytest.mark.parametrize('name', [name for name in CONFIGS if ('/' not in name and 'rcnn' in name) or 'ade20k' in name])
def test_variant_start_weights_and_head_agree(name):
    size = re.search(r'lightvit_([tsb])_', name)[1]
    model = meta_model(name)
    expected = {'t': ([64, 128, 256], 'lightvit_tiny_78.7.ckpt'), 's': ([96, 192, 384], 'lightvit_small_80.9.ckpt')}
    channels, checkpoint = expected.get(size, ([128, 256, 512], 'lightvit_base_82.1.ckpt'))
    assert model.backbone.embed_dims == channels
    address = f'https://github.com/hunto/LightViT/releases/download/v0.0.1/{checkpoint}'
    assert model.backbone.init_cfg == dict(type='Pretrained', checkpoint=address)
    # Paper Table 2 and section 5.2: stochastic depth as in pre-training; the released detectors have 0.1 everywhere.
    rate = 0.3 if size == 'b' and not name.endswith('_released.py') else 0.1
    assert load(name).model.backbone.drop_path_rate == rate


def changed(name: str, path: Path, changes: dict[str, str]) -> Config:
    """A config as a user copies and edits it, in another place."""
    text = (ROOT / 'configs' / name).read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text.replace("'../", f"'{ROOT}/configs/"))
    return Config.fromfile(path)


@pytest.mark.parametrize(
    ('task', 'changes'),
    [
        ('classification', {'lightvit_t_imagenet.py': 'lightvit_s_imagenet.py', 'lightvit_tiny': 'lightvit_small'}),
        ('detection', {'retinanet_lightvit_t_1x.py': 'retinanet_lightvit_s_1x.py'}),
        ('instance', {'mask_rcnn_lightvit_t_1x.py': 'mask_rcnn_lightvit_s_1x.py'}),
        ('segmentation', {'semantic_fpn_lightvit_t_ade20k.py': 'semantic_fpn_lightvit_s_ade20k.py'}),
    ],
)
def test_own_data_with_another_variant_as_the_docs_say(tmp_path, task, changes):
    model = build(changed(f'own_data/{task}.py', tmp_path / 'own.py', changes))
    assert model.backbone.embed_dims == [96, 192, 384]
    assert model.backbone.init_cfg['checkpoint'].endswith('/lightvit_small_80.9.ckpt')


@pytest.mark.parametrize(('task', 'milestones'), [('detection', [8, 11]), ('instance', [9, 11])])
def test_own_data_of_objects_warm_up_and_drop_within_their_epochs(task, milestones):
    cfg = load(f'own_data/{task}.py')
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.by_epoch, warm_up.end) == (False, 100)
    assert (steps.end, list(steps.milestones), cfg.train_cfg.max_epochs) == (12, milestones, 12)
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 8


def test_the_new_head_of_the_docs(tmp_path):
    section = (ROOT / 'docs' / 'configs.md').read_text().partition('## A new head')[2]
    (example,) = re.findall(r'```python\n(_base_ = .*?)```', section, re.DOTALL)
    (tmp_path / 'tiny.py').write_text(example.replace("'./", f"'{ROOT}/configs/"))
    (small,) = re.findall(r'`(model = .*lightvit_small.*)`', section)
    (tmp_path / 'small.py').write_text(f"_base_ = './tiny.py'\n{small}\n")
    for name, channels in (('tiny', [64, 128, 256]), ('small', [96, 192, 384])):
        model = build(Config.fromfile(tmp_path / f'{name}.py'))
        assert type(model).__name__ == 'FasterRCNN'
        assert model.backbone.embed_dims == channels
        assert [conv.in_channels for conv in model.neck.lateral_convs] == channels
        assert f'lightvit_{name}' in model.backbone.init_cfg['checkpoint']
        assert model.backbone.norm_eval


# -------------------------------------------------------------------------------------------------- published numbers


@pytest.mark.parametrize(
    ('name', 'parameters'),
    [
        ('lightvit_t_imagenet.py', 9_377_698),
        ('lightvit_s_imagenet.py', 19_200_248),
        ('lightvit_b_imagenet.py', 35_195_653),
    ],
)
def test_classifier_parameters(name, parameters):
    assert sum(p.numel() for p in meta_model(name).parameters()) == parameters


@pytest.mark.parametrize(('size', 'millions'), [('t', 28.05), ('s', 37.76), ('b', 53.65)])
def test_mask_rcnn_parameters(size, millions):
    for schedule in ('1x', '3x'):
        parameters = sum(p.numel() for p in meta_model(f'mask_rcnn_lightvit_{size}_{schedule}.py').parameters())
        assert round(parameters / 1e6, 2) == millions


def transforms(pipeline: list[dict]) -> dict[str, dict]:
    return {transform['type']: transform for transform in pipeline}


@pytest.mark.parametrize(('size', 'drop_path'), [('t', 0.1), ('s', 0.1), ('b', 0.3)])
def test_imagenet_recipe_is_table_2(size, drop_path):
    cfg = load(f'lightvit_{size}_imagenet.py')
    optimizer = cfg.optim_wrapper.optimizer
    warm_up, cosine = cfg.param_scheduler
    train = transforms(cfg.train_dataloader.dataset.pipeline)
    mixup, cutmix = cfg.model.train_cfg.augments

    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 1024  # batch size
    assert optimizer.type == 'AdamW'  # optimizer
    assert optimizer.weight_decay == 0.04  # weight decay
    assert cosine.type == 'CosineAnnealingLR'  # LR decay
    assert optimizer.lr == 1e-3  # base LR
    assert cosine.eta_min == 1e-6  # minimum LR
    assert warm_up.start_factor * optimizer.lr == pytest.approx(1e-7)  # warm-up LR
    assert cosine.begin == 20  # warm-up epochs
    assert cfg.train_cfg.max_epochs == cosine.end == 300  # training epochs
    augment = train['RandAugment']  # augmentation
    assert (augment['num_policies'], augment['magnitude_level'], augment['total_level']) == (2, 9, 10)
    assert augment['policies'] == 'timm_increasing'
    assert augment['magnitude_std'] == 0.5
    assert 'ColorJitter' not in train  # color jitter: published code leaves it out beside RandAugment
    assert (mixup.type, mixup.alpha) == ('Mixup', 0.2)  # mixup alpha
    assert (cutmix.type, cutmix.alpha) == ('CutMix', 1.0)  # cutmix alpha
    assert train['RandomErasing']['erase_prob'] == 0.25  # erasing prob.
    assert cfg.model.backbone.drop_path_rate == drop_path  # drop path rate

    # What Table 2 leaves unsaid, as the published code has it.
    assert (tuple(optimizer.betas), optimizer.eps) == ((0.9, 0.999), 1e-8)
    assert cfg.train_dataloader.drop_last is True
    assert cfg.optim_wrapper.get('clip_grad') is None
    assert not any('EMAHook' in hook['type'] for hook in cfg.get('custom_hooks') or [])
    assert cfg.optim_wrapper.type == ('mmlightvit.AmpOptimWrapper' if size == 'b' else 'OptimWrapper')
    erasing = train['RandomErasing']
    assert (erasing['mode'], erasing['min_area_ratio'], erasing['max_area_ratio']) == ('rand', 0.02, 1 / 3)
    crop = train['RandomResizedCrop']
    assert (crop['scale'], crop['backend'], crop['interpolation']) == (224, 'pillow', 'bicubic')
    test = transforms(cfg.test_dataloader.dataset.pipeline)
    resize = test['ResizeEdge']
    assert (resize['scale'], resize['edge'], resize['backend'], resize['interpolation']) == (
        256,
        'short',
        'pillow',
        'bicubic',
    )
    assert test['CenterCrop']['crop_size'] == 224
    assert cfg.test_evaluator.topk == (1, 5)


def test_smoothing_after_the_mix_equals_the_published_smoothing_before_it():
    loss = build(Config(dict(model=load('lightvit_t_imagenet.py').model.head.loss, default_scope='mmpretrain')), 'cpu')
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 10, generator=generator)
    first, second = torch.arange(6), torch.arange(6).flip(0)
    share = 0.3
    smooth = [torch.full((6, 10), 0.1 / 10).scatter_(1, y[:, None], 1 - 0.1 + 0.1 / 10) for y in (first, second)]
    target = share * smooth[0] + (1 - share) * smooth[1]
    expected = -(target * scores.log_softmax(1)).sum(1).mean()
    mixed = share * nn.functional.one_hot(first, 10) + (1 - share) * nn.functional.one_hot(second, 10)
    torch.testing.assert_close(loss(scores, mixed, avg_factor=6), expected)


def test_learning_rate_of_imagenet_follows_the_closed_form():
    """The schedulers of the config, stepped by the runner's own hook, through all 300 epochs."""
    from mmengine.hooks import ParamSchedulerHook

    cfg = load('lightvit_t_imagenet.py')
    iterations = 3  # per epoch
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [
        PARAM_SCHEDULERS.build(
            copy.deepcopy(scheduler), default_args=dict(optimizer=optimizer, epoch_length=iterations)
        )
        for scheduler in cfg.param_scheduler
    ]
    runner = SimpleNamespace(param_schedulers=schedulers)
    hook = ParamSchedulerHook()
    rates = {}
    for epoch in range(300):
        rates[epoch] = optimizer.param_groups[0]['lr']
        for i in range(iterations):
            optimizer.step()
            hook.after_train_iter(runner, i)
        hook.after_train_epoch(runner)
    rates[300] = optimizer.param_groups[0]['lr']

    def closed_form(epoch: int) -> float:
        if epoch <= 20:
            return 1e-7 + (1e-3 - 1e-7) * epoch / 20
        return 1e-6 + (1e-3 - 1e-6) * (1 + math.cos(math.pi * (epoch - 20) / 280)) / 2

    for epoch in (0, 10, 20, 160):
        assert rates[epoch] == pytest.approx(closed_form(epoch), rel=1e-6), epoch
    # The last step is one iteration short of the end of the cosine, which is flat there.
    assert rates[300] == pytest.approx(1e-6, rel=0.05)
    assert min(rates[epoch] for epoch in range(20, 300)) >= 1e-6


@pytest.mark.parametrize('size', ['t', 's', 'b'])
@pytest.mark.parametrize('schedule', ['1x', '3x'])
def test_coco_recipe_of_the_paper_and_of_the_released_configs(size, schedule):
    paper = load(f'mask_rcnn_lightvit_{size}_{schedule}.py')
    released = load(f'mask_rcnn_lightvit_{size}_{schedule}_released.py')
    epochs = {'1x': 12, '3x': 36}[schedule]
    for cfg, rate, decay, drops in (
        (paper, 1e-4, 0.05, [epochs * 3 // 4, epochs * 11 // 12]),
        (released, 2e-4, 0.04, {'1x': [8, 11], '3x': [27, 33]}[schedule]),
    ):
        optimizer = cfg.optim_wrapper.optimizer
        assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', rate, decay)
        warm_up, steps = cfg.param_scheduler
        assert (warm_up.type, warm_up.start_factor, warm_up.by_epoch, warm_up.end) == ('LinearLR', 0.001, False, 500)
        assert (steps.type, list(steps.milestones), steps.gamma, steps.end) == ('MultiStepLR', drops, 0.1, epochs)
        assert cfg.train_cfg.max_epochs == epochs
        assert cfg.auto_scale_lr.base_batch_size == 16
        assert cfg.model.backbone.norm_eval is True
        assert cfg.model.data_preprocessor.pad_size_divisor == 32
        train = transforms(cfg.train_dataloader.dataset.pipeline)
        assert train['RandomFlip']['prob'] == 0.5
        if schedule == '1x':
            assert tuple(train['Resize']['scale']) == (1333, 800)
        else:
            whole, cropped = train['RandomChoice']['transforms']
            sides = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
            assert [transform['type'] for transform in cropped] == [
                'RandomChoiceResize',
                'RandomCrop',
                'RandomChoiceResize',
            ]
            for transform in (whole[0], cropped[2]):
                assert [tuple(scale) for scale in transform['scales']] == [(side, 1333) for side in sides]
            assert [tuple(scale) for scale in cropped[0]['scales']] == [(side, 1333) for side in (400, 500, 600)]
            assert (cropped[1]['crop_type'], tuple(cropped[1]['crop_size'])) == ('absolute_range', (384, 600))
    tokens = {'t': 8, 's': 16, 'b': 24}[size]
    assert meta_model(f'mask_rcnn_lightvit_{size}_{schedule}.py').backbone.num_global_tokens == tokens
    released_tokens = {'t': 512, 's': 16, 'b': 24}[size]
    assert meta_model(f'mask_rcnn_lightvit_{size}_{schedule}_released.py').backbone.num_global_tokens == released_tokens


def test_conventional_recipes():
    retinanet = load('retinanet_lightvit_t_1x.py')
    assert (retinanet.optim_wrapper.optimizer.lr, retinanet.optim_wrapper.optimizer.weight_decay) == (1e-4, 1e-4)
    assert list(retinanet.param_scheduler[1].milestones) == [8, 11]
    assert retinanet.train_cfg.max_epochs == 12
    # P6 and P7 by stride-2 convolutions, nothing finer than the first stage.
    neck = meta_model('retinanet_lightvit_t_1x.py').neck
    assert (len(neck.transposed_convs), [conv.conv.stride for conv in neck.extra_convs]) == (0, [(2, 2), (2, 2)])

    cascade = load('cascade_mask_rcnn_lightvit_t_3x.py')
    assert (cascade.optim_wrapper.optimizer.lr, cascade.optim_wrapper.optimizer.weight_decay) == (1e-4, 0.05)
    assert list(cascade.param_scheduler[1].milestones) == [27, 33]
    assert [head.loss_bbox.type for head in cascade.model.roi_head.bbox_head] == ['GIoULoss'] * 3

    fpn = load('semantic_fpn_lightvit_t_ade20k.py')
    assert (fpn.optim_wrapper.optimizer.lr, fpn.optim_wrapper.optimizer.weight_decay) == (2e-4, 1e-4)
    assert (fpn.train_cfg.max_iters, fpn.param_scheduler[0].end, fpn.param_scheduler[0].power) == (40000, 40000, 0.9)
    assert (fpn.auto_scale_lr.base_batch_size, fpn.model.decode_head.channels) == (32, 128)

    upernet = load('upernet_lightvit_t_ade20k.py')
    assert (upernet.optim_wrapper.optimizer.lr, upernet.optim_wrapper.optimizer.weight_decay) == (6e-5, 0.01)
    assert (upernet.train_cfg.max_iters, upernet.param_scheduler[0].end) == (160000, 1500)
    assert (upernet.auto_scale_lr.base_batch_size, upernet.model.auxiliary_head.in_channels) == (16, 128)

    for cfg in (fpn, upernet):
        assert transforms(cfg.train_dataloader.dataset.pipeline)['RandomCrop']['crop_size'] == (512, 512)
        assert cfg.model.data_preprocessor.size == (512, 512)
        assert cfg.model.decode_head.num_classes == 150


# ------------------------------------------------------------------------------------------------------- weight decay


def undecayed(name: str) -> set[str]:
    """Names of the parameters that the config's optimizer leaves undecayed."""
    cfg = load(name)
    model = meta_model(name)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        settings = copy.deepcopy(cfg.optim_wrapper)
        settings.type = 'OptimWrapper'  # mixed precision does not matter here
        optimizer = build_optim_wrapper(model, settings).optimizer
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    groups = [(group['weight_decay'], names[id(p)]) for group in optimizer.param_groups for p in group['params']]
    assert len(groups) == len(names)
    assert {decay for decay, _ in groups} <= {0.0, cfg.optim_wrapper.optimizer.weight_decay}
    return {key for decay, key in groups if decay == 0}


def is_token_or_table(key: str) -> bool:
    return key == 'backbone.global_token' or key.endswith('.relative_position_bias_table')


def test_undecayed_on_imagenet():
    model = meta_model('lightvit_t_imagenet.py')
    expected = {key for key, p in model.named_parameters() if p.ndim == 1 or is_token_or_table(key)}
    assert undecayed('lightvit_t_imagenet.py') == expected
    assert 'head.fc.bias' in expected
    assert 'head.fc.weight' not in expected


@pytest.mark.parametrize('name', ['mask_rcnn_lightvit_t_1x.py', 'mask_rcnn_lightvit_t_1x_released.py'])
def test_undecayed_on_coco(name):
    stem = {f'backbone.patch_embed.stem.{i}.{what}' for i in (1, 4, 7, 10) for what in ('weight', 'bias')}
    norm = re.compile(r'backbone\.(.*\.)?(norm\d?|global_norm)\.(weight|bias)')
    keys = [key for key, _ in meta_model(name).named_parameters()]
    expected = stem | {key for key in keys if norm.fullmatch(key) or is_token_or_table(key)}
    assert undecayed(name) == expected
    assert not any(key.startswith(('neck', 'rpn_head', 'roi_head')) for key in expected)


@pytest.mark.parametrize('name', ['retinanet_lightvit_t_1x.py', 'semantic_fpn_lightvit_t_ade20k.py'])
def test_recipes_of_pvt_decay_everything(name):
    assert undecayed(name) == set()


# ------------------------------------------------------------------------------------------------ one step per family


def detection_batch(generator: torch.Generator) -> dict:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    inputs, samples = [], []
    for _ in range(2):
        inputs.append(torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=generator))
        masks = np.zeros((1, 64, 96), dtype=np.uint8)
        masks[0, 8:40, 16:64] = 1
        boxes = torch.tensor([[16.0, 8.0, 64.0, 40.0]])
        sample = DetDataSample(
            metainfo=dict(img_shape=(64, 96), ori_shape=(64, 96), pad_shape=(64, 96), scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([1]), masks=BitmapMasks(masks, 64, 96))
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def classification_batch(generator: torch.Generator, side: int = 64) -> dict:
    from mmpretrain.structures import DataSample

    image = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8, generator=generator)
    return dict(inputs=list(image), data_samples=[DataSample().set_gt_label(label) for label in range(4)])


def segmentation_batch(generator: torch.Generator) -> dict:
    from mmseg.structures import SegDataSample

    inputs, samples = [], []
    for _ in range(2):
        inputs.append(torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator))
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 150, (1, 64, 64), generator=generator))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


SMALL_ROIS = {'model.train_cfg.rcnn.sampler.num': 16}
SMALL_NECK = {'model.neck.in_channels': [8, 16, 32]}
STEPS = {
    'mask_rcnn_lightvit_t_1x.py': (detection_batch, SMALL_NECK | SMALL_ROIS),
    'mask_rcnn_lightvit_t_3x_released.py': (detection_batch, SMALL_NECK | SMALL_ROIS),
    'retinanet_lightvit_t_1x.py': (detection_batch, SMALL_NECK),
    'cascade_mask_rcnn_lightvit_t_3x.py': (
        detection_batch,
        SMALL_NECK | {f'model.train_cfg.rcnn.{i}.sampler.num': 16 for i in range(3)},
    ),
    'lightvit_t_imagenet.py': (classification_batch, {'model.head.in_channels': 32}),
    'lightvit_t_cifar10.py': (functools.partial(classification_batch, side=32), {'model.head.in_channels': 32}),
    'semantic_fpn_lightvit_t_ade20k.py': (segmentation_batch, SMALL_NECK | {'model.data_preprocessor.size': (64, 64)}),
    'upernet_lightvit_t_ade20k.py': (
        segmentation_batch,
        {
            'model.data_preprocessor.size': (64, 64),
            'model.decode_head.in_channels': [8, 16, 32],
            'model.decode_head.channels': 32,
            'model.auxiliary_head.in_channels': 16,
        },
    ),
}


@pytest.mark.parametrize('name', STEPS)
def test_a_training_step_moves_every_part(name):
    make_batch, changes = STEPS[name]
    cfg = copy.deepcopy(load(name))
    cfg.model.backbone.pop('arch')
    # Without drop path: a block dropped for the whole small batch would not move.
    cfg.merge_from_dict({'model.backbone.arch': TEST_ARCH, 'model.backbone.drop_path_rate': 0.0, **changes})
    torch.manual_seed(0)
    model = revert_sync_batchnorm(build(cfg, 'cpu')).train()
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        optim_wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
        before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
        log = model.train_step(make_batch(torch.Generator().manual_seed(0)), optim_wrapper)
    losses = {key: value.detach() for key, value in log.items() if 'loss' in key}
    assert losses
    assert all(torch.isfinite(value).all() for value in losses.values())
    assert losses['loss'] > 0
    still = {key for key, parameter in model.named_parameters() if torch.equal(parameter.detach(), before[key])}
    parts = {key.split('.')[0] for key in before}
    assert {key.split('.')[0] for key in before.keys() - still} == parts
    assert not {key for key in still if key.startswith('backbone')}
