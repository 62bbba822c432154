# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""--cfg-options: values, and keys that nothing reads."""

from __future__ import annotations

import inspect
import re

import pytest
from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.runner import Runner

from mmlightvit.cli.settings import change, parameters, parse_value, read_by_mmengine
from mmlightvit.errors import UserError


def config() -> Config:
    """Some of everything, for parts of MMEngine, torch and this package alone."""
    return Config(
        dict(
            default_scope='mmengine',
            epochs=12,
            data_root='data/x/',
            classes=['cat', 'dog'],
            model=dict(
                type='NoSuchDetector',
                test_cfg=dict(rcnn=dict(score_thr=0.05)),
                backbone=dict(type='mmlightvit.LightViT', arch='tiny', init_cfg=None),
            ),
            train_dataloader=dict(
                batch_size=2, dataset=dict(data_root='data/x/', ann_file='data/x/a.json', classes=['cat', 'dog'])
            ),
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=12),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4)),
            param_scheduler=[dict(type='MultiStepLR', end=12, milestones=[9])],
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
            custom_hooks=[],
            randomness=dict(seed=None),
            load_from=None,
        )
    )


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('3', 3),
        ('1e-4', 1e-4),
        ('True', True),
        ('false', False),
        ('None', None),
        ('small', 'small'),
        ('(320,192)', (320, 192)),
        ('(320, 192)', (320, 192)),
        ('[1,[2,a],(3,)]', [1, [2, 'a'], (3,)]),
        ('cat,dog', ['cat', 'dog']),
        ('[]', []),
        ('"7"', '7'),
        ('/a b/c.pth', '/a b/c.pth'),
        ('(1,2),(3,4)', [(1, 2), (3, 4)]),
    ],
)
def test_values(text, value):
    found = parse_value('key', text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize('text', ['[dict(type="X")]', '{"a": 1}', '[1,2', '1)', '(1,2]]'])
def test_values_that_cannot_be_read_get_one_line_with_the_right_form(text):
    with pytest.raises(UserError, match=r'\[1,2\]'):
        change(config(), {'custom_hooks': text})


@pytest.mark.parametrize(
    ('key', 'said'),
    [
        # keys of other years, as they stand in many a note
        ('data.samples_per_gpu', 'nothing reads data; nearest: train_dataloader.batch_size'),
        ('optimizer.lr', 'nothing reads optimizer; nearest: optim_wrapper.optimizer.lr'),
        ('total_epochs', 'nearest: train_cfg.max_epochs'),
        # misspelt: at the top, in a free dict, as an argument of a part, of a data loader
        ('optim_wraper.optimizer.lr', 'nothing reads optim_wraper; nearest: optim_wrapper.optimizer.lr'),
        ('model.test_cfg.rcnn.score_th', 'nearest: model.test_cfg.rcnn.score_thr'),
        ('default_hooks.checkpoint.intervall', 'nearest: default_hooks.checkpoint.interval'),
        ('model.backbone.window_sise', 'nearest: model.backbone.window_size'),
        ('train_dataloader.batchsize', 'nearest: train_dataloader.batch_size'),
        ('train_cfg.val_intervall', 'nearest: train_cfg.val_interval'),
        ('randomness.sed', 'nearest: randomness.seed'),
        ('optim_wrapper.clip_grad.maxnorm', 'nearest: optim_wrapper.clip_grad.max_norm'),
        # nothing like it: what there is
        ('randomness.x', 'there are deterministic, diff_rank_seed, seed'),
        # places that have no such thing
        ('param_scheduler.3.end', 'param_scheduler is a list, whose items are 0 to 0'),
        ('param_scheduler.end', 'param_scheduler is a list'),
        ('model.backbone.arch.dims', "model.backbone.arch is 'tiny' in the config and has no keys"),
        ('model.backbone.init_cfg.checkpoint', 'model.backbone.init_cfg is None'),
        # variables of the file
        ('epochs', 'a variable of the config file, .* train_cfg.max_epochs, param_scheduler.0.end$'),
        ('data_root', '--data-root DIR, train_dataloader.dataset.data_root$'),
        ('classes.0', 'settings with its value: train_dataloader.dataset.classes.0'),
    ],
)
def test_a_key_that_nothing_reads_is_refused_and_changes_nothing(key, said):
    cfg = config()
    with pytest.raises(UserError, match=said) as caught:
        change(cfg, {'load_from': 'x', key: '3'})
    assert cfg.to_dict() == config().to_dict()
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('optim_wrapper.optimizer.lr', 0.5),  # in the config
        ('optim_wrapper.optimizer.weight_decay', 0.1),  # an argument of the optimizer
        ('optim_wrapper.clip_grad.max_norm', 3),  # MMEngine's
        ('optim_wrapper.max_skipped', 5),  # of the class that our runner puts in its place
        ('optim_wrapper.paramwise_cfg.custom_keys.norm.decay_mult', 0),  # any name
        ('model.backbone.window_size', 14),
        ('model.backbone.norm_eval', True),
        ('default_hooks.checkpoint.priority', 'LOW'),
        ('train_dataloader.pin_memory', True),
        ('experiment_name', 'x'),
        ('auto_scale_lr.base_batch_size', 16),
        ('param_scheduler', []),
        ('+model.anything.x', 2),
        ('+epochs', 3),
    ],
)
def test_a_key_that_something_reads_is_set(key, value):
    cfg = config()
    change(cfg, {key: str(value)})
    found = dict(cfg.items())
    for name in key.removeprefix('+').split('.'):
        found = found[name]
    assert found == value


def test_a_part_is_known_by_the_type_given_with_it():
    cfg = config()
    with pytest.raises(UserError, match=r'optimizer\.momentum'):
        change(cfg, {'optim_wrapper.optimizer.momentum': '0.9'})
    change(cfg, {'optim_wrapper.optimizer.type': 'SGD', 'optim_wrapper.optimizer.momentum': '0.9'})
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=1e-4, momentum=0.9)


def test_arguments_are_those_of_the_bases_that_take_the_rest():
    class Base:
        def __init__(self, a, b=1):
            pass

    class Middle(Base):
        def __init__(self, *args, c=2, **kwargs):
            super().__init__(*args, **kwargs)

    class Closed(Middle):
        def __init__(self, d):
            super().__init__(d)

    class Open:
        def __init__(self, e, **kwargs):
            pass

    assert parameters(Middle) == {'a', 'b', 'c'}
    assert parameters(Closed) == {'d'}
    assert parameters(Open) == {'e', '*'}
    assert parameters(lambda f, *, g: None) == {'f', 'g'}


def test_where_any_argument_ends_nowhere_only_a_misspelling_is_refused():
    from mmengine.registry import MODELS

    class TakesAll:
        def __init__(self, depth=1, **kwargs):
            pass

    MODELS.register_module('TakesAll', module=TakesAll)
    try:
        cfg = Config(dict(default_scope='mmengine', model=dict(type='TakesAll')))
        change(cfg, {'model.width': '3'})
        assert cfg.model.width == 3
        with pytest.raises(UserError, match=r'nearest: model\.depth'):
            change(cfg, {'model.dept': '3'})
    finally:
        MODELS.module_dict.pop('TakesAll')


@pytest.mark.parametrize(
    ('place', 'reader', 'variable'),
    [
        ('', Runner.from_cfg, 'cfg'),
        ('env_cfg', Runner.setup_env, 'env_cfg'),
        ('dataloader', Runner.build_dataloader, 'dataloader_cfg'),
        ('train_cfg', Runner.build_train_loop, 'loop_cfg'),
        ('auto_scale_lr', Runner.scale_lr, 'auto_scale_lr'),
        ('optim_wrapper.paramwise_cfg', DefaultOptimWrapperConstructor.add_params, 'self.paramwise_cfg'),
        ('optim_wrapper.paramwise_cfg', DefaultOptimWrapperConstructor._validate_cfg, 'self.paramwise_cfg'),
    ],
)
def test_what_the_source_of_mmengine_reads_is_known(place, reader, variable):
    """Against the installed version: the keys that its functions take out of the dict by name."""
    source = inspect.getsource(reader)
    keys = re.findall(rf"\b{re.escape(variable)}(?:\.get\(|\.pop\(|\[)\s*'(\w+)'", source)
    keys += re.findall(rf"'(\w+)' (?:not )?in {re.escape(variable)}\b(?!\[)", source)
    assert keys
    assert set(keys) <= read_by_mmengine()[place]


def test_what_a_signature_of_mmengine_says_is_known():
    rows = read_by_mmengine()
    assert {'model', 'custom_hooks', 'randomness', 'load_from', 'model_wrapper_cfg'} <= rows['']
    assert 'cfg' not in rows['']
    assert rows['train_cfg'] >= {'type', 'by_epoch', 'max_epochs', 'max_iters', 'val_interval', 'dynamic_intervals'}
    assert rows['val_cfg'] == rows['test_cfg'] == {'type', 'fp16'}
    assert rows['optim_wrapper'] >= {'optimizer', 'clip_grad', 'accumulative_counts', 'dtype', 'loss_scale'}
    assert rows['env_cfg.mp_cfg'] == {'type', 'mp_start_method', 'opencv_num_threads'}
    assert rows['randomness'] == {'type', 'seed', 'diff_rank_seed', 'deterministic'}
