# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Learning rates that fall from layer to layer: what mmpretrain's constructor of optimizers asks a backbone for."""

from __future__ import annotations

from typing import Any


def get_layer_depth(backbone: Any, param_name: str, prefix: str = '') -> tuple[int, int]:
    """Where a parameter of a model stands, as a method of its LightViT.

    Args:
        backbone: The backbone.
        param_name: The parameter's name in the model.
        prefix: What stands in front of the backbone's own names.

    Returns:
        0 for the stem and the global tokens, the number of its block, counted from 1, for a block and for the patch
        merging in front of it, the last one for all behind the blocks; and how many layers there are.
    """
    blocks = [len(stage.blocks) for stage in backbone.stages]
    layers = sum(blocks) + 2
    part, *rest = param_name.removeprefix(prefix).split('.')
    if not param_name.startswith(prefix) or part not in ('patch_embed', 'global_token', 'stages'):
        return layers - 1, layers
    if part != 'stages':
        return 0, layers
    stage, kind, number = int(rest[0]), rest[1], rest[2]
    return sum(blocks[:stage]) + 1 + (int(number) if kind == 'blocks' else 0), layers
