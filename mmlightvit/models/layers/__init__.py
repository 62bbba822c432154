# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The layers of LightViT, each its own file. They need torch and nothing else."""

from .attention import AggregatedAttention, VanillaAttention
from .drop_path import DropPath
from .ffn import FFN, BiDimensionalAttention
from .patch_embed import PatchEmbed
from .patch_merging import ResidualPatchMerging
from .tabled_grid import TabledGrid, tabled_grids
from .windows import TokenGrid, window_partition, window_reverse

__all__ = [
    'FFN',
    'AggregatedAttention',
    'BiDimensionalAttention',
    'DropPath',
    'PatchEmbed',
    'ResidualPatchMerging',
    'TabledGrid',
    'TokenGrid',
    'VanillaAttention',
    'tabled_grids',
    'window_partition',
    'window_reverse',
]
