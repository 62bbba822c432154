# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The architectures and switches that tests run over."""

from __future__ import annotations

#: Minute: for tests that need a LightViT of any width.
TEST_ARCH = dict(
    embed_dims=[8, 16, 32], num_heads=[1, 2, 4], num_blocks=[1, 2, 1], ffn_ratios=[2, 2, 2], num_global_tokens=2
)

#: A pyramid of strides 4 to 32, for ``patch_stride=4``.
FOUR_STAGES = dict(
    embed_dims=[8, 8, 16, 16], num_heads=[1, 1, 2, 2], num_blocks=[1, 1, 1, 1], ffn_ratios=[2, 2, 2, 2],
    num_global_tokens=2,
)  # fmt: skip

OUT_TYPES = ('featmap', 'tokens')

#: The backbone's switches: paper Table 5, Table 6 and section 4.1, one override each.
SWITCHES = {
    'vanilla': dict(window_size=None, num_global_tokens=0, spatial_attention=False, channel_attention=False),
    'local': dict(num_global_tokens=0, spatial_attention=False, channel_attention=False),
    'global': dict(spatial_attention=False, channel_attention=False),
    'spatial': dict(channel_attention=False),
    'channel': dict(spatial_attention=False),
    'no tokens': dict(num_global_tokens=0),
    'more tokens': dict(num_global_tokens=16),
    'no residual': dict(residual_merging=False),
    'no overlap': dict(overlapping_patches=False),
    'smaller window': dict(window_size=5),
}
