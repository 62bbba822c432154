# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Ten changes that people make, each the way docs/configs.md says."""

from __future__ import annotations

import copy
import functools
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, VISUALIZERS, DefaultScope
from mmengine.structures import PixelData
from PIL import Image
from torch import nn

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')
pytest.importorskip('mmseg')

from mmlightvit.checkpoint.convert import convert
from mmlightvit.checkpoint.load import load_into
from mmlightvit.cli.settings import change
from mmlightvit.models.backbones import LightViT
from mmlightvit.toolboxes import build_model

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / 'docs' / 'configs.md').read_text()


@functools.cache
def _load(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


def load(name: str, options: str = '') -> Config:
    """A config, with options as they are written on the command line."""
    cfg = copy.deepcopy(_load(name))
    change(cfg, dict(option.split('=', 1) for option in options.split()))
    return cfg


def build(cfg: Config, device: str = 'meta') -> nn.Module:
    with torch.device(device):
        return build_model(cfg)


def row(name: str) -> str:
    """The second cell of a row of the table."""
    (cell,) = re.findall(rf'^\| {re.escape(name)} \| (.*?) \| [^|]* \|$', PAGE, re.MULTILINE)
    return cell


def written(text: str, folder: Path) -> Config:
    """A config of the page as a file of the user's."""
    (folder / 'mine.py').write_text(text.replace("'./", f"'{ROOT}/configs/"))
    return Config.fromfile(folder / 'mine.py')


def test_window_size():
    assert 'model.backbone.window_size' in row('window size')
    model = build(load('mask_rcnn_lightvit_t_1x', 'model.backbone.window_size=12'))
    tables = [p for name, p in model.named_parameters() if name.endswith('.relative_position_bias_table')]
    assert {table.shape[0] for table in tables} == {23**2}


def test_a_variant_of_ones_own(tmp_path):
    cell = row('a variant of your own')
    (arch,), (channels,) = re.findall(r'`(arch=dict\(.*?\))`', cell), re.findall(r'`in_channels=(\[.*?\])`', cell)
    cfg = written(
        f"_base_ = './mask_rcnn_lightvit_t_1x.py'\n"
        f'model = dict(backbone=dict({arch}), neck=dict(in_channels={channels}))\n',
        tmp_path,
    )
    model = build(cfg)
    assert model.backbone.embed_dims == json.loads(channels) == [conv.in_channels for conv in model.neck.lateral_convs]


@pytest.mark.parametrize(
    'changes', [dict(ffn_ratios=[2, 2, 2]), dict(num_heads=[1, 2, 4]), dict(embed_dims=[16, 32, 48])]
)
def test_weights_of_a_variant_of_ones_own_load_and_convert(tmp_path, changes):
    """Also where it has the widths and depths of a published one."""
    arch = dict(
        embed_dims=[64, 128, 256], num_heads=[2, 4, 8], num_blocks=[2, 6, 6], ffn_ratios=[8, 4, 4], num_global_tokens=8
    )
    arch |= changes
    torch.manual_seed(0)
    model, other = (LightViT(arch) for _ in range(2))
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'mine.pth')
    source, differences = convert(tmp_path / 'mine.pth', tmp_path / 'mine.safetensors')
    assert source.architecture is not None and source.architecture.arch is None and not differences
    load_into(other, str(tmp_path / 'mine.safetensors'))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))


def depth_batch() -> dict:
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=(64, 96), ori_shape=(64, 96)))
        sample.gt_depth_map = PixelData(data=torch.rand(1, 64, 96, generator=generator) * 9 + 0.5)
        samples.append(sample)
    images = [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=generator) for _ in range(2)]
    return dict(inputs=images, data_samples=samples)


def test_a_head_for_dense_regression():
    options = 'model.data_preprocessor.size=(64,96) model.backbone.init_cfg=None model.backbone.norm_eval=False'
    cfg = load('examples/depth_nyu', options)
    torch.manual_seed(0)
    model = build(cfg, 'cpu').train()
    assert type(model.decode_head).__name__ == 'DepthHead'
    with DefaultScope.overwrite_default_scope('mmseg'):
        optim_wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    before = {name: p.detach().clone() for name, p in model.decode_head.named_parameters()}
    log = model.train_step(depth_batch(), optim_wrapper)
    assert torch.isfinite(log['loss']) and log['loss'] > 0
    assert not any(torch.equal(p.detach(), before[name]) for name, p in model.decode_head.named_parameters())
    (sample, _) = model.eval().test_step(depth_batch())
    depth = sample.pred_depth_map.data
    assert depth.shape[-2:] == (64, 96) and depth.min() > 0 and depth.max() < 10


def test_depth_beyond_the_range_teaches_nothing():
    head = build(load('examples/depth_nyu'), 'cpu').decode_head
    depth, samples = torch.full((2, 1, 64, 96), 4.0), depth_batch()['data_samples']
    (known,) = head.loss_by_feat(depth, samples).values()
    for sample in samples:
        sample.gt_depth_map = PixelData(data=nn.functional.pad(sample.gt_depth_map.data, (0, 96), value=255))
    (padded,) = head.loss_by_feat(depth, samples).values()
    torch.testing.assert_close(padded, known)


def test_logging_to_tensorboard(tmp_path):
    pytest.importorskip('tensorboard')
    (line,) = re.findall(r'`(visualizer = .*?)`', row('logging to TensorBoard or W&B'))
    cfg = written(f"_base_ = './mask_rcnn_lightvit_t_1x.py'\n{line}\n", tmp_path)
    with DefaultScope.overwrite_default_scope('mmdet'):
        visualizer = VISUALIZERS.build(dict(cfg.visualizer, name='ten_changes', save_dir=str(tmp_path)))
    visualizer.add_scalars(dict(loss=1.5), step=3)
    visualizer.close()
    (numbers,) = tmp_path.rglob('scalars.json')
    assert json.loads(numbers.read_text().splitlines()[0])['loss'] == 1.5
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = tmp_path.rglob('events.out.tfevents.*')
    reader = EventAccumulator(str(events))
    reader.Reload()
    assert [(scalar.step, scalar.value) for scalar in reader.Scalars('loss')] == [(3, 1.5)]


def test_another_optimizer(tmp_path):
    (text,) = re.findall(r'```python\n(_base_ = \[[^`]*sgd\.py[^`]*)```', PAGE)
    (command,) = re.findall(r'--cfg-options (optim_wrapper\.optimizer\._delete_[^`]*)```', PAGE)
    on_the_line = load('mask_rcnn_lightvit_t_1x', command.replace('\\', ' '))
    for cfg in (written(text, tmp_path), on_the_line):
        with DefaultScope.overwrite_default_scope('mmdet'):
            optimizer = build_optim_wrapper(nn.Linear(2, 2), copy.deepcopy(cfg.optim_wrapper)).optimizer
        assert type(optimizer) is torch.optim.SGD
        assert (optimizer.defaults['lr'], optimizer.defaults['momentum']) == (0.02, 0.9)
        assert cfg.param_scheduler == load('mask_rcnn_lightvit_t_1x').param_scheduler


def test_384_pixels(tmp_path):
    assert row("side of ImageNet's images") == '`resolution = 384`'
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    base = tmp_path / 'configs' / '_base_' / 'imagenet.py'
    assert base.read_text().count('resolution = 224\n') == 1
    base.write_text(base.read_text().replace('resolution = 224\n', 'resolution = 384\n'))
    cfg = Config.fromfile(tmp_path / 'configs' / 'lightvit_s_imagenet.py')
    assert cfg.train_dataloader.dataset.pipeline[1].scale == 384
    for pipeline in (cfg.val_dataloader.dataset.pipeline, cfg.test_dataloader.dataset.pipeline):
        assert (pipeline[1].scale, pipeline[2].crop_size) == (438, 384)
    resize, crop = (choices[0] for choices in cfg.tta_pipeline[1].transforms[:2])
    assert (resize.scale, crop.crop_size) == (438, 384)
    assert '224' not in cfg.dump() and '256' not in str(cfg.test_dataloader)


def test_a_metric_of_ones_own(tmp_path, monkeypatch):
    (code,) = re.findall(r'```python\n(from mmengine\.evaluator[^`]*)```', PAGE)
    (settings,) = re.findall(r'```python\n(_base_\.custom_imports[^`]*)```', PAGE)
    (tmp_path / 'pixel_accuracy.py').write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg = written(f"_base_ = './semantic_fpn_lightvit_t_ade20k.py'\n{settings}", tmp_path)
    assert cfg.custom_imports.imports == [
        *_load('semantic_fpn_lightvit_t_ade20k').custom_imports.imports,
        'pixel_accuracy',
    ]
    with DefaultScope.overwrite_default_scope('mmseg'):
        evaluator = Evaluator(copy.deepcopy(cfg.val_evaluator))
    evaluator.dataset_meta = dict(classes=('a', 'b'))
    truth = torch.tensor([[[0, 1], [1, 255]]])
    sample = dict(pred_sem_seg=dict(data=torch.tensor([[[0, 1], [0, 0]]])), gt_sem_seg=dict(data=truth))
    evaluator.process([sample])
    assert evaluator.evaluate(1)['pixel_accuracy'] == pytest.approx(2 / 3)
    sys.modules.pop('pixel_accuracy')


def test_a_bilinear_level_in_the_neck():
    (option,) = re.findall(r'`(model\.neck\.upsample=\w+)`', row('how the fourth level is made'))
    model = build(load('mask_rcnn_lightvit_t_1x', option), 'cpu')
    assert not any(isinstance(m, nn.ConvTranspose2d) for m in model.neck.modules())
    outs = model.neck([torch.rand(1, c, 32 // s, 48 // s) for c, s in ((64, 1), (128, 2), (256, 4))])
    assert [tuple(out.shape[-2:]) for out in outs] == [(64, 96), (32, 48), (16, 24), (8, 12), (4, 6)]


def test_a_checkpoint_every_500_iterations():
    cell = row('a checkpoint every 500 iterations, 3 kept')
    for name in ('mask_rcnn_lightvit_t_1x', 'lightvit_t_imagenet', 'semantic_fpn_lightvit_t_ade20k'):
        cfg = load(name, cell.strip('`'))
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            hook = HOOKS.build(copy.deepcopy(cfg.default_hooks.checkpoint))
        assert (hook.interval, hook.by_epoch, hook.max_keep_ckpts) == (500, False, 3)


def test_yolo_labels(tmp_path):
    """Labels of YOLO become a folder that a run trains on; tests/data has the rules."""
    from mmlightvit import cli

    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (tmp_path / 'yolo' / kind / split).mkdir(parents=True)
        for i in range(3):
            Image.new('RGB', (64, 48), (40 * i, 90, 90)).save(tmp_path / 'yolo' / 'images' / split / f'{split}{i}.png')
            (tmp_path / 'yolo' / 'labels' / split / f'{split}{i}.txt').write_text('1 0.5 0.5 0.25 0.5\n')
    (tmp_path / 'yolo' / 'data.yaml').write_text('train: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n')
    assert 'mmlightvit data import' in row('YOLO, VOC, LabelMe or CVAT labels')
    assert cli.main(['data', 'import', str(tmp_path / 'yolo'), '--out', str(tmp_path / 'coco')]) in (0, None)
    (found,) = [
        json.loads(path.read_text()) for path in (tmp_path / 'coco').rglob('train.json') if 'images' in path.read_text()
    ]
    assert [category['name'] for category in found['categories']] == ['cat', 'dog']
    assert [annotation['bbox'] for annotation in found['annotations']] == [[24, 12, 16, 24]] * 3
