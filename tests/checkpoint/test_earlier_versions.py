# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Checkpoints that earlier versions of this project wrote: parameters keep their names, their shapes and their order.

The order counts on resuming, where an optimizer's state is found by the position of its parameter.
"""

from __future__ import annotations

import torch

from mmlightvit.checkpoint.load import load_into
from mmlightvit.models.backbones import LightViT

ARCH = dict(embed_dims=[8, 16], num_heads=[1, 2], num_blocks=[1, 1], ffn_ratios=[2, 2], num_global_tokens=2)

#: As version 0.1.0 has them. C: channels of the stage.
STEM = """
global_token 1 2 8
patch_embed.stem.0.weight 4 3 3 3
patch_embed.stem.1.weight 4
patch_embed.stem.1.bias 4
patch_embed.stem.3.weight 4 1 3 3
patch_embed.stem.4.weight 4
patch_embed.stem.4.bias 4
patch_embed.stem.6.weight 4 1 3 3
patch_embed.stem.7.weight 4
patch_embed.stem.7.bias 4
patch_embed.stem.9.weight 4 1 3 3
patch_embed.stem.10.weight 4
patch_embed.stem.10.bias 4
patch_embed.proj.weight 8 4 3 3
patch_embed.proj.bias 8
patch_embed.norm.weight 8
patch_embed.norm.bias 8
"""
MERGING = """
stages.1.downsample.norm.weight 32
stages.1.downsample.norm.bias 32
stages.1.downsample.reduction.weight 16 32
stages.1.downsample.residual_proj.weight 16 8
stages.1.downsample.global_norm.weight 8
stages.1.downsample.global_norm.bias 8
stages.1.downsample.global_proj.weight 16 8
"""
BLOCK = """
norm1.weight C
norm1.bias C
attn.relative_position_bias_table 169 C//8
attn.qkv.weight 3*C C
attn.qkv.bias 3*C
attn.kv_global.weight 2*C C
attn.kv_global.bias 2*C
attn.proj.weight C C
attn.proj.bias C
norm2.weight C
norm2.bias C
ffn.fc1.weight 2*C C
ffn.fc1.bias 2*C
ffn.fc2.weight C 2*C
ffn.fc2.bias C
ffn.attn.norm.weight C
ffn.attn.norm.bias C
ffn.attn.global_reduce.weight C//4 C
ffn.attn.global_reduce.bias C//4
ffn.attn.channel_select.weight C C//4
ffn.attn.channel_select.bias C
ffn.attn.local_reduce.weight C//4 C
ffn.attn.local_reduce.bias C//4
ffn.attn.spatial_select.weight 1 C//2
ffn.attn.spatial_select.bias 1
"""
NORMS = """
norm0.weight 8
norm0.bias 8
norm1.weight 16
norm1.bias 16
"""
STATISTICS = [
    f'patch_embed.stem.{i}.{name}'
    for i in (1, 4, 7, 10)
    for name in ('running_mean', 'running_var', 'num_batches_tracked')
]


def written() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters, in the order in which they were written."""
    found = {}
    for prefix, lines, C in (
        ('', STEM, 0),
        ('stages.0.blocks.0.', BLOCK, 8),
        ('', MERGING, 0),
        ('stages.1.blocks.0.', BLOCK, 16),
        ('', NORMS, 0),
    ):
        for line in lines.split('\n')[1:-1]:
            name, *shape = line.split()
            found[prefix + name] = tuple(eval(size, {'C': C}) for size in shape)
    return found


def test_parameters_keep_their_names_shapes_and_order():
    model = LightViT(ARCH, out_indices=(0, 1))
    parameters = [(name, tuple(value.shape)) for name, value in model.named_parameters()]
    assert parameters == list(written().items())
    assert set(model.state_dict()) == {*written(), *STATISTICS}


def test_a_file_of_an_earlier_version_loads_whole():
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.rand(shape, generator=generator) for name, shape in written().items()}
    for name in STATISTICS:
        state[name] = torch.tensor(3) if name.endswith('tracked') else torch.rand(4, generator=generator)
    meta = dict(
        epoch=1,
        iter=5,
        seed=0,
        began=1750000000000,
        cfg="model = dict(backbone=dict(type='mmlightvit.LightViT', out_type='raw'))",
        shape_of_run=dict(world_size=1, batch_size=3, accumulative_counts=1, samples=14, batches=5),
    )
    model = LightViT(ARCH, out_indices=(0, 1))
    report = load_into(model, {'meta': meta, 'state_dict': state})
    assert report.loaded == len(state)
    assert not (report.fresh or report.left_out or report.resized)
    for name, value in model.state_dict().items():
        assert value.equal(state[name]), name


def test_the_former_word_for_tokens_is_understood():
    assert not [
        name for name in LightViT(ARCH, out_indices=(1,), out_type='raw').state_dict() if name.startswith('norm')
    ]
