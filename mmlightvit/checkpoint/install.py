# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""mmengine's loading, replaced: nothing in a checkpoint is executed, and models with our parts load strictly.

Importing this module installs both; our tools do, and our configs by ``custom_imports``. mmengine loads what happens to
fit and warns about the rest. It offers no hook for that, so three of its functions are replaced, here and nowhere else;
the reading is :mod:`mmlightvit.durable.safe_loading.install`'s.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import mmengine.runner.checkpoint as _checkpoint
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmlightvit.checkpoint.load import complete_state, has_our_parts, load_into, unwrap
from mmlightvit.durable.patching import patch
from mmlightvit.durable.safe_loading import install as safe_loading
from mmlightvit.durable.safe_loading.read import CheckpointUnavailable


def install() -> None:
    """Make mmengine load checkpoints by the rules of this project. Calling it again changes nothing.

    Models with parts of this project load strictly and with a report, published files included, through ``init_cfg``,
    ``load_from``, ``load_checkpoint``, inferencers and the runner. Other models load as mmengine loads them.

    Raises:
        UnknownVersion: mmengine is not of a version that this was written for.
    """
    safe_loading.install()
    # mmengine's other functions find this one in their module when they are called, whoever imported them before.
    checkpoint = 'mmengine.runner.checkpoint'
    patch(checkpoint, 'load_state_dict', _strict_load, '(module, state_dict, strict=False, logger=None)')
    patch('mmengine.model.weight_init:PretrainedInit', '__call__', _reported_start, '(self, module)')
    revised = "(self, filename, map_location='cpu', strict=False, revise_keys=[('^module.', '')])"
    patch('mmengine.runner:Runner', 'load_checkpoint', _reported_load, revised)


def _strict_load(stock: Callable) -> Callable:
    """For inference and tests, so every parameter has to come from the file."""

    @functools.wraps(stock)
    def load_state_dict(module: nn.Module, state_dict: dict, *args: Any, **kwargs: Any) -> None:
        if has_our_parts(module):
            load_into(module, {'state_dict': state_dict})
        else:
            stock(module, state_dict, *args, **kwargs)

    return load_state_dict


def _reported_start(stock: Callable) -> Callable:
    """For ``init_cfg``: training starts from the file."""

    @functools.wraps(stock)
    def load(self: PretrainedInit, module: nn.Module) -> None:
        if not has_our_parts(module):
            stock(self, module)
            return
        try:
            load_into(module, self.checkpoint, starting=True, prefix=self.prefix, map_location=self.map_location)
        except CheckpointUnavailable as error:
            raise CheckpointUnavailable(
                f'{error} For init_cfg of the backbone that is --cfg-options model.backbone.init_cfg.checkpoint=PATH; '
                'to train from scratch: --cfg-options model.backbone.init_cfg=None model.backbone.norm_eval=False'
            ) from None
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())

    return load


def _reported_load(stock: Callable) -> Callable:
    """For the runner.

    Training that starts from the file (``load_from`` without ``resume``) has the declared liberties, and
    ``load_fresh`` in the config names further parameters that stay as initialised; with ``load_other_classes`` those of
    another number of classes do. Hooks see a complete state dict.
    """

    @functools.wraps(stock)
    def load_checkpoint(
        self: Runner, filename: str, map_location: Any = 'cpu', strict: bool = False, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        model = unwrap(self.model)
        if not has_our_parts(model):
            return stock(self, filename, map_location, strict, *args, **kwargs)
        checkpoint = _checkpoint._load_checkpoint(filename, map_location=map_location)
        # A training that has not begun; with one behind it, a runner that loads is about to test.
        training = isinstance(self._train_loop, BaseLoop) and self.iter == 0
        starting = training and not self._resume and not strict
        fresh = self.cfg.get('load_fresh') or () if starting else ()
        checkpoint['state_dict'], report = complete_state(
            model,
            checkpoint,
            str(filename),
            starting=starting,
            fresh=fresh,
            other_classes=starting and bool(self.cfg.get('load_other_classes')),
        )
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        # A hook may have exchanged the weights, as averaging does; they have to fit as well.
        model.load_state_dict(checkpoint['state_dict'])
        report.log()
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint

    return load_checkpoint


install()
