# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The pyramid against a form written out by hand for Figure 5b, and its general settings."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmlightvit.models.necks import LightViTFPN

CHANNELS = [8, 16, 32]


def inputs(height: int = 12, width: int = 10, batch: int = 2, channels: list[int] | None = None) -> list[torch.Tensor]:
    torch.manual_seed(0)
    maps = []
    for c in channels or CHANNELS:
        maps.append(torch.randn(batch, c, height, width))
        height, width = (height + 1) // 2, (width + 1) // 2
    return maps


def conv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A same-padded convolution as a sum over kernel offsets."""
    k = weight.shape[-1]
    padded = F.pad(x, [k // 2] * 4)
    h, w = x.shape[-2:]
    out = bias.view(1, -1, 1, 1).expand(x.shape[0], -1, h, w).clone()
    for dy in range(k):
        for dx in range(k):
            out += torch.einsum('oc,bchw->bohw', weight[:, :, dy, dx], padded[:, :, dy : dy + h, dx : dx + w])
    return out


def upsample_to(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Nearest upsampling by index arithmetic."""
    rows = [y * x.shape[-2] // height for y in range(height)]
    cols = [z * x.shape[-1] // width for z in range(width)]
    return x[:, :, rows][:, :, :, cols]


@pytest.mark.parametrize('size', [(12, 10), (13, 7), (1, 1)])
def test_five_levels_of_figure_5b(size):
    neck = LightViTFPN(CHANNELS, out_channels=6, num_outs=5)
    neck.init_weights()
    maps = inputs(*size)
    weights = {name: p.detach() for name, p in neck.named_parameters()}

    def by_name(name: str, x: torch.Tensor) -> torch.Tensor:
        return conv(x, weights[f'{name}.conv.weight'], weights[f'{name}.conv.bias'])

    m2 = by_name('lateral_convs.2', maps[2])
    m1 = by_name('lateral_convs.1', maps[1]) + upsample_to(m2, *maps[1].shape[-2:])
    m0 = by_name('lateral_convs.0', maps[0]) + upsample_to(m1, *maps[0].shape[-2:])
    B, _, h, w = m0.shape
    w_up, b_up = weights['transposed_convs.0.weight'], weights['transposed_convs.0.bias']
    finer = torch.empty(B, 6, 2 * h, 2 * w)
    for dy in range(2):
        for dx in range(2):
            finer[:, :, dy::2, dx::2] = torch.einsum('io,bihw->bohw', w_up[:, :, dy, dx], m0) + b_up.view(1, -1, 1, 1)
    expected = [
        by_name('transposed_fpn_convs.0', finer),
        by_name('fpn_convs.0', m0),
        by_name('fpn_convs.1', m1),
        by_name('fpn_convs.2', m2),
    ]
    expected.append(expected[-1][:, :, ::2, ::2])
    outs = neck(maps)
    assert len(outs) == 5
    for out, want in zip(outs, expected):
        torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-5)


def test_initialisation_is_the_published_one():
    torch.manual_seed(0)
    neck = LightViTFPN([64, 128, 256], out_channels=256)
    neck.init_weights()
    lateral = neck.lateral_convs[2].conv.weight
    bound = (6 / (256 + 256)) ** 0.5
    assert 0.98 * bound < lateral.abs().max() <= bound  # Xavier-uniform
    output = neck.fpn_convs[0].conv.weight
    bound = (6 / (9 * 512)) ** 0.5
    assert 0.98 * bound < output.abs().max() <= bound
    transposed = neck.transposed_convs[0].weight  # Kaiming-normal, fan out 256 * 4
    assert transposed.std().item() == pytest.approx((2 / (256 * 4)) ** 0.5, rel=0.02)
    assert transposed.abs().max() > 3 * transposed.std()  # normal, not uniform
    assert all(not p.any() for name, p in neck.named_parameters() if name.endswith('bias'))


@pytest.mark.parametrize('num_ins', [1, 2, 3])
@pytest.mark.parametrize('num_transposed', [0, 1, 2])
@pytest.mark.parametrize('num_extra', [0, 2])
@pytest.mark.parametrize('extra_convs_on', [None, 'input', 'lateral', 'output'])
def test_levels_halve_and_every_parameter_learns(num_ins, num_transposed, num_extra, extra_convs_on):
    num_outs = num_transposed + num_ins + num_extra
    neck = LightViTFPN(CHANNELS[:num_ins], 4, num_outs, num_transposed, extra_convs_on, relu_before_extra_convs=True)
    neck.init_weights()
    outs = neck(inputs(16, 8, channels=CHANNELS[:num_ins]))
    assert len(outs) == num_outs
    height, width = 16 * 2**num_transposed, 8 * 2**num_transposed
    for out in outs:
        assert tuple(out.shape) == (2, 4, height, width)
        height, width = (height + 1) // 2, (width + 1) // 2
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in neck.parameters())


@pytest.mark.parametrize(
    ('extra_convs_on', 'source'), [('input', 'input'), ('lateral', 'lateral'), ('output', 'output')]
)
def test_coarser_levels_come_from_where_they_should(extra_convs_on, source):
    neck = LightViTFPN(CHANNELS, 4, 5, 0, extra_convs_on, relu_before_extra_convs=True)
    neck.init_weights()
    maps = inputs()
    outs = neck(maps)
    lateral = neck.lateral_convs[2](maps[2])
    start = {'input': maps[2], 'lateral': lateral, 'output': neck.fpn_convs[2](lateral)}[source]
    first = neck.extra_convs[0](start)
    torch.testing.assert_close(outs[3], first)
    torch.testing.assert_close(outs[4], neck.extra_convs[1](F.relu(first)))
    neck.relu_before_extra_convs = False
    assert not torch.equal(neck(maps)[4], outs[4])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(in_channels=[]), 'in_channels'),
        (dict(in_channels=CHANNELS, num_outs=3), 'num_outs'),
        (dict(in_channels=CHANNELS, num_transposed=-1), 'num_transposed'),
        (dict(in_channels=CHANNELS, extra_convs_on='on_input'), 'extra_convs_on'),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        LightViTFPN(**arguments)


@pytest.mark.parametrize('channels', [[8, 16], [12, 24, 48]], ids=['too few', 'of another variant'])
def test_maps_that_do_not_fit_are_named(channels):
    with pytest.raises(ValueError) as error:
        LightViTFPN(CHANNELS)(inputs(channels=channels))
    assert str(error.value) == f'in_channels: expected {channels}, as the maps have, got {CHANNELS}'
