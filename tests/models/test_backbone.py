# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What the backbone promises: shapes, arguments, freezing, checkpointing, and that nothing leaks over a crop."""

from __future__ import annotations

import math

import oracles
import pytest
import torch
from variants import OUT_TYPES, TEST_ARCH

from mmlightvit.models.backbones import LightViT


@pytest.mark.parametrize('size', [(1, 1), (57, 200), (224, 224)], ids=lambda size: f'{size[0]}x{size[1]}')
def test_feature_maps_round_up(size):
    with torch.no_grad():
        outs = LightViT(TEST_ARCH).eval()(torch.randn(2, 3, *size))
    height, width = math.ceil(size[0] / 8), math.ceil(size[1] / 8)
    for out, channels in zip(outs, TEST_ARCH['embed_dims']):
        assert out.shape == (2, channels, height, width)
        assert out.is_contiguous()
        assert torch.isfinite(out).all()
        height, width = math.ceil(height / 2), math.ceil(width / 2)


def test_tokens_put_the_global_ones_first():
    backbone = LightViT(TEST_ARCH, out_type='tokens').eval()
    with torch.no_grad():
        outs = backbone(torch.randn(2, 3, 112, 224))
    assert [tuple(out.shape) for out in outs] == [
        (2, 2 + 14 * 28, 8),
        (2, 2 + 7 * 14, 16),
        (2, 2 + 4 * 7, 32),
    ]


@pytest.mark.parametrize('indices', [(0,), (1,), (2,), (0, 2), (-1,), 1])
def test_a_subset_of_stages_gives_the_same_maps(indices):
    full = oracles.scramble(LightViT(TEST_ARCH)).eval()
    part = LightViT(TEST_ARCH, out_indices=indices).eval()
    state = part.state_dict()
    part.load_state_dict({key: value for key, value in full.state_dict().items() if key in state})
    image = torch.randn(1, 3, 113, 57)
    with torch.no_grad():
        want = [full(image)[i] for i in ([indices] if isinstance(indices, int) else indices)]
        for got, expected in zip(part(image), want, strict=True):
            torch.testing.assert_close(got, expected)
    assert len(part.stages) == part.num_stages == max(part.out_indices) + 1


def test_the_former_name_of_tokens_is_accepted():
    assert LightViT(TEST_ARCH, out_type='raw').out_type == 'tokens'


@pytest.mark.parametrize('out_type', OUT_TYPES)
@pytest.mark.parametrize('settings', [{}, dict(num_global_tokens=0), dict(window_size=3)], ids=str)
@pytest.mark.parametrize('size', [(25, 38), (56, 56)], ids=lambda size: f'{size[0]}x{size[1]}')
def test_the_whole_against_the_loops(out_type, settings, size):
    backbone = oracles.scramble(LightViT(TEST_ARCH, out_type=out_type, **settings)).eval()
    image = torch.randn(1, 3, *size)
    for got, want in zip(backbone(image), oracles.loop_backbone(backbone, image), strict=True):
        torch.testing.assert_close(got.detach().double(), want, rtol=1e-4, atol=1e-4)


def test_with_cp_gives_identical_gradients():
    gradients = []
    for with_cp in (False, True):
        backbone = oracles.scramble(LightViT(TEST_ARCH, with_cp=with_cp, drop_path_rate=0.3)).train()
        torch.manual_seed(1)
        sum(out.square().mean() for out in backbone(torch.randn(2, 3, 113, 57))).backward()
        gradients.append({name: p.grad for name, p in backbone.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_with_cp_stores_fewer_activations():
    stored = []
    for with_cp in (False, True):
        backbone, total = LightViT(TEST_ARCH, with_cp=with_cp).train(), []

        def count(tensor, total=total):
            total.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            backbone(torch.randn(2, 3, 112, 112))
        stored.append(sum(total))
    assert stored[1] < 0.75 * stored[0]


def test_norm_eval_keeps_the_statistics_but_learns_the_affine():
    backbone = LightViT(TEST_ARCH, norm_eval=True).train()
    norm = backbone.patch_embed.stem[1]
    before = norm.running_mean.clone()
    sum(out.square().mean() for out in backbone(torch.randn(2, 3, 64, 64) + 1)).backward()
    assert torch.equal(norm.running_mean, before)
    assert not norm.training
    assert backbone.training
    assert norm.weight.grad is not None


@pytest.mark.parametrize('frozen', [-1, 0, 1, 3])
def test_frozen_stages(frozen):
    backbone = LightViT(TEST_ARCH, frozen_stages=frozen).train()
    parts = {'patch_embed': backbone.patch_embed, **{f'stages.{i}': stage for i, stage in enumerate(backbone.stages)}}
    for i, (name, part) in enumerate(parts.items()):
        is_frozen = i <= frozen
        assert part.training != is_frozen, name
        assert all(p.requires_grad != is_frozen for p in part.parameters()), name
    assert backbone.global_token.requires_grad == (frozen < 0)
    for i in range(3):
        assert getattr(backbone, f'norm{i}').weight.requires_grad == (i >= frozen)
    if frozen < 3:
        sum(out.square().mean() for out in backbone(torch.randn(2, 3, 64, 64))).backward()
        assert all((p.grad is not None) == p.requires_grad for p in backbone.parameters())


def test_state_dict_round_trip():
    source, target = oracles.scramble(LightViT(TEST_ARCH)).eval(), LightViT(TEST_ARCH).eval()
    assert not any('index' in key or 'cache' in key for key in source.state_dict())
    target.load_state_dict(source.state_dict())
    image = torch.randn(1, 3, 100, 100)
    with torch.no_grad():
        for got, want in zip(target(image), source(image)):
            assert torch.equal(got, want)


@pytest.mark.parametrize('size', [(112, 112), (100, 60)], ids=['aligned', 'padded'])
def test_samples_of_a_batch_do_not_see_each_other(size):
    backbone = oracles.scramble(LightViT(TEST_ARCH)).eval()
    images = torch.randn(3, 3, *size)
    with torch.no_grad():
        together, alone = backbone(images), backbone(images[1:2])
    for batch, single in zip(together, alone):
        torch.testing.assert_close(batch[1:2], single, rtol=1e-4, atol=1e-4)


def test_nothing_leaks_over_the_crop():
    """What lies in the padding of the windows never reaches a real token by another way than the padded keys.

    The grid is 8x8 with windows of 7, so the padding is 6 rows and columns wide. A batch whose other sample differs,
    and memory that held other values before, must not change anything.
    """
    backbone = oracles.scramble(LightViT(TEST_ARCH)).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        first = [out.clone() for out in backbone(image)]
        junk = [torch.full((n,), float('nan')) for n in (10_000, 100_000, 1_000_000)]
        del junk
        beside = torch.full_like(image, 1e4)
        second = backbone(torch.cat([image, beside]))
    for a, b in zip(first, second):
        torch.testing.assert_close(a, b[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='huge'), "arch: expected one of .* got 'huge'"),
        (dict(arch=dict(embed_dims=[8])), 'arch: expected the keys'),
        (dict(arch={**TEST_ARCH, 'extra': 1}), 'arch: expected the keys'),
        (dict(arch={**TEST_ARCH, 'num_heads': [1, 2]}), 'one entry per stage'),
        (dict(arch={**TEST_ARCH, 'num_heads': [3, 2, 4]}), 'num_heads and 4 divide'),
        (dict(arch={**TEST_ARCH, 'num_blocks': [1, 0, 1]}), 'at least one block'),
        (dict(patch_stride=5), 'patch_stride: expected 4 or 8'),
        (dict(num_global_tokens=-1), 'num_global_tokens'),
        (dict(num_global_tokens=1.5), 'num_global_tokens'),
        (dict(window_size=None), 'num_global_tokens: expected 0 with window_size=None'),
        (dict(window_size=0), 'window_size'),
        (dict(out_type='map'), 'out_type'),
        (dict(out_indices=()), 'out_indices'),
        (dict(out_indices=(0, 3)), 'out_indices'),
        (dict(out_indices=(1, 0)), 'out_indices'),
        (dict(drop_path_rate=1.0), 'drop_path_rate'),
        (dict(frozen_stages=4), 'frozen_stages'),
        (dict(frozen_stages=-2), 'frozen_stages'),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LightViT(**{'arch': TEST_ARCH, **kwargs})


def test_drop_path_rises_over_the_whole_architecture():
    rates = [block.drop_path.rate for stage in LightViT(TEST_ARCH, drop_path_rate=0.3).stages for block in stage.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    part = LightViT(TEST_ARCH, drop_path_rate=0.3, out_indices=(0,))
    assert part.stages[0].blocks[0].drop_path.rate == 0


def test_rates_fall_from_layer_to_layer_as_mmpretrain_asks():
    """Of a classifier: blocks 1, 2 and 1 are layers 1 to 4, between the stem and the head."""
    pytest.importorskip('mmpretrain')
    from mmlightvit.toolboxes import import_toolbox

    import_toolbox('mmpretrain')
    from mmengine.registry import DefaultScope
    from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
    from mmpretrain.registry import MODELS

    backbone = dict(type='mmlightvit.LightViT', arch=TEST_ARCH, out_type='tokens', out_indices=(-1,))
    head = dict(type='mmlightvit.LightViTHead', num_classes=3, in_channels=32)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head))
        constructor = LearningRateDecayOptimWrapperConstructor(
            dict(optimizer=dict(type='SGD', lr=1.0, weight_decay=0.1)), paramwise_cfg=dict(layer_decay_rate=0.5)
        )
        rates = {group['param_name']: group['lr'] for group in constructor(model).optimizer.param_groups}
    assert len(rates) == len(list(model.parameters()))
    layers = {
        'backbone.patch_embed.': 5, 'backbone.global_token': 5, 'backbone.stages.0.blocks.0.': 4,
        'backbone.stages.1.downsample.': 3, 'backbone.stages.1.blocks.0.': 3, 'backbone.stages.1.blocks.1.': 2,
        'backbone.stages.2.downsample.': 1, 'backbone.stages.2.blocks.0.': 1, 'head.': 0,
    }  # fmt: skip
    for name, rate in rates.items():
        [behind] = [number for beginning, number in layers.items() if name.startswith(beginning)]
        assert rate == 0.5**behind, name
    assert LightViT(TEST_ARCH).get_layer_depth('norm0.weight') == (5, 6)
