# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What timm's own tests ask of every model, asked of ours."""

from __future__ import annotations

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
    assert timm.is_model(name)
    assert name in timm.list_models('lightvit_*')
    with torch.device('meta'):
        model = timm.create_model(name)
    cfg = model.default_cfg
    state = model.state_dict()
    assert {'url', 'num_classes', 'input_size', 'mean', 'std', 'first_conv', 'classifier'} <= set(cfg)
    assert f'{cfg["classifier"]}.weight' in state
    assert f'{cfg["first_conv"]}.weight' in state
    assert state[f'{cfg["classifier"]}.weight'].shape == (1000, model.head_hidden_size)
    assert cfg['url'].startswith('https://github.com/hunto/LightViT/releases/')
    assert timm.model_entrypoint(name).__name__ == name
    assert model.num_features > 0


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


def test_every_parameter_has_a_gradient():
    model = timm.create_model('lightvit_tiny', num_classes=4, drop_path_rate=0.0)
    model(torch.rand(2, 3, 64, 64)).mean().backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


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


def test_features_only(image):
    model = timm.create_model('lightvit_tiny', features_only=True).eval()
    channels, reductions = model.feature_info.channels(), model.feature_info.reduction()
    assert (channels, reductions) == ([64, 128, 256], [8, 16, 32])
    with torch.no_grad():
        maps = model(image)
    for feature, channel, reduction in zip(maps, channels, reductions):
        assert feature.shape == (1, channel, -(-65 // reduction), -(-96 // reduction))
    some = timm.create_model('lightvit_tiny', features_only=True, out_indices=(1, 2))
    assert some.feature_info.channels() == [128, 256]
    assert [feature.shape[1] for feature in some(image)] == [128, 256]


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
    with pytest.raises(ValueError, match='NCHW'):
        model.forward_intermediates(image, output_fmt='NLC')


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


def test_prune_intermediate_layers(image):
    model = timm.create_model('lightvit_tiny').eval()
    with torch.no_grad():
        before = model.forward_intermediates(image, [1], intermediates_only=True)
        assert model.prune_intermediate_layers([1]) == [1]
        torch.testing.assert_close(model.forward_intermediates(image, [1], intermediates_only=True), before)
        assert model(image).shape == (1, model.head_hidden_size)


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
    from mmlightvit.models.published import rename_to_published

    torch.manual_seed(1)
    model = timm.create_model('lightvit_tiny')
    path = tmp_path / 'published.ckpt'
    torch.save({'state_dict': dict(rename_to_published(model.state_dict(), 'classifier'))}, path)
    loaded = timm.create_model('lightvit_tiny', pretrained=True, pretrained_cfg_overlay={'file': str(path)})
    for (name, value), (other, reference) in zip(loaded.state_dict().items(), model.state_dict().items()):
        assert name == other
        torch.testing.assert_close(value, reference)


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
