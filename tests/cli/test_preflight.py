# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What is missing is said before anything is imported or built: the path, and the option that changes it."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import tiny_data
from mmengine.config import Config

from mmlightvit.cli import preflight, recipe, test, testing, train
from mmlightvit.cli.config import load_config
from mmlightvit.durable.safe_loading.read import CheckpointUnavailable
from mmlightvit.durable.seal import atomic_save
from mmlightvit.errors import UserError

WEIGHTS = 'model.backbone.init_cfg.checkpoint'


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """The address that the configs start from has been fetched, without a network."""
    monkeypatch.setattr('mmlightvit.durable.safe_loading.read.download', lambda address: None)


@pytest.fixture
def coco(tmp_path, repo):
    """A config, data for it, and the arguments that use them."""
    pytest.importorskip('mmdet')
    tiny_data.write_coco(tmp_path / 'data', images=1)
    config = str(repo / 'configs/mask_rcnn_lightvit_t_1x.py')
    return [config, '--data-root', str(tmp_path / 'data'), '--work-dir', str(tmp_path / 'run')]


def _prepared(command, arguments):
    args = command.parser().parse_args(arguments)
    command.require(args)
    cfg = command.prepare(args)
    command.check(cfg)
    return cfg


def _train(*arguments):
    return _prepared(train, arguments)


def _test(*arguments):
    return _prepared(test, arguments)


def test_complete_data_pass(coco, tmp_path):
    assert _train(*coco).work_dir == str(tmp_path / 'run')
    (tmp_path / 'x.pth').touch()
    assert _test(coco[0], str(tmp_path / 'x.pth'), *coco[1:]).load_from == str(tmp_path / 'x.pth')


@pytest.mark.parametrize(
    ('gone', 'option'),
    [
        ('annotations/instances_train2017.json', '--data-root DIR or --cfg-options train_dataloader.dataset.ann_file'),
        ('annotations/instances_val2017.json', '--cfg-options val_dataloader.dataset.ann_file'),
        ('train2017', '--cfg-options train_dataloader.dataset.data_prefix.img'),
        ('val2017', '--cfg-options val_dataloader.dataset.data_prefix.img'),
    ],
)
def test_each_missing_file_and_folder_is_named(gone, option, coco, tmp_path):
    path = tmp_path / 'data' / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(UserError) as caught:
        _train(*coco)
    assert str(path) in str(caught.value)
    assert option in str(caught.value)


def test_an_empty_image_folder_is_named(coco, tmp_path):
    for image in (tmp_path / 'data/train2017').iterdir():
        image.unlink()
    with pytest.raises(UserError, match=r'image folder is empty: .*train2017'):
        _train(*coco)


def test_an_evaluators_file_is_checked_too(coco):
    with pytest.raises(UserError, match=r'annotation file not found: /no/gt.json \(val_evaluator\)'):
        _train(*coco, '--cfg-options', 'val_evaluator.ann_file=/no/gt.json')


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--cfg-options', f'{WEIGHTS}=/no/weights.ckpt'], ['/no/weights.ckpt', f'{WEIGHTS}=FILE', 'init_cfg=None']),
        (['--cfg-options', 'load_from=/no/start.pth'], ['/no/start.pth', 'load_from=FILE']),
        (['--resume', '/no/epoch_3.pth'], ['/no/epoch_3.pth', '--resume FILE']),
        (['--data-root', '/no/data'], ['/no/data', '--data-root DIR']),
        (['--work-dir', '/proc/here'], ['/proc/here', '--work-dir DIR']),
        (['--compile', 'fast'], ['--compile', 'max-autotune', 'fast']),
        (['--ema', '2'], ['--ema', 'between 0 and 1']),
        (['--amp', '--cfg-options', 'optim_wrapper.type=ApexOptimWrapper'], ['--amp', 'ApexOptimWrapper']),
        (['--auto-scale-lr', '--cfg-options', 'auto_scale_lr=None'], ['--auto-scale-lr', 'base_batch_size']),
        (['--cfg-options', 'optim_wrapper=None'], ['cannot be trained', 'optim_wrapper']),
    ],
)
def test_each_wrong_option_is_explained(arguments, said, coco):
    with pytest.raises(UserError) as caught:
        _train(*coco, *arguments)
    assert all(part in str(caught.value) for part in said), str(caught.value)


def test_an_address_that_cannot_be_had_is_named_with_the_overrides(coco, monkeypatch):
    def fail(address):
        raise CheckpointUnavailable(f'{address} cannot be had.')

    monkeypatch.setattr('mmlightvit.durable.safe_loading.read.download', fail)
    with pytest.raises(UserError) as caught:
        _train(*coco)
    said = str(caught.value)
    assert 'lightvit_tiny_78.7.ckpt cannot be had' in said
    assert f'{WEIGHTS}=FILE' in said
    assert 'model.backbone.init_cfg=None model.backbone.norm_eval=False to train from scratch' in said


def test_a_whole_model_to_start_from_needs_no_initial_weights(coco, tmp_path):
    (tmp_path / 'detector.pth').touch()
    start = ['--cfg-options', f'{WEIGHTS}=/no/weights.ckpt', f'load_from={tmp_path}/detector.pth']
    assert _train(*coco, *start).model.backbone.get('init_cfg') is None
    with pytest.raises(UserError, match=r'weights not found: /no/weights\.ckpt'):  # some of it is to come from there
        _train(*coco, *start, '+load_fresh=backbone.global_token')


def widths(**parts):
    backbone = dict(type='mmlightvit.LightViT', arch='tiny', **parts.pop('backbone', {}))
    preflight.check_widths(Config(dict(model=dict(backbone=backbone, **parts))))


@pytest.mark.parametrize(
    'parts',
    [
        dict(neck=dict(type='YOLOV3Neck', in_channels=[256, 128, 64], num_scales=3)),
        dict(
            neck=dict(type='Feature2Pyramid', embed_dim=256), decode_head=dict(type='UPerHead', in_channels=[256] * 4)
        ),
        dict(neck=[dict(type='GlobalAveragePooling')], head=dict(type='ArcFaceClsHead', in_channels=512)),
        dict(neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', in_channels=256)),
        dict(auxiliary_head=[dict(type='FCNHead', in_channels=64, in_index=0)]),
    ],
)
def test_parts_that_take_channels_in_their_own_way_pass(parts):
    widths(**parts)


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        (dict(decode_head=dict(type='FCNHead', in_channels=64, in_index=3)), 'in_index is 3, .* gives 3 maps, 0 to 2'),
        (dict(decode_head=dict(type='UPerHead', in_channels=[64], in_index=[7])), r'in_index is \[7\]'),
        (dict(auxiliary_head=[dict(type='FCNHead', in_channels=9)]), r'auxiliary_head.0.in_channels is 9'),
    ],
)
def test_parts_that_cannot_fit_are_one_line(parts, message):
    with pytest.raises(UserError, match=message):
        widths(**parts)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(frozen_stages=9), r'frozen_stages: expected an integer in \[-1, 3\], got 9'),
        (dict(arch='tinny'), "arch: expected one of .*, got 'tinny'"),
        (dict(window=7), "unexpected keyword argument 'window'"),
        (dict(type='mmlightvit.LightVit'), 'LightVit is not in the'),
    ],
)
def test_wrong_arguments_of_a_part_are_one_line_of_the_runner(arguments, message):
    from mmlightvit.durable.runner import Runner

    runner = Runner.__new__(Runner)
    with pytest.raises(UserError, match=f'the model of the config cannot be built .*{message}'):
        runner.build_model(dict(dict(type='mmlightvit.LightViT'), **arguments))


def test_a_part_of_an_unknown_kind_is_warned_of():
    with pytest.warns(UserWarning, match='whether OtherNeck fits is not known'):
        widths(neck=dict(type='OtherNeck', in_channels=[1, 2, 3]))


@pytest.mark.parametrize(
    ('config', 'parts'),
    [
        ('mask_rcnn_lightvit_t_1x', dict(neck=[96, 192, 384])),
        ('lightvit_t_imagenet', dict(head=384)),
        ('upernet_lightvit_t_ade20k', dict(decode_head=[96, 192, 384], auxiliary_head=192)),
    ],
)
def test_another_variant_of_the_backbone_alone_is_refused(repo, config, parts):
    cfg = load_config(str(repo / f'configs/{config}.py'))
    preflight.check_widths(cfg)
    cfg.model.backbone.arch = 'small'
    for part, widths in parts.items():
        with pytest.raises(UserError) as error:
            preflight.check_widths(cfg)
        told = f"the backbone (arch='small') gives {widths}; set model.{part}.in_channels={widths}".split('set ')
        assert told[0] in str(error.value) and told[1].replace(' ', '') in str(error.value)
        cfg.model[part].in_channels = widths
    preflight.check_widths(cfg)


def test_resume_reads_no_initial_weights(coco, tmp_path):
    """A run that goes on needs its checkpoint, not the file it once started from."""
    (tmp_path / 'epoch_3.pth').touch()
    resumed = _train(*coco, '--resume', str(tmp_path / 'epoch_3.pth'), '--cfg-options', f'{WEIGHTS}=/no/weights.ckpt')
    assert (resumed.resume, resumed.load_from) == (True, str(tmp_path / 'epoch_3.pth'))
    work_dir = ['--work-dir', str(tmp_path)]
    assert (_train(*coco, *work_dir, '--resume').load_from, _train(*coco, *work_dir, '--resume').resume) == (None, True)


def test_resume_needs_something_to_go_on_from(coco, tmp_path):
    with pytest.raises(UserError, match=rf'no checkpoint in {tmp_path}/typo to go on from.*--resume auto'):
        _train(*coco, '--work-dir', str(tmp_path / 'typo'), '--resume')
    missing = [f'{WEIGHTS[: -len(".checkpoint")]}=None']
    assert _train(*coco, '--work-dir', str(tmp_path / 'typo'), '--resume', 'auto', '--cfg-options', *missing).resume


def test_resume_without_a_checkpoint_needs_the_initial_weights(coco, tmp_path):
    """A script that always passes --resume auto is told at its first start, and not at a later one."""
    missing = ['--cfg-options', f'{WEIGHTS}=/no/weights.ckpt']
    with pytest.raises(UserError, match=r'pretrained weights not found: /no/weights\.ckpt'):
        _train(*coco, '--resume', 'auto', *missing)
    out_dir = tmp_path / 'elsewhere' / 'run'
    out_dir.mkdir(parents=True)
    atomic_save(dict(optimizer={}), out_dir / 'epoch_1.pth', resumable=True)
    missing.append(f'default_hooks.checkpoint.out_dir={tmp_path / "elsewhere"}')
    assert _train(*coco, '--resume', *missing).resume


def test_testing_needs_its_checkpoint_and_data(coco, tmp_path):
    with pytest.raises(UserError, match=r'checkpoint not found: /no/x.pth'):
        _test(coco[0], '/no/x.pth', *coco[1:])
    with pytest.raises(UserError, match='is a folder'):
        _test(coco[0], str(tmp_path), *coco[1:])
    shutil.rmtree(tmp_path / 'data/val2017')
    (tmp_path / 'x.pth').touch()
    with pytest.raises(UserError, match=r'val2017 \(test_dataloader.dataset\)'):
        _test(coco[0], str(tmp_path / 'x.pth'), *coco[1:])


@pytest.mark.parametrize(
    ('extra', 'said'),
    [
        (['--tta'], 'instance masks'),
        (['--out', 'predictions.csv'], '.json or .pkl'),
        (['--show'], 'display'),
    ],
)
def test_testing_options_that_do_not_fit_are_explained(extra, said, coco, tmp_path, monkeypatch):
    monkeypatch.delenv('DISPLAY', raising=False)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    (tmp_path / 'x.pth').touch()
    with pytest.raises(UserError, match=said):
        _test(coco[0], str(tmp_path / 'x.pth'), *coco[1:], *extra)


def test_only_what_an_option_names_changes(coco):
    """Without options the config is the file's, but for the paths and the launcher."""
    plain = load_config(coco[0])
    prepared = _train(*coco)
    same = set(plain) - {'work_dir', 'launcher', 'data_root'}
    same -= {key for key in plain if key.endswith(('_dataloader', '_evaluator'))}
    assert all(plain[key] == prepared[key] for key in same)
    assert set(prepared) - set(plain) == {'work_dir', 'launcher'}


def test_options_set_what_they_say(coco):
    cfg = _train(*coco, '--amp', '--compile', '--auto-scale-lr', '--ema', '0.01')
    assert cfg.optim_wrapper.type == 'mmlightvit.AmpOptimWrapper'
    assert cfg.auto_scale_lr.enable is True
    ema, compiling = (
        next(h for h in cfg.custom_hooks if h.type.endswith(name)) for name in ('EMAHook', 'BackboneHook')
    )
    assert (ema.momentum, compiling.mode) == (0.01, 'default')
    recipe.use_ema(cfg, 0.02)
    assert [hook.type for hook in cfg.custom_hooks].count('mmengine.EMAHook') == 1
    assert ema.momentum == 0.02


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ("default_scope = 'mmyolo'", 'expected one of mmdet, mmpretrain, mmseg'),
        ("_base_ = './missing.py'", 'missing.py'),
        ("x = __import__('a_package_that_is_not_there')", 'a_package_that_is_not_there'),
    ],
)
def test_configs_that_cannot_be_used_are_explained(text, said, tmp_path):
    path = tmp_path / 'c.py'
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        load_config(str(path))


def test_a_missing_toolbox_is_named_with_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / 'c.py'
    path.write_text("default_scope = 'mmseg'")
    monkeypatch.setattr('mmlightvit.toolboxes.find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'segmentation config and needs mmseg.*onedl-mmsegmentation'):
        load_config(str(path))


def test_no_toolbox_is_imported_before_the_checks(coco, tmp_path):
    shutil.rmtree(tmp_path / 'data')
    code = (
        'import sys; from mmlightvit.cli import train; from mmlightvit.errors import UserError\n'
        'try: train.check(train.prepare(train.parser().parse_args(sys.argv[1:])))\n'
        "except UserError: sys.exit(5 if {'mmdet.models', 'mmcv', 'torch'} & set(sys.modules) else 4)"
    )
    assert subprocess.run([sys.executable, '-c', code, *coco], check=False).returncode == 4


def test_a_hook_left_out_is_no_hindrance():
    """``default_hooks.visualization=None`` is how MMEngine leaves a default hook out."""
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            default_hooks=dict(visualization=None),
            model=dict(type='M'),
            tta_model=dict(type='A'),
            tta_pipeline=[],
            test_dataloader=dict(dataset=dict(type='D')),
        )
    )
    testing.use_tta(cfg)
    assert cfg.model.type == 'A'
