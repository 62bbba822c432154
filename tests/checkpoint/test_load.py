# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Every difference between a file and a model is declared, or an error that names the keys."""

from __future__ import annotations

import itertools
import logging

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, BaseModule
from mmengine.runner import Runner, load_checkpoint
from torch import nn

from mmlightvit.checkpoint.convert import convert
from mmlightvit.checkpoint.load import load_into
from mmlightvit.errors import UserError
from mmlightvit.models.backbones import LightViT
from mmlightvit.models.layers.attention import relative_position_index
from mmlightvit.published import rename_to_published

_COUNT = itertools.count()


class Model(BaseModel):
    """A backbone and linear parts beside it, under the names that tell classifiers from detectors."""

    def __init__(self, backbone: LightViT, init_cfg=None, **parts: int) -> None:
        super().__init__(init_cfg=init_cfg)
        self.backbone = backbone
        for name, classes in parts.items():
            self.add_module(name, nn.Linear(4, classes))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        loss = sum(out.mean() for out in self.backbone(torch.stack(list(inputs))))
        return {'loss': loss} if mode == 'loss' else [loss]


@pytest.fixture
def classifier(backbone):
    return lambda seed, classes=3, **kwargs: Model(
        backbone(seed, out_type='tokens', out_indices=(-1,), **kwargs), head=classes
    )


@pytest.fixture
def detector(backbone):
    return lambda seed, classes=3, **kwargs: Model(backbone(seed, **kwargs), neck=2, roi_head=classes)


@pytest.fixture
def segmenter(backbone):
    return lambda seed, classes=3, **kwargs: Model(backbone(seed, **kwargs), decode_head=classes)


@pytest.fixture
def save(tmp_path):
    def write(state, name='file.pth') -> str:
        torch.save({'state_dict': state.state_dict() if isinstance(state, nn.Module) else state}, tmp_path / name)
        return str(tmp_path / name)

    return write


def init(model: BaseModule, checkpoint: str, prefix: str | None = None) -> BaseModule:
    model.init_cfg = dict(type='Pretrained', checkpoint=checkpoint, **({'prefix': prefix} if prefix else {}))
    logger = MMLogger.get_current_instance()
    logger.setLevel(logging.WARNING)  # mmengine lists the initialisation of every parameter
    try:
        model.init_weights()
    finally:
        logger.setLevel(logging.INFO)
    return model


def tensors(model) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_equal(model, other, keys=None):
    a, b = model.state_dict(), other.state_dict()
    for key in keys if keys is not None else a:
        assert a[key].equal(b[key]), key


# ------------------------------------------------------------------------------------------------- one to another task


@pytest.mark.parametrize('prefix', [None, 'backbone', 'backbone.'])
@pytest.mark.parametrize('source', ['classifier', 'detector', 'segmenter'])
@pytest.mark.parametrize('target', ['classifier', 'detector', 'segmenter'])
def test_a_backbone_starts_any_other_task(request, save, source, target, prefix):
    source = request.getfixturevalue(source)(1)
    target = request.getfixturevalue(target)(2)
    before = tensors(target)
    init(target.backbone, save(source), prefix)
    shared = source.backbone.state_dict().keys() & target.backbone.state_dict().keys()
    assert len(shared) > 50
    assert_equal(source.backbone, target.backbone, shared)
    for key in target.state_dict().keys() - {f'backbone.{key}' for key in shared}:
        assert target.state_dict()[key].equal(before[key]), key


def test_published_classifier_starts_a_backbone_with_or_without_prefix(published_files):
    for prefix in (None, 'backbone.'):
        model = init(LightViT('tiny'), str(published_files['cls_tiny']), prefix)
        state = torch.load(published_files['cls_tiny'])['state_dict']
        assert model.state_dict()['global_token'].equal(state['global_token'])
        assert model.stages[2].downsample.global_proj.weight.equal(state['stages.2.0.proj.weight'])
        assert model.norm0.weight.eq(1).all()


def test_a_part_under_a_prefix_is_exact(save, detector):
    class Neck(nn.Linear, BaseModule):
        """A part of this package's models, as far as loading can tell."""

        __module__ = 'mmlightvit.models.necks.test'

    source, neck = detector(1), Neck(4, 2)
    report = load_into(neck, save(source), prefix='neck')
    assert report.loaded == 2
    assert neck.weight.equal(source.neck.weight)
    with pytest.raises(UserError, match=r'nothing under the prefix mask\.; it has backbone\., neck\., roi_head\.'):
        load_into(neck, save(source), prefix='mask')


def test_stages_behind_the_last_output_are_left_out(save, detector, backbone):
    source, target = detector(1), backbone(2, out_indices=(0,))
    report = load_into(target, save(source))
    assert_equal(target, source.backbone, target.state_dict())
    assert {key.split('.')[1] for key in report.left_out['stages behind the last output']} == {'1', '2'}
    assert report.left_out['output norms that the model has not'] == [
        f'norm{i}.{name}' for i in (1, 2) for name in ('weight', 'bias')
    ]


# ------------------------------------------------------------------------------------------------------- global tokens


def test_other_number_of_global_tokens_starts_afresh_and_says_so(save, detector, backbone):
    source, target = detector(1), backbone(2, num_global_tokens=5)
    before = target.global_token.clone()
    report = load_into(target, save(source), starting=True)
    assert target.global_token.equal(before)
    assert_equal(target, source.backbone, [key for key in target.state_dict() if key != 'global_token'])
    assert 'initialised afresh, the file has 2 global tokens and the model 5 (1): global_token' in str(report)


def test_other_number_of_global_tokens_is_an_error_in_a_test(save, detector):
    with pytest.raises(UserError, match=r'global_token.*Set model\.backbone\.num_global_tokens=2'):
        load_checkpoint(detector(2, num_global_tokens=5), save(detector(1)))


def test_no_tokens_from_a_file_with_tokens_is_an_error(save, backbone):
    with pytest.raises(UserError, match=r'unexpected: global_token, .*kv_global'):
        load_into(backbone(2, num_global_tokens=0), save(backbone(1)), starting=True)


# --------------------------------------------------------------------------------------------------------- window size


def test_position_bias_tables_are_resized(save, backbone):
    source, target = backbone(1), backbone(2, window_size=5)
    table = source.stages[0].blocks[0].attn.relative_position_bias_table.data
    offsets = torch.arange(-6.0, 7) / 6
    table[:, 0] = (offsets[:, None] * 2 + offsets[None]).flatten()  # linear in both offsets
    report = load_into(target, save(source), starting=True)
    resized = target.stages[0].blocks[0].attn.relative_position_bias_table
    assert resized.shape == (81, 1)
    assert len(report.resized) == 4
    assert 'stages.0.blocks.0.attn.relative_position_bias_table [169, 1] -> [81, 1]' in str(report)
    # Farthest offset to farthest offset, row by row: not transposed, the middle in the middle.
    grid = resized.view(9, 9)
    torch.testing.assert_close(grid[0, 0], torch.tensor(-3.0))
    torch.testing.assert_close(grid[0, 8], torch.tensor(-1.0))
    torch.testing.assert_close(grid[8, 8], torch.tensor(3.0))
    torch.testing.assert_close(grid[4, 4], torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(grid, -grid.flip(0, 1), atol=1e-5, rtol=0)


def test_window_of_one_keeps_the_offset_zero(save, backbone):
    source, target = backbone(1), backbone(2, window_size=1)
    load_into(target, save(source), starting=True)
    middle = source.stages[2].blocks[0].attn.relative_position_bias_table[84]
    assert target.stages[2].blocks[0].attn.relative_position_bias_table.equal(middle[None])


def test_wrong_index_buffer_is_an_error(backbone):
    state = rename_to_published(backbone(1).state_dict(), 'backbone')
    assert state['stages.0.0.attn.relative_position_index'].equal(relative_position_index(7).flatten())
    state['stages.0.0.attn.relative_position_index'] = relative_position_index(7).T.flatten()
    with pytest.raises(UserError, match=r'stages\.0\.0\.attn\.relative_position_index is not the index of a 7 x 7'):
        load_into(backbone(2), state)


# ----------------------------------------------------------------------------------------------------- what is refused


def damaged(state: dict[str, torch.Tensor]) -> dict[str, tuple[dict, str]]:
    half = dict(list(state.items())[: len(state) // 2])
    renamed = {key.replace('.qkv.', '.query_key_value.'): value for key, value in state.items()}
    extra = state | {'backbone.stages.0.blocks.9.norm1.weight': torch.ones(8)}
    mixed = state | {'backbone.stages.0.0.norm1.weight': torch.ones(8)}
    reshaped = state | {'backbone.patch_embed.proj.weight': torch.ones(8, 4, 1, 1)}
    text = state | {'note': 'text'}
    doubled = state | {'module.backbone.global_token': state['backbone.global_token']}
    norms = {key: value for key, value in state.items() if 'backbone.norm1' not in key}
    return {
        'half': (half, r'missing.*missing: backbone\.'),
        'renamed': (renamed, r'missing: .*\.qkv\.weight.*unexpected: .*\.query_key_value\.weight'),
        'extra': (extra, r'1 unexpected\. unexpected: backbone\.stages\.0\.blocks\.9\.norm1\.weight'),
        'mixed': (mixed, r'mixes the published layout \(backbone\.stages\.0\.0\.norm1\.weight\) and that of this'),
        'reshaped': (reshaped, r'patch_embed\.proj\.weight \[8, 4, 1, 1\], expected \[8, 4, 3, 3\]'),
        'no tensor': (text, r'something else under note'),
        'doubled': (doubled, r'backbone\.global_token both with and without the prefix module\.'),
        'one norm less': (norms, r'2 missing\. missing: backbone\.norm1\.weight, backbone\.norm1\.bias'),
        'empty': ({}, r'holds no weights'),
        'another model': ({'layer1.0.conv1.weight': torch.ones(1)}, r'missing: backbone\.|holds no LightViT'),
    }


@pytest.mark.parametrize('starting', [False, True])
@pytest.mark.parametrize('what', list(damaged({'backbone.global_token': torch.ones(1)})))
def test_a_file_that_does_not_fit_leaves_the_model_untouched(save, detector, what, starting):
    state, message = damaged(detector(1).state_dict())[what]
    model = detector(2)
    before = tensors(model)
    with pytest.raises(UserError, match=message) as error:
        load_into(model, save(state), starting=starting)
    assert '\n' not in str(error.value)
    for key, value in model.state_dict().items():
        assert value.equal(before[key])
    if what not in ('mixed', 'no tensor', 'doubled', 'empty', 'another model'):
        with pytest.raises(UserError):
            init(model.backbone, save(state)) if what != 'one norm less' else init(model, save(state))


def test_wrong_variant_names_the_one_that_fits(published_files):
    with pytest.raises(UserError, match=r'LightViT tiny .*of another shape.*set model\.backbone\.arch'):
        init(LightViT('small', out_indices=(0,)), str(published_files['cls_tiny']))


def test_a_classifier_cannot_be_tested_as_a_detector(save, classifier, detector):
    with pytest.raises(UserError, match=r'missing: .*A classifier can start training'):
        load_checkpoint(detector(2), save(classifier(1)))


def test_own_and_published_files_load_whole(save, detector):
    source = detector(1)
    published = rename_to_published(source.state_dict(), 'detector')
    for state in (source.state_dict(), published, {f'module.{key}': value for key, value in published.items()}):
        target = detector(2)
        load_checkpoint(target, save(state))
        assert_equal(source, target)


@pytest.mark.parametrize('prefix', ['_orig_mod.', 'model.', 'module.model.', '_orig_mod.module.', 'model._orig_mod.'])
@pytest.mark.parametrize('layout', ['own', 'published'])
def test_prefixes_of_wrappers_are_left_out_and_named(save, detector, prefix, layout):
    source, target = detector(1), detector(2)
    state = source.state_dict() if layout == 'own' else rename_to_published(source.state_dict(), 'detector')
    wrapped = {f'{prefix}{key}': value for key, value in state.items()}
    report = load_into(target, save(wrapped))
    assert_equal(source, target)
    said = [part for part in ('_orig_mod.', 'model.') if part in prefix]
    assert 'without the prefix' in str(report) and all(part in str(report) for part in said)


def test_compiled_parts_load_and_a_prefix_of_the_model_itself_stays(save, detector):
    source, target = detector(1), detector(2)
    compiled = {key.replace('blocks.0.', 'blocks.0._orig_mod.'): v for key, v in source.state_dict().items()}
    load_into(target, save(compiled))
    assert_equal(source, target)
    outer = nn.ModuleDict(dict(model=detector(3)))
    load_into(outer, save({f'model.{key}': value for key, value in source.state_dict().items()}))
    assert_equal(source, outer['model'])
    both = source.state_dict() | {f'model.{key}': value for key, value in source.state_dict().items()}
    with pytest.raises(UserError, match=r'both with and without the prefix model\.'):
        load_into(target, save(both))


@pytest.mark.parametrize('names', [('state_dict', 'state_dict_ema'), ('model', 'model_ema'), ('model', 'ema')])
def test_averages_of_other_programs_are_named_and_can_be_chosen(tmp_path, backbone, names):
    raw, average = backbone(1, 'tiny'), backbone(2, 'tiny')
    file = tmp_path / 'file.pth'
    torch.save({names[0]: raw.state_dict(), names[1]: average.state_dict()}, file)
    target = backbone(3, 'tiny')
    report = load_into(target, str(file))
    assert_equal(raw, target)
    assert f'convert --weights ENTRY writes them to a file of their own), averaged weights (1): {names[1]}' in str(
        report
    )
    convert(file, tmp_path / 'average.pth', entry=names[1])
    report = load_into(target, str(tmp_path / 'average.pth'))
    assert_equal(average, target)
    assert 'averaged' not in str(report)
    with pytest.raises(UserError, match=f'no weights in an entry best; it has {names[0]}, {names[1]}'):
        convert(file, tmp_path / 'none.pth', entry='best')
    torch.save({names[1]: average.state_dict()}, file)  # alone
    load_into(backbone(3, 'tiny'), str(file))


def test_other_bands_are_named_with_what_to_do(save, detector, backbone, tmp_path):
    source, target = detector(1), detector(2, in_channels=4)
    stem = target.backbone.patch_embed.stem[0].weight.clone()
    told = (
        r'pictures of 3 bands, the model for 4: set model\.backbone\.in_channels=3, or train '
        r'backbone\.patch_embed\.stem\.0\.weight afresh, .* load_fresh beside load_from'
    )
    with pytest.raises(UserError, match=told):
        load_into(target, save(source), starting=True)
    load_into(target, save(source), starting=True, fresh=['backbone.patch_embed.stem.0.weight'])
    assert target.backbone.patch_embed.stem[0].weight.equal(stem)
    assert_equal(source.neck, target.neck)
    ours = backbone(1, 'tiny', in_channels=4)
    torch.save({'state_dict': ours.state_dict()}, tmp_path / 'four.pth')
    found, differences = convert(tmp_path / 'four.pth', tmp_path / 'four.safetensors')
    assert '4 bands' in str(found) and not differences
    assert_equal(ours, LightViT.from_pretrained(str(tmp_path / 'four.safetensors')))


class Head(nn.Module):
    """Under the name that tells how many classes there are."""

    def __init__(self, name: str, rows: int) -> None:
        super().__init__()
        self.add_module(name, nn.Linear(4, rows))


@pytest.mark.parametrize(('part', 'layer', 'more'), [('head', 'fc', 0), ('decode_head', 'conv_seg', 0),
                                                     ('roi_head', 'fc_cls', 1)])  # fmt: skip
def test_another_number_of_classes_is_said_first(save, backbone, part, layer, more):
    def build(classes: int) -> Model:
        model = Model(backbone(1))
        head = Head(layer, classes + more)
        if part == 'roi_head':
            head = nn.ModuleDict(dict(bbox_head=head))
        model.add_module(part, head)
        return model

    with pytest.raises(UserError, match='it is for 2 classes, and the model for 3; 2 of another shape') as error:
        load_into(build(3), save(build(2)))
    assert str(error.value).count(f'{layer}.weight') == 1


def test_another_task_is_said_first(save, classifier, detector, caplog):
    with pytest.raises(UserError, match='it is of a classifier, and the model is a detector; ') as error:
        load_into(detector(2), save(classifier(1)))
    assert str(error.value).count('head.weight') == 2  # roi_head is missing, head is unexpected
    assert not caplog.records


class Stages(BaseModule):
    """A backbone of another kind, with the keys of ConvNeXt and of Swin."""

    def __init__(self) -> None:
        super().__init__()
        plain = nn.ModuleList([nn.Linear(2, 2), nn.LayerNorm(2)])
        windowed = nn.Module()
        windowed.blocks = nn.ModuleList([nn.Module()])
        windowed.blocks[0].norm1 = nn.LayerNorm(2)
        windowed.blocks[0].attn = nn.Module()
        windowed.blocks[0].attn.register_buffer('relative_position_index', torch.arange(4))
        self.stages = nn.ModuleList([windowed, plain])


@pytest.mark.parametrize('starting', [False, True])
def test_our_parts_behind_another_backbone_load_by_their_own_keys(save, starting):
    from mmlightvit.models.necks import LightViTFPN

    def make(seed: int) -> Model:
        torch.manual_seed(seed)
        model = Model(Stages(), roi_head=2)
        model.neck = LightViTFPN([4, 4], 4, num_outs=3, num_transposed=1)
        return model

    source, target = make(1), make(2)
    load_into(target, save(source), starting=starting)
    assert_equal(source, target)
    less = source.state_dict()
    del less['backbone.stages.0.blocks.0.norm1.bias']
    with pytest.raises(UserError, match=r'1 missing\. missing: backbone\.stages\.0\.blocks\.0\.norm1\.bias'):
        load_into(target, save(less), starting=starting)


# -------------------------------------------------------------------------------------- load_from of mmengine's Runner


def run(model, file, tmp_path, train: bool = True, **settings):
    loader = dict(dataset=Images(), batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    cfg = Config(dict(load_from=file, **settings))
    training = dict(
        train_dataloader=loader,
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
    )
    testing = dict(test_dataloader=loader, test_cfg=dict(), test_evaluator=dict(type=Nothing))
    runner = Runner(
        model,
        str(tmp_path / 'work'),
        load_from=file,
        cfg=cfg,
        log_level='ERROR',
        default_hooks=dict(checkpoint=None),
        experiment_name=f'{tmp_path.name} {next(_COUNT)}',
        custom_hooks=settings.get('custom_hooks'),
        **training,
        **testing,
    )
    runner.train() if train else runner.test()
    return runner


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return dict(inputs=torch.zeros(3, 32, 32))


class Nothing:
    """A metric of nothing."""

    dataset_meta = None
    collect_device = 'cpu'

    def process(self, *args, **kwargs):
        pass

    def evaluate(self, size):
        return {}


def test_runner_starts_and_tests(save, detector, classifier, tmp_path):
    source = detector(1)
    file = save(rename_to_published(source.state_dict(), 'detector'))
    for train in (True, False):
        target = detector(2)
        run(target, file, tmp_path, train)
        assert_equal(
            source, target, [key for key in source.state_dict() if 'running' not in key and 'num_b' not in key]
        )
    start = save(classifier(3), 'classifier.pth')
    target = detector(2)
    run(target, start, tmp_path)
    assert target.backbone.global_token.equal(classifier(3).backbone.global_token)
    with pytest.raises(UserError, match='A classifier can start training'):
        run(detector(2), start, tmp_path, train=False)


def test_other_number_of_classes_needs_a_declaration(save, detector, tmp_path):
    source, target = detector(1, classes=3), detector(2, classes=5)
    head = target.roi_head.weight.clone()
    file = save(source)
    with pytest.raises(UserError, match=r'roi_head\.weight \[3, 4\], expected \[5, 4\].*name .* in load_fresh'):
        run(target, file, tmp_path)
    run(target, file, tmp_path, load_fresh=['roi_head.'])
    assert target.roi_head.weight.equal(head)
    assert target.neck.weight.equal(source.neck.weight)
    with pytest.raises(UserError, match=r'load_fresh: roi_head\.mask match no parameter that differs'):
        run(target, file, tmp_path, load_fresh=['roi_head.', 'roi_head.mask'])


def test_a_file_loaded_after_training_has_no_liberties(save, classifier, detector, tmp_path):
    """Training and testing in one process: what is tested comes from the file."""
    runner = run(detector(2), None, tmp_path)
    with pytest.raises(UserError, match='A classifier can start training'):
        runner.load_checkpoint(save(classifier(1)))


def test_averaged_weights_start_from_the_file_too(save, detector, tmp_path):
    source = detector(1)
    target = detector(2)
    runner = run(
        target,
        save(rename_to_published(source.state_dict(), 'detector')),
        tmp_path,
        custom_hooks=[dict(type='EMAHook', momentum=0.5)],
    )
    (average,) = [hook.ema_model.module for hook in runner.hooks if hasattr(hook, 'ema_model')]
    assert average.neck.weight.equal(source.neck.weight)
    assert average.backbone.global_token.equal(source.backbone.global_token)
