# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Backward passes of our own: against finite differences, against torch's in float64, and where they must not run."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from mmlightvit.models.backbones import LightViT
from mmlightvit.models.layers import attention, patch_embed
from mmlightvit.models.layers.attention import AggregatedAttention
from mmlightvit.models.layers.cpu_training import _Attention, _BatchNorm, attend, batch_norm, can_batch_norm, mlp
from mmlightvit.models.layers.windows import TokenGrid

BATCH, HEADS, WIDTH, WINDOW, TOKENS = 2, 2, 6, 4, 3


def names_in_graph(out: torch.Tensor) -> set[str]:
    """The operators that ``out`` was computed with, by their backward passes."""
    seen, todo = set(), [out.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
    return {node.name() for node in seen}


def gradients(model: nn.Module, x: torch.Tensor, out: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a fixed mixture of ``out``, towards ``x`` and all parameters."""
    mixture = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(out)
    named = {'x': x, **dict(model.named_parameters())}
    return dict(zip(named, torch.autograd.grad((out * mixture).sum(), list(named.values()))))


def close(got: dict, want: dict, tolerance: float) -> None:
    largest = max(value.norm() for value in want.values())
    for name, value in want.items():
        # The gradient of the keys' bias is zero but for rounding.
        assert (got[name] - value).norm() <= tolerance * max(value.norm(), 1e-2 * largest), name


# -- attention --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('padded', [False, True])
def test_attention_against_finite_differences(padded):
    torch.manual_seed(0)
    qkv = torch.randn(BATCH, 2 * WINDOW + TOKENS, 3 * HEADS * WIDTH, dtype=torch.double, requires_grad=True)
    bias = torch.randn(1, HEADS, WINDOW, WINDOW, dtype=torch.double, requires_grad=True)
    weight = torch.randn(2 * HEADS * WIDTH, HEADS * WIDTH, dtype=torch.double, requires_grad=True)
    weight_bias = torch.randn(2 * HEADS * WIDTH, dtype=torch.double, requires_grad=True)
    real = torch.tensor([True, True, False, True, False, True, False, False])[None, None, None] if padded else None
    assert torch.autograd.gradcheck(_Attention.apply, (qkv, TOKENS, bias, weight, weight_bias, real), fast_mode=True)


@pytest.mark.parametrize('size', [(14, 21), (9, 16), (1, 3)])
@pytest.mark.parametrize('keep_global', [True, False])
def test_attention_layer_against_torch_in_float64(size, keep_global):
    torch.manual_seed(0)
    layer = AggregatedAttention(24, 3, 7)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    grid = TokenGrid.of(torch.zeros(1, *size, 24), 7)
    x = torch.randn(3, size[0] * size[1] + 5, 24, requires_grad=True)
    out = layer(x, grid, keep_global)
    assert '_AttentionBackward' in names_in_graph(out)
    exact, x64 = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
    want = exact(x64, grid, keep_global)
    assert '_AttentionBackward' not in names_in_graph(want)
    torch.testing.assert_close(out.double(), want, rtol=1e-5, atol=1e-5)
    close(gradients(layer, x, out), gradients(exact, x64, want), 1e-5)


# -- feed-forward network ---------------------------------------------------------------------------------------------
def test_mlp_against_torch_in_float64():
    torch.manual_seed(0)
    layers, x = nn.Sequential(nn.Linear(24, 96), nn.Linear(96, 16)), torch.randn(3, 50, 24, requires_grad=True)
    out = mlp(*layers, x)
    assert '_MLPBackward' in names_in_graph(out)
    exact, x64 = copy.deepcopy(layers).double(), x.detach().double().requires_grad_()
    want = exact[1](nn.functional.gelu(exact[0](x64)))
    torch.testing.assert_close(out.double(), want, rtol=1e-5, atol=1e-5)
    close(gradients(layers, x, out), gradients(exact, x64, want), 1e-5)


@pytest.mark.parametrize('frozen', ['0.weight', '0.bias', '1.weight', '1.bias', '0', '1', 'x'])
def test_frozen_parts_get_no_gradient_and_the_others_keep_theirs(frozen):
    torch.manual_seed(0)
    layers, x = nn.Sequential(nn.Linear(24, 96), nn.Linear(96, 16)), torch.randn(3, 50, 24, requires_grad=frozen != 'x')
    whole = copy.deepcopy(layers)
    mlp(*whole, x).square().sum().backward()
    wanted = None if x.grad is None else x.grad.clone()
    x.grad = None
    for name, parameter in layers.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    mlp(*layers, x).square().sum().backward()
    assert (x.grad is None) == (frozen == 'x')
    if wanted is not None:
        torch.testing.assert_close(x.grad, wanted)
    for (name, parameter), other in zip(layers.named_parameters(), whole.parameters()):
        if name.startswith(frozen):
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, other.grad)


# -- BatchNorm --------------------------------------------------------------------------------------------------------
def images(batch: int = 4, channels: int = 3, height: int = 5, width: int = 7, **kwargs) -> torch.Tensor:
    torch.manual_seed(0)
    x = torch.randn(batch, channels, height, width, **kwargs) * torch.rand(batch, 1, 1, width, **kwargs) + 0.7
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def test_batch_norm_against_finite_differences():
    weight, bias = torch.randn(2, 3, dtype=torch.double, requires_grad=True).unbind()
    statistics = torch.zeros(3, dtype=torch.double), torch.ones(3, dtype=torch.double)
    x = images(dtype=torch.double)
    assert torch.autograd.gradcheck(lambda *given: _BatchNorm.apply(*given, *statistics, 0.1, 1e-5), (x, weight, bias))


def test_batch_norm_against_torch_in_float64():
    """At 400 thousand values in a channel, where torch's own kernel for this layout is off by 1e-5."""
    norm, x = nn.BatchNorm2d(4, momentum=0.3), images(32, 4, 112, 112)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    exact, x64 = copy.deepcopy(norm).double(), x.detach().double().requires_grad_()
    assert can_batch_norm(norm, x)
    out, want = batch_norm(norm, x), exact(x64)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert (out - want).norm() < 5e-7 * want.norm()
    for name, buffer in exact.named_buffers():
        torch.testing.assert_close(norm.get_buffer(name).double(), buffer.double(), rtol=2e-7, atol=0)
    close(gradients(norm, x, out), gradients(exact, x64, want), 2e-6)


def test_one_value_per_channel_is_refused_as_torch_does():
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        batch_norm(nn.BatchNorm2d(3), torch.randn(1, 3, 1, 1))


@pytest.mark.parametrize(
    'change',
    [
        lambda norm: norm.eval(),
        lambda norm: norm.register_forward_hook(lambda *_: None),
        lambda norm: norm.double(),
    ],
)
def test_norms_it_does_not_stand_in_for(change):
    norm = nn.BatchNorm2d(3)
    assert can_batch_norm(norm, images())
    change(norm)
    assert not can_batch_norm(norm, images())
    for other in (nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3, affine=False), nn.SyncBatchNorm(3)):
        assert not can_batch_norm(other, images())


# -- where they must not run ------------------------------------------------------------------------------------------
OURS = {'_AttentionBackward', '_MLPBackward', '_BatchNormBackward'}


def test_a_training_step_uses_all_of_them_and_autocast_none():
    model, image = LightViT('test').train(), torch.randn(2, 3, 64, 64)
    assert names_in_graph(model(image)[-1]) >= OURS
    with torch.autocast('cpu', torch.bfloat16):
        assert not names_in_graph(model(image)[-1]) & OURS
    assert not names_in_graph(model.double()(image.double())[-1]) & OURS


@pytest.mark.parametrize(
    'layer', ['stages.0.blocks.0.ffn.fc1', 'stages.0.blocks.0.attn.kv_global', 'patch_embed.stem.1']
)
def test_hooks_of_the_layers_inside_are_run(layer):
    model, calls = LightViT('test').train(), []
    model.get_submodule(layer).register_forward_hook(lambda *_: calls.append(1))
    model(torch.randn(2, 3, 64, 64))
    assert calls == [1]


def test_function_transforms_take_torchs_own_operators():
    model, image = LightViT('test').eval(), torch.randn(1, 3, 56, 56)
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    mixture = torch.randn(model(image)[-1].shape)
    found = torch.func.grad(lambda p: (torch.func.functional_call(model, p, (image,))[-1] * mixture).sum())(parameters)
    (model(image)[-1] * mixture).sum().backward()
    used = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    close({name: found[name] for name in used}, used, 1e-4)


def test_forward_mode_takes_torchs_own_operators():
    layers, x, direction = nn.Sequential(nn.Linear(6, 24), nn.Linear(24, 6)), torch.randn(4, 6), torch.randn(4, 6)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(mlp(*layers, forward_ad.make_dual(x, direction))).tangent
    _, want = torch.func.jvp(lambda x: layers[1](nn.functional.gelu(layers[0](x))), (x,), (direction,))
    torch.testing.assert_close(found, want)


def test_a_second_derivative_is_refused_in_plain_words():
    model, image = LightViT('test').eval(), torch.randn(1, 3, 56, 56, requires_grad=True)
    (first,) = torch.autograd.grad(model(image)[-1].square().sum(), image, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        first.sum().backward()


def test_checkpointing_recomputes_the_same():
    """The recomputed forward pass takes the same way as the first."""
    plain, image = LightViT('test', drop_path_rate=0.3).train(), torch.randn(2, 3, 57, 64)
    saving = LightViT('test', drop_path_rate=0.3, with_cp=True).train()
    saving.load_state_dict(plain.state_dict())
    for model in (plain, saving):
        torch.manual_seed(1)
        sum(out.square().mean() for out in model(image)).backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters()):
        assert torch.equal(a.grad, b.grad), name


def test_without_it_the_step_is_the_same(monkeypatch):
    """The whole backbone, with the layers of this module and without, at a padded size."""
    torch.manual_seed(0)
    model, image = LightViT('test').train(), torch.randn(3, 3, 100, 130, requires_grad=True)
    other = copy.deepcopy(model)
    mixture = [torch.randn_like(out) for out in copy.deepcopy(model)(image)]
    results = []
    for each in (model, other):
        if each is other:
            monkeypatch.setattr(attention, 'can_attend', lambda *_: False)
            monkeypatch.setattr(patch_embed, 'can_batch_norm', lambda *_: False)
        loss = sum((out * weight).sum() for out, weight in zip(each(image), mixture))
        (image_gradient,) = torch.autograd.grad(loss, image, retain_graph=True)
        loss.backward()
        results.append({'x': image_gradient, **{name: p.grad for name, p in each.named_parameters()}})
    close(*results, 1e-4)


def test_attend_leaves_its_arguments_alone():
    qkv, bias = torch.randn(2, 19, 24, requires_grad=True), torch.randn(1, 2, 4, 4, requires_grad=True)
    kept = qkv.detach().clone(), bias.detach().clone()
    attend(qkv, 3, bias, nn.Linear(8, 16)).sum().backward()
    assert torch.equal(qkv, kept[0])
    assert torch.equal(bias, kept[1])
