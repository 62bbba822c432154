# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What timm's own tests ask of every model, asked of ours."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
import torch

timm = pytest.importorskip('timm')
ours = pytest.importorskip('mmlightvit.timm_models')

NAMES = ('lightvit_tiny', 'lightvit_small', 'lightvit_base')


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return timm.create_model('lightvit_tiny').eval()


@pytest.fixture
def image():
    return torch.rand(1, 3, 65, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('name', NAMES)
def test_default_cfg(name):
    """The checks of every model's configuration, at the size that it names."""
    assert timm.is_model(name)
    assert name in timm.list_models('lightvit_*')
    assert f'{name}.in1k' in timm.list_pretrained('lightvit_*')
    assert timm.model_entrypoint(name).__name__ == name
    model = timm.create_model(name).eval()
    cfg, state = model.default_cfg, model.state_dict()
    assert cfg['url'].startswith('https://github.com/hunto/LightViT/releases/')
    assert f'{cfg["first_conv"]}.weight' in state
    assert state[f'{cfg["classifier"]}.weight'].shape == (model.num_classes, model.head_hidden_size)
    assert model.num_classes == cfg['num_classes'] == 1000
    image = torch.rand(1, *cfg['input_size'])
    with torch.no_grad():
        features = model.forward_features(image)
        pooled = model.forward_head(features, pre_logits=True)
        assert features.shape[-1] == model.num_features
        assert pooled.shape == (1, model.head_hidden_size)
        logits = model(image)
        assert logits.isfinite().all()
        model.set_grad_checkpointing()
        torch.testing.assert_close(model(image), logits)
        model.reset_classifier(0)
        assert model.num_classes == 0
        torch.testing.assert_close(model(image), pooled)
        bare = timm.create_model(name, num_classes=0).eval()
        assert bare(image).shape == pooled.shape
        assert set(bare.state_dict()) == set(state) - {'head.fc.weight', 'head.fc.bias'}


def test_forward_and_classifier(model, image):
    with torch.no_grad():
        logits = model(image)
        features = model.forward_features(image)
        assert logits.shape == (1, 1000)
        assert features.shape[-1] == model.num_features
        torch.testing.assert_close(model.forward_head(features), logits)
        assert model.forward_head(features, pre_logits=True).shape == (1, model.head_hidden_size)
    assert model.get_classifier().out_features == 1000


def test_reset_classifier(image):
    model = timm.create_model('lightvit_tiny', num_classes=42).eval()
    with torch.no_grad():
        assert model(image).shape == (1, 42)
        model.reset_classifier(0)
        assert model(image).shape == (1, model.head_hidden_size)
        torch.testing.assert_close(model(image), model.forward_head(model.forward_features(image), pre_logits=True))
        model.reset_classifier(7)
        assert model(image).shape == (1, 7)
        bare = timm.create_model('lightvit_tiny', num_classes=0).eval()
        assert bare(image).shape == (1, bare.head_hidden_size)
    with pytest.raises(ValueError, match='global_pool'):
        model.reset_classifier(7, 'max')


@pytest.mark.parametrize('name', NAMES)
def test_every_parameter_has_a_gradient(name):
    model = timm.create_model(name, num_classes=42, drop_path_rate=0.0)
    logits = model(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 42)
    logits.mean().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize('indices', [(0,), (0, 1), (1, 2), (-1,), 2])
def test_a_features_model_has_no_unused_parameters(indices, image):
    model = timm.create_model('lightvit_tiny', features_only=True, out_indices=indices)
    sum(feature.sum() for feature in model(image)).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_checkpointing_gives_the_same(image):
    model = timm.create_model('lightvit_tiny', num_classes=4)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.eval()
        model.zero_grad()
        model(image).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize('name', NAMES)
def test_features_only(name, image):
    model = timm.create_model(name, features_only=True).eval()
    channels, reductions = model.feature_info.channels(), model.feature_info.reduction()
    assert reductions == [8, 16, 32]
    with torch.no_grad():
        maps = model(image)
    assert len(maps) == len(channels) == 3
    for feature, channel, reduction in zip(maps, channels, reductions):
        assert feature.shape == (1, channel, -(-65 // reduction), -(-96 // reduction))
        assert feature.isfinite().all()
    some = timm.create_model(name, features_only=True, out_indices=(1, 2))
    assert some.feature_info.channels() == channels[1:]
    assert [feature.shape[1] for feature in some(image)] == channels[1:]


def test_forward_intermediates(model, image):
    with torch.no_grad():
        last, maps = model.forward_intermediates(image)
        torch.testing.assert_close(last, model.forward_features(image))
        assert [feature.shape[1] for feature in maps] == [64, 128, 256]
        only = model.forward_intermediates(image, indices=[0, 2], intermediates_only=True)
        torch.testing.assert_close(only[0], maps[0])
        torch.testing.assert_close(only[1], maps[2])
        normed = model.forward_intermediates(image, indices=1, norm=True, intermediates_only=True)
        assert len(normed) == 1
        assert (normed[0] - maps[2]).abs().max() > 1e-3
        for indices in ([0], [0, 1], 1):
            early, same = model.forward_intermediates(image, indices, stop_early=True)
            for feature, reference in zip(same, model.forward_intermediates(image, indices, intermediates_only=True)):
                torch.testing.assert_close(feature, reference)
            assert early.shape[-1] == same[-1].shape[1]
        assert len(model.backbone.stages) == 3
    with pytest.raises(ValueError, match='NCHW'):
        model.forward_intermediates(image, output_fmt='NLC')
    for indices in ([3], 4):
        with pytest.raises(AssertionError, match='out of range'):
            model.forward_intermediates(image, indices)


def test_intermediates_lie_where_the_image_is(model):
    """A change in the picture's upper left corner moves the first stage's upper left most."""
    image = torch.zeros(1, 3, 224, 224)
    changed = image.clone()
    changed[..., :16, :16] = 3
    with torch.no_grad():
        before, after = (model.forward_intermediates(x, 1 * [0], intermediates_only=True)[0] for x in (image, changed))
    moved = (after - before).abs().sum(1)[0]
    row, column = divmod(int(moved.argmax()), moved.shape[1])
    assert max(row, column) <= 2


def test_stopping_early_leaves_the_later_stages_undone(model, image):
    seen = []
    handles = [stage.register_forward_hook(lambda *_, i=i: seen.append(i)) for i, stage in
               enumerate(model.backbone.stages)]  # fmt: skip
    with torch.no_grad():
        model.forward_intermediates(image, [1], stop_early=True)
    assert seen == [0, 1]
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(('indices', 'kept'), [([0], 1), ([-2], 2), (1, 3)])
def test_prune_intermediate_layers(image, indices, kept):
    model = timm.create_model('lightvit_tiny').eval()
    with torch.no_grad():
        before = model.forward_intermediates(image, indices, intermediates_only=True)
        assert model.prune_intermediate_layers(indices, prune_norm=True) == [kept - 1]
        torch.testing.assert_close(model.forward_intermediates(image, [kept - 1], intermediates_only=True), before)
    assert len(model.backbone.stages) == kept
    assert not list(model.head.parameters())


def features_model(seed):
    torch.manual_seed(seed)
    return timm.create_model('lightvit_tiny', features_only=True, out_indices=(0, 1))


def pruned_model(seed):
    torch.manual_seed(seed)
    model = timm.create_model('lightvit_tiny')
    model.prune_intermediate_layers([0, 1], prune_norm=True)
    return model


def same_weights(one, other):
    return all(value.equal(other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize('make', [features_model, pruned_model])
def test_a_shortened_model_is_copied_averaged_and_loads(make):
    """The backbone that it was cut off from is gone, and what it did while loading must not be."""
    source, target = make(0), make(1)
    gc.collect()
    average = timm.utils.ModelEmaV3(target, decay=0.5)
    assert same_weights(target, average.module) and not same_weights(source, target)
    for model in (target, average.module, copy.deepcopy(target), pickle.loads(pickle.dumps(target))):
        model.load_state_dict(source.state_dict())
        assert same_weights(source, model)
    average.update(source)
    assert same_weights(source, average.module)


def test_a_features_model_takes_published_names():
    from mmlightvit.published import rename_to_published

    source, target = features_model(0), features_model(1)
    published = rename_to_published(source.model.backbone.state_dict(), 'backbone')
    target.load_state_dict({f'model.backbone.{name}': value for name, value in published.items()})
    assert same_weights(source, target)


@pytest.mark.parametrize('coarse', [False, True])
def test_groups_of_layers(model, coarse):
    from timm.models import group_parameters

    groups = group_parameters(model, model.group_matcher(coarse), reverse=True)
    assert set(groups) == {name for name, _ in model.named_parameters()}
    assert max(groups.values()) == (4 if coarse else 1 + 2 + 6 + 6)  # stem, stages or blocks, classifier
    blocks = [groups[f'backbone.stages.{stage}.blocks.0.norm1.weight'] for stage in range(3)]
    assert blocks == ([1, 2, 3] if coarse else [1, 3, 9])
    assert groups['backbone.global_token'] == groups['backbone.patch_embed.proj.weight'] == 0


def test_layer_decay_reaches_every_parameter(model):
    from timm.optim import param_groups_layer_decay

    groups = param_groups_layer_decay(model, layer_decay=0.5, no_weight_decay_list=model.no_weight_decay())
    scale_of = {id(parameter): group['lr_scale'] for group in groups for parameter in group['params']}
    scales = {name: scale_of[id(parameter)] for name, parameter in model.named_parameters()}
    first, last = (scales[f'backbone.stages.{stage}.blocks.0.norm1.weight'] for stage in (0, 2))
    assert scales['backbone.global_token'] < first < last < scales['head.fc.weight']


def test_other_channels_and_arguments():
    model = timm.create_model('lightvit_tiny', in_chans=1, num_classes=3).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 1, 64, 64)).shape == (1, 3)
    with pytest.raises(ValueError, match='global_pool'):
        timm.create_model('lightvit_tiny', global_pool='max')


def test_a_published_file_loads(tmp_path):
    from mmlightvit.published import rename_to_published

    torch.manual_seed(1)
    model = timm.create_model('lightvit_tiny')
    path = tmp_path / 'published.ckpt'
    torch.save({'state_dict': dict(rename_to_published(model.state_dict(), 'classifier'))}, path)
    loaded = timm.create_model('lightvit_tiny', pretrained=True, pretrained_cfg_overlay={'file': str(path)})
    for (name, value), (other, reference) in zip(loaded.state_dict().items(), model.state_dict().items()):
        assert name == other
        torch.testing.assert_close(value, reference)


def test_a_published_file_loads_for_other_channels_and_classes(tmp_path):
    from mmlightvit.published import rename_to_published

    torch.manual_seed(1)
    reference = timm.create_model('lightvit_tiny')
    path = tmp_path / 'published.ckpt'
    torch.save({'state_dict': dict(rename_to_published(reference.state_dict(), 'classifier'))}, path)
    given = dict(pretrained=True, pretrained_cfg_overlay={'file': str(path)})
    for num_classes in (5, 0):
        model = timm.create_model('lightvit_tiny', in_chans=1, num_classes=num_classes, **given)
        stem, grey = (m.backbone.patch_embed.stem[0].weight for m in (reference, model))
        torch.testing.assert_close(grey, stem.sum(1, keepdim=True))
        torch.testing.assert_close(model.head.proj.weight, reference.head.proj.weight)
    features = timm.create_model('lightvit_tiny', features_only=True, out_indices=(0, 1), **given)
    torch.testing.assert_close(features.model.backbone.global_token, reference.backbone.global_token)


def test_weights_are_those_of_the_classifier(repo):
    pytest.importorskip('mmpretrain')
    from mmengine.config import Config

    from mmlightvit.toolboxes import build_model

    classifier = build_model(Config.fromfile(repo / 'configs' / 'lightvit_t_imagenet.py')).eval()
    model = ours.TimmLightViT('tiny').eval()
    model.load_state_dict(classifier.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), classifier(x, mode='tensor'))
