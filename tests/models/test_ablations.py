# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Each ablation switch changes the computation, takes its parameters along, and all off leave a plain transformer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from variants import FOUR_STAGES, OUT_TYPES, SWITCHES, TEST_ARCH

from mmlightvit.models.backbones import LightViT
from mmlightvit.models.backbones.lightvit import LightViTBlock
from mmlightvit.models.layers.attention import AggregatedAttention
from mmlightvit.models.layers.ffn import FFN
from mmlightvit.models.layers.windows import TokenGrid


def _fill(model: nn.Module) -> nn.Module:
    """The same values for the same names and shapes, so that models differ by their switches alone."""
    for name, param in model.named_parameters():
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        with torch.no_grad():
            param.copy_(torch.randn(param.shape, generator=generator) * 0.5)
    return model


def _forward(model: LightViT, image: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return _fill(model).eval()(image)[-1]


@pytest.fixture(scope='module')
def image() -> torch.Tensor:
    return torch.rand(1, 3, 84, 115, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('name', SWITCHES)
def test_a_switch_changes_the_output(name, image):
    plain, switched = _forward(LightViT(TEST_ARCH), image), _forward(LightViT(TEST_ARCH, **SWITCHES[name]), image)
    assert switched.shape == plain.shape and not torch.allclose(switched, plain, atol=1e-4)


@pytest.mark.parametrize('name', SWITCHES)
@pytest.mark.parametrize('out_type', OUT_TYPES)
def test_no_parameter_is_dead(name, out_type, image):
    model = _fill(LightViT(TEST_ARCH, out_type=out_type, **SWITCHES[name])).train()
    generator = torch.Generator().manual_seed(1)
    outs = model(image.repeat(2, 1, 1, 1))
    sum((out * torch.randn(out.shape, generator=generator)).mean() for out in outs).backward()
    dead = [name for name, param in model.named_parameters() if param.grad is None or not param.grad.abs().sum() > 0]
    # The last block drops its global tokens only where feature maps are put out; raw tokens all come out.
    assert not dead


@pytest.mark.parametrize('name, gone, kept', [
    ('vanilla', ('global', 'relative_position', 'ffn.attn'), ('qkv', 'ffn.fc1')),
    ('local', ('global', 'ffn.attn'), ('relative_position_bias_table',)),
    ('global', ('ffn.attn',), ('kv_global', 'global_token')),
    ('spatial', ('channel_select',), ('spatial_select', 'local_reduce', 'global_reduce')),
    ('channel', ('spatial_select', 'local_reduce'), ('channel_select', 'global_reduce')),
    ('no residual', ('residual_proj',), ('reduction',)),
    ('no overlap', ('stem',), ('patch_embed.proj',)),
])  # fmt: skip
def test_a_switch_takes_its_parameters_along(name, gone, kept):
    names = list(LightViT(TEST_ARCH, **SWITCHES[name]).state_dict())
    for part in gone:
        left = [n for n in names if part in n and not (part == 'global' and 'ffn.attn.global_reduce' in n)]
        assert not left, part
    assert all(any(part in n for n in names) for part in kept)


@pytest.mark.parametrize('ratio', [2, 4])
def test_all_off_is_a_plain_transformer_block(ratio):
    """torch's own pre-norm encoder layer with the same weights."""
    torch.manual_seed(0)
    attn = AggregatedAttention(16, 4, window=None, has_global_tokens=False)
    block = LightViTBlock(16, attn, FFN(16, ratio, spatial_attention=False, channel_attention=False)).eval()
    for param in block.parameters():
        nn.init.normal_(param, std=0.3)
    layer = nn.TransformerEncoderLayer(
        16, 4, 16 * ratio, dropout=0.0, activation='gelu', layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    names = {
        'norm1.': 'norm1.', 'norm2.': 'norm2.', 'attn.qkv.weight': 'self_attn.in_proj_weight',
        'attn.qkv.bias': 'self_attn.in_proj_bias', 'attn.proj.': 'self_attn.out_proj.', 'ffn.fc1.': 'linear1.',
        'ffn.fc2.': 'linear2.',
    }  # fmt: skip
    state = {}
    for key, value in block.state_dict().items():
        ours, theirs = next(pair for pair in names.items() if key.startswith(pair[0]))
        state[theirs + key.removeprefix(ours)] = value
    layer.load_state_dict(state)  # strict: the block has exactly the parameters of a plain one
    x = torch.randn(2, 12, 16)
    expected = layer(x.requires_grad_())
    got = block(x, TokenGrid(3, 4, None))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('overlapping', [True, False])
@pytest.mark.parametrize('size', [(64, 64), (70, 45), (1, 1)])
def test_four_stages_start_at_stride_4(size, overlapping):
    backbone = LightViT(FOUR_STAGES, patch_stride=4, out_indices=(0, 1, 2, 3), overlapping_patches=overlapping).eval()
    maps = backbone(torch.rand(1, 3, *size))
    height, width = size
    for i, channels in enumerate(FOUR_STAGES['embed_dims']):
        stride = 4 * 2**i
        assert maps[i].shape == (1, channels, -(-height // stride), -(-width // stride))


def test_vanilla_attention_has_no_place_for_global_tokens():
    with pytest.raises(ValueError, match='expected 0 with window_size=None'):
        LightViT(TEST_ARCH, window_size=None)
