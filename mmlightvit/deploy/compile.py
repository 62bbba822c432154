# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""torch.compile for a model that knows nothing of it: block by block, in place, for training and testing.

Blocks of one width share their graphs, and a graph serves every image size of its kind (whole windows, or padded
ones), so that a few graphs do for a run. What is around the blocks stays as it is: losses and target assignment fit
no graph.
"""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from torch import nn

from mmlightvit.errors import UserError
from mmlightvit.models.backbones.lightvit import LightViTBlock
from mmlightvit.registry import HOOKS

#: Graphs of a run: widths x kinds of grid x training or not x whether global tokens stay x sizes of one, which torch
#: takes for constants. torch's own limit, 8, is made for one function.
RECOMPILE_LIMIT = 64


def compile_blocks(model: nn.Module, **kwargs: Any) -> int:
    """Compile each block of each LightViT in a model, in place: keys, hooks and parameters stay as they are.

    Args:
        model: A backbone, or anything that holds one: a detector, a wrapped model.
        **kwargs: Those of :func:`torch.compile`, such as ``mode='max-autotune-no-cudagraphs'``.

    Returns:
        The number of blocks.

    Raises:
        UserError: There is no LightViT in the model.
    """
    blocks = [module for module in model.modules() if isinstance(module, LightViTBlock)]
    if not blocks:
        raise UserError(
            f'compile: expected a model with a LightViT in it, got a {type(model).__name__} without one. '
            f'Leave out --compile or the CompileBackboneHook.'
        )
    for block in blocks:
        block.compile(dynamic=True, fullgraph=True, **kwargs)
    return len(blocks)


@HOOKS.register_module()
class CompileBackboneHook(Hook):
    """Compile the backbone's blocks before training, validating or testing: ``custom_hooks = [dict(type=...)]``.

    Compiling happens on the first batches. It takes a C++ compiler on CPUs, and Triton on GPUs.

    Args:
        mode: That of :func:`torch.compile`: ``'default'``, ``'reduce-overhead'``, ``'max-autotune'`` or
            ``'max-autotune-no-cudagraphs'``. CUDA graphs are recorded anew for each image size, so leave them to
            fixed sizes.
        backend: That of :func:`torch.compile`.
    """

    def __init__(self, mode: str = 'default', backend: str = 'inductor') -> None:
        self.mode = mode
        self.backend = backend
        self._limit: int | None = None

    def before_run(self, runner: Any) -> None:
        """Compile in place, and let torch keep as many graphs as a run needs."""
        from torch._dynamo import config  # slow to import, and only needed here

        blocks = compile_blocks(runner.model, mode=self.mode, backend=self.backend)
        self._limit = config.recompile_limit
        config.recompile_limit = max(config.recompile_limit, RECOMPILE_LIMIT)
        runner.logger.info(f'{blocks} blocks are compiled on first use.')

    def after_run(self, runner: Any) -> None:
        """Give torch its own limit back."""
        from torch._dynamo import config

        if self._limit is not None:
            config.recompile_limit, self._limit = self._limit, None
