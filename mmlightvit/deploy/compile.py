# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Compiling the backbone in place, for training and testing.

mmengine's ``compile`` wraps the whole training step, with losses and target assignment that no graph holds, and
never the testing. The backbone is one graph without breaks, and what is around it stays as it is.
"""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from torch import nn

from mmlightvit.errors import UserError
from mmlightvit.models.backbones import LightViT
from mmlightvit.registry import HOOKS


def compile_backbones(model: nn.Module, **kwargs: Any) -> list[str]:
    """Compile each LightViT in a model, in place: the keys of the state dict stay as they are.

    Args:
        model: A backbone, or anything that holds one: a detector, a wrapped model.
        **kwargs: Those of :func:`torch.compile`, such as ``mode='max-autotune-no-cudagraphs'``.

    Returns:
        The names of the compiled modules in ``model``.

    Raises:
        UserError: There is no LightViT in the model.
    """
    names = []
    for name, module in model.named_modules():
        if isinstance(module, LightViT):
            module.compile(**kwargs)
            names.append(name)
    if not names:
        raise UserError(
            f'compile: expected a model with a LightViT in it, got a {type(model).__name__} without one. '
            f'Leave out --compile or the CompileBackboneHook.'
        )
    return names


@HOOKS.register_module()
class CompileBackboneHook(Hook):
    """Compile the backbone before training, validating or testing: ``custom_hooks = [dict(type=...)]``.

    Compiling happens on the first batch and takes from half a minute to minutes; two graphs then serve every image
    size. It takes a C++ compiler on CPUs, and Triton on GPUs.

    Args:
        mode: That of :func:`torch.compile`: ``'default'``, ``'reduce-overhead'``, ``'max-autotune'`` or
            ``'max-autotune-no-cudagraphs'``. CUDA graphs are recorded anew for each image size, so leave them to
            fixed sizes.
        backend: That of :func:`torch.compile`.
    """

    def __init__(self, mode: str = 'default', backend: str = 'inductor') -> None:
        self.mode = mode
        self.backend = backend

    def before_run(self, runner: Any) -> None:
        """Compile in place."""
        names = compile_backbones(runner.model, mode=self.mode, backend=self.backend)
        runner.logger.info(f'Compiled on first use: {", ".join(name or "the model" for name in names)}')
