# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The layers of LightViT, each its own file. They need torch and nothing else."""

from mmlightvit.models.layers.attention import AggregatedAttention
from mmlightvit.models.layers.drop_path import DropPath
from mmlightvit.models.layers.ffn import FFN, BiDimensionalAttention
from mmlightvit.models.layers.patch_embed import PatchEmbed
from mmlightvit.models.layers.patch_merging import ResidualPatchMerging
from mmlightvit.models.layers.windows import TokenGrid, window_partition, window_reverse

__all__ = [
    'FFN',
    'AggregatedAttention',
    'BiDimensionalAttention',
    'DropPath',
    'PatchEmbed',
    'ResidualPatchMerging',
    'TokenGrid',
    'window_partition',
    'window_reverse',
]
