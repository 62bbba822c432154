# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""mmengine's loaders, replaced: nothing a checkpoint holds is executed, and our models load strictly.

mmengine 0.10 falls back to executing the pickle where restricted unpickling fails, runs the configuration text inside
a checkpoint on resume and inference, and loads what happens to fit with a warning. It offers one hook for this, the
loader of each address scheme; the rest are functions of its modules, which are replaced here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mmengine.infer.infer as _infer
import mmengine.runner.checkpoint as _checkpoint
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmlightvit.checkpoint.load import has_our_parts, load_into, plan, unwrap
from mmlightvit.durable.safe_loading.read import CheckpointUnavailable, read_checkpoint

_stock_load_state_dict = _checkpoint.load_state_dict
_stock_pretrained = PretrainedInit.__call__


def secure_loading() -> None:
    """Make mmengine load checkpoints by the rules of this project. Calling it again changes nothing.

    Every scheme of ``CheckpointLoader`` reads with :func:`~mmlightvit.checkpoint.read_checkpoint`. Models with parts
    of this project load strictly, published files included, through ``init_cfg``, ``load_from``, ``load_checkpoint``,
    inferencers and the runner. Configuration text in a checkpoint reaches nothing that would run it. Other models are
    loaded as mmengine loads them.
    """
    for scheme in list(_checkpoint.CheckpointLoader._schemes):
        _checkpoint.CheckpointLoader.register_scheme(scheme, loader=load_from_restricted, force=True)
    # mmengine's other functions find this one in their module when they are called, whoever imported them before.
    _checkpoint.load_state_dict = _load_state_dict
    PretrainedInit.__call__ = _pretrained
    Runner.load_checkpoint = _runner_load
    _infer._load_checkpoint = _load_without_config


def load_from_restricted(filename: str, map_location: Any = None) -> dict[str, Any]:
    """The loader of every scheme; mmengine logs what follows ``load_from_``.

    ``meta.config``, the text that files of MMDetection 2.x carry, is left out: both of mmengine's runners execute it.
    """
    checkpoint = read_checkpoint(filename, map_location)
    _drop(checkpoint, 'meta', 'config')
    return checkpoint


def _load_without_config(filename: str, map_location: Any = None) -> dict[str, Any]:
    """For inferencers, which build the model from the text in the checkpoint where they are given no config."""
    checkpoint = _checkpoint._load_checkpoint(filename, map_location=map_location)
    _drop(checkpoint, 'meta', 'cfg')
    _drop(checkpoint, 'message_hub', 'runtime_info', 'cfg')
    return checkpoint


def _drop(content: Any, *path: str) -> None:
    for key in path[:-1]:
        content = content.get(key) if isinstance(content, dict) else None
    if isinstance(content, dict):
        content.pop(path[-1], None)


def _load_state_dict(module: nn.Module, state_dict: dict, strict: bool = False, logger: Any = None) -> None:
    """In place of mmengine's: for inference and tests, so every parameter has to come from the file."""
    if has_our_parts(module):
        load_into(module, {'state_dict': state_dict})
    else:
        _stock_load_state_dict(module, state_dict, strict, logger)


def _pretrained(self: PretrainedInit, module: nn.Module) -> None:
    """In place of ``PretrainedInit.__call__``: training starts from the file."""
    if not has_our_parts(module):
        _stock_pretrained(self, module)
        return
    try:
        load_into(module, self.checkpoint, starting=True, prefix=self.prefix, map_location=self.map_location)
    except CheckpointUnavailable as error:
        raise CheckpointUnavailable(
            f'{error} For init_cfg of the backbone that is --cfg-options model.backbone.init_cfg.checkpoint=PATH; to '
            'train from scratch: --cfg-options model.backbone.init_cfg=None model.backbone.norm_eval=False'
        ) from None
    if hasattr(module, '_params_init_info'):
        update_init_info(module, init_info=self._get_init_info())


def _runner_load(
    self: Runner,
    filename: str,
    map_location: str | Callable = 'cpu',
    strict: bool = False,
    revise_keys: Sequence[tuple[str, str]] = ((r'^module\.', ''),),
) -> dict[str, Any]:
    """In place of ``Runner.load_checkpoint``.

    Training that starts from the file (``load_from`` without ``resume``) has the declared liberties, and
    ``load_fresh`` in the config names further parameters that stay as initialised. Hooks see a complete state dict.
    """
    checkpoint = _checkpoint._load_checkpoint(filename, map_location=map_location)
    model = unwrap(self.model)
    if has_our_parts(model):
        # A training that has not begun; with one behind it, a runner that loads is about to test.
        training = isinstance(self._train_loop, BaseLoop) and self.iter == 0
        starting = training and not self._resume and not strict
        fresh = self.cfg.get('load_fresh') or () if starting else ()
        checkpoint['state_dict'], report = plan(model, checkpoint, starting=starting, fresh=fresh, name=str(filename))
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        # A hook may have exchanged the weights, as averaging does; they have to fit as well.
        model.load_state_dict(checkpoint['state_dict'])
        report.log()
    else:
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        _checkpoint._load_checkpoint_to_model(model, checkpoint, strict, revise_keys=list(revise_keys))
    self._has_loaded = True
    self.logger.info(f'Load checkpoint from {filename}')
    return checkpoint
