# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The backbone against its plain form (tests/oracles.py): outputs, gradients, random draws and rounding."""

from __future__ import annotations

import oracles
import pytest
import torch

from mmlightvit.models.backbones import LightViT

# Pixels. Grids of one token, one row, whole windows (112, 224), padded windows, odd grids at each stage.
SIZES = [
    (1, 1), (1, 300), (8, 8), (9, 300), (31, 33), (56, 56), (57, 55), (64, 112), (100, 100),
    (112, 112), (113, 57), (150, 299), (168, 224), (224, 112), (224, 224), (225, 223), (256, 256), (300, 1), (300, 300),
]  # fmt: skip
VARIANTS = {
    'featmap': dict(),
    'raw': dict(out_type='raw'),
    'one stage': dict(out_indices=(1,)),
    'no tokens': dict(num_global_tokens=0),
    'vanilla': dict(num_global_tokens=0, window_size=None),
    'window 4': dict(window_size=4, num_global_tokens=3),
    'no gates': dict(spatial_attention=False, channel_attention=False),
    'spatial only': dict(channel_attention=False),
    'channel only': dict(spatial_attention=False),
    'plain merging': dict(residual_merging=False),
    'plain patches': dict(overlapping_patches=False),
}
FOUR_STAGES = dict(
    embed_dims=[8, 8, 16, 16], num_heads=[1, 1, 2, 2], num_blocks=[1, 1, 1, 1], ffn_ratios=[2, 2, 2, 2],
    num_global_tokens=2, patch_stride=4,
)  # fmt: skip


def pair(arch='test', **kwargs):
    """The two forms with the same scrambled weights."""
    fast = oracles.scramble(LightViT(arch, **kwargs))
    plain = oracles.PlainLightViT(arch, **kwargs)
    plain.load_state_dict(fast.state_dict())
    return fast, plain


def error(got, want):
    """Largest difference over the largest value, over all outputs."""
    return max(((g.double() - w.double()).abs().max() / w.double().abs().max()).item() for g, w in zip(got, want))


@pytest.mark.parametrize('size', SIZES, ids=lambda size: f'{size[0]}x{size[1]}')
@pytest.mark.parametrize('inference', [torch.no_grad, torch.inference_mode])
def test_inference_at_each_size(size, inference):
    fast, plain = pair()
    image = torch.randn(2, 3, *size)
    with inference():
        assert error(fast.eval()(image), plain.eval()(image)) < 1e-5


@pytest.mark.parametrize('size', [(113, 57), (112, 224), (1, 300), (300, 225)], ids=lambda size: f'{size[0]}x{size[1]}')
@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
def test_outputs_and_gradients(variant, size, training):
    """With drop path under one seed in training; every parameter gets the same gradient, and gets one."""
    fast, plain = pair(drop_path_rate=0.3, **VARIANTS[variant])
    image = torch.randn(3, 3, *size)
    single = [_draw(model.train(training), image) for model in (fast, plain)]
    image = image.double()  # the gradients of the stem are sums that cancel: float32 has few digits of them
    plain.double().load_state_dict(fast.double().state_dict())
    results = []
    for model in (fast, plain):
        outs = _draw(model, image)
        torch.manual_seed(6)
        sum((out * torch.randn_like(out)).mean() for out in outs).backward()
        results.append((outs, {name: p.grad for name, p in model.named_parameters()}))
    (outs, gradients), (plain_outs, plain_gradients) = results
    assert error(outs, plain_outs) < 1e-12
    # Batch statistics of few values amplify rounding, so that the plain form itself may be further off.
    assert error(single[0], outs) < max(1e-5, 2 * error(single[1], outs))
    assert gradients.keys() == plain_gradients.keys()
    largest = max(gradient.abs().max() for gradient in plain_gradients.values())
    for name, gradient in gradients.items():
        assert gradient is not None, name
        want = plain_gradients[name]
        # Some gradients are zero but for rounding, so the largest of all belongs to the scale.
        assert (gradient - want).abs().max() <= 1e-9 * max(want.abs().max(), 1e-3 * largest), name
    buffers = dict(plain.named_buffers())
    for name, buffer in fast.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], msg=name)


def _draw(model, image):
    torch.manual_seed(5)
    return model(image)


@pytest.mark.parametrize('size', [(112, 112), (113, 57)], ids=lambda size: f'{size[0]}x{size[1]}')
def test_float32_gradients(size):
    """Of the published initialisation, in the norm of each parameter."""
    fast = LightViT('tiny', drop_path_rate=0.1).train()
    plain = oracles.PlainLightViT('tiny', drop_path_rate=0.1).train()
    plain.load_state_dict(fast.state_dict())
    gradients, image = [], torch.randn(4, 3, *size)
    for model in (fast, plain):
        outs = _draw(model, image)
        torch.manual_seed(6)
        sum((out * torch.randn_like(out)).mean() for out in outs).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    largest = max(gradient.norm() for gradient in gradients[1].values())
    for name, want in gradients[1].items():
        assert (gradients[0][name] - want).norm() <= 1e-4 * max(want.norm(), 1e-3 * largest), name


def test_four_stages_of_stride_four():
    fast, plain = pair(FOUR_STAGES, out_indices=(0, 1, 2, 3))
    image = torch.randn(1, 3, 113, 200)
    with torch.no_grad():
        assert error(fast.eval()(image), plain.eval()(image)) < 1e-5


@pytest.mark.parametrize('arch', ['tiny', 'small', 'base'])
@pytest.mark.parametrize('out_type', ['featmap', 'raw'])
def test_published_variants(arch, out_type):
    fast, plain = pair(arch, out_type=out_type)
    image = torch.randn(1, 3, 64, 112)
    with torch.no_grad():
        assert error(fast.eval()(image), plain.eval()(image)) < 1e-5


@pytest.mark.parametrize('size', [(112, 112), (113, 57)], ids=lambda size: f'{size[0]}x{size[1]}')
@pytest.mark.parametrize('autocast', [False, True], ids=['cast', 'autocast'])
def test_bfloat16_is_no_worse_than_twice_the_plain_form(size, autocast):
    fast, plain = pair('tiny')
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        exact = plain.double().eval()(image.double())
        fast.eval(), plain.float()
        if not autocast:
            fast.bfloat16(), plain.bfloat16(), (image := image.bfloat16())
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            assert error(fast(image), exact) <= 2 * error(plain(image), exact)


def test_fused_kernels_are_used_where_they_should_be():
    """Otherwise the tests above compare the slow path with itself."""
    fast, image = LightViT('test').eval(), torch.randn(1, 3, 112, 112)
    with torch.no_grad(), torch.profiler.profile(acc_events=True) as profile:
        fast(image)
    names = {event.key for event in profile.key_averages()}
    assert {'mkldnn::_linear_pointwise', 'mkldnn::_convolution_pointwise'} <= names
    assert 'aten::native_batch_norm' not in names
    for training in (False, True):
        with torch.profiler.profile(acc_events=True) as profile:
            fast.train(training)(image)
        names = {event.key for event in profile.key_averages()}
        assert {'_MLP', '_Attention'} <= names
        assert ('_BatchNorm' in names) == training
        assert 'mkldnn::_convolution_pointwise' not in names


def test_non_contiguous_images_and_channels_last_give_the_same():
    fast, _ = pair()
    image = torch.randn(2, 100, 60, 3).permute(0, 3, 1, 2)
    with torch.no_grad():
        assert error(fast.eval()(image), fast(image.contiguous())) < 1e-6
