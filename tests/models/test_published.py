# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The table of names, in both directions."""

from __future__ import annotations

import golden
import pytest

from mmlightvit.published import INDEX, to_ours, to_published

#: Written by hand from the two models.
PAIRS = {
    'backbone': {
        'global_token': 'global_token',
        'patch_embed.stem.10.running_var': 'patch_embed.stem.10.running_var',
        'norm2.bias': 'norm2.bias',
        'stages.0.0.norm2.weight': 'stages.0.blocks.0.norm2.weight',
        'stages.0.1.mlp.attn.norm.weight': 'stages.0.blocks.1.ffn.attn.norm.weight',
        'stages.1.0.norm.weight': 'stages.1.downsample.norm.weight',
        'stages.1.0.reduction.weight': 'stages.1.downsample.reduction.weight',
        'stages.1.0.norm2.weight': 'stages.1.downsample.global_norm.weight',
        'stages.2.0.proj.weight': 'stages.2.downsample.global_proj.weight',
        'stages.2.0.res_proj.weight': 'stages.2.downsample.residual_proj.weight',
        'stages.2.1.attn.proj.bias': 'stages.2.blocks.0.attn.proj.bias',
        'stages.1.10.mlp.fc1.weight': 'stages.1.blocks.9.ffn.fc1.weight',
    },
    'classifier': {
        'norm.weight': 'head.norm.weight',
        'neck.0.bias': 'head.proj.bias',
        'neck.1.bias': 'head.proj_norm.bias',
        'head.weight': 'head.fc.weight',
        'global_token': 'backbone.global_token',
        'stages.0.0.mlp.fc1.weight': 'backbone.stages.0.blocks.0.ffn.fc1.weight',
        'stages.1.0.proj.weight': 'backbone.stages.1.downsample.global_proj.weight',
    },
    'detector': {
        'backbone.norm0.weight': 'backbone.norm0.weight',
        'backbone.stages.1.6.norm2.bias': 'backbone.stages.1.blocks.5.norm2.bias',
        'neck.extra_trans_convs.0.conv.weight': 'neck.transposed_convs.0.weight',
        'neck.extra_fpn_convs.0.conv.weight': 'neck.transposed_fpn_convs.0.conv.weight',
        'neck.lateral_convs.2.conv.bias': 'neck.lateral_convs.2.conv.bias',
        'roi_head.bbox_head.fc_cls.weight': 'roi_head.bbox_head.fc_cls.weight',
    },
}


@pytest.mark.parametrize(
    ('kind', 'published', 'ours'), [(kind, *pair) for kind, pairs in PAIRS.items() for pair in pairs.items()]
)
def test_both_directions(kind, published, ours):
    assert to_ours(published, kind) == ours
    assert to_published(ours, kind) == published


@pytest.mark.parametrize(('name', 'kind'), [('cls', 'classifier'), ('backbone', 'backbone'), ('detector', 'detector')])
def test_every_published_key_comes_back(name, kind):
    keys = [key for key in golden.state_dict(f'{name}_tiny') if not key.endswith(INDEX)]
    ours = [to_ours(key, kind) for key in keys]
    assert len(set(ours)) == len(keys)
    assert [to_published(key, kind) for key in ours] == keys
