# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""mmengine's reading of checkpoints, replaced: nothing that a checkpoint holds is executed.

Importing this module installs it, so a config switches it on by ``custom_imports``. mmengine 0.10 executes the pickle
where restricted unpickling fails, and runs the configuration text inside a checkpoint on resuming and in inferencers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader

from mmlightvit.durable.patching import patch
from mmlightvit.durable.safe_loading.read import read_checkpoint


def install() -> None:
    """Make mmengine read checkpoints of every address scheme by :func:`read_checkpoint`, and run no text in them.

    Calling it again changes nothing.

    Raises:
        UnknownVersion: mmengine is not of a version that this was written for.
    """
    for scheme, present in list(CheckpointLoader._schemes.items()):
        if present is not load_from_restricted:
            CheckpointLoader.register_scheme(scheme, loader=load_from_restricted, force=True)
    patch('mmengine.infer.infer', '_load_checkpoint', _without_config, '(filename, map_location=None, logger=None)')


def load_from_restricted(filename: str, map_location: Any = None) -> dict[str, Any]:
    """The loader of every scheme; mmengine logs the part of its name after ``load_from_``.

    ``meta.config``, the text that files of MMDetection 2.x carry, is left out: both of mmengine's runners execute it.
    """
    checkpoint = read_checkpoint(filename, map_location)
    _drop(checkpoint, 'meta', 'config')
    return checkpoint


def _without_config(stock: Callable) -> Callable:
    """For inferencers, which build the model from the text in the checkpoint where they are given no config."""

    @functools.wraps(stock)
    def load(*args: Any, **kwargs: Any) -> Any:
        checkpoint = stock(*args, **kwargs)
        _drop(checkpoint, 'meta', 'cfg')
        _drop(checkpoint, 'message_hub', 'runtime_info', 'cfg')
        return checkpoint

    return load


def _drop(content: Any, *path: str) -> None:
    for key in path[:-1]:
        content = content.get(key) if isinstance(content, dict) else None
    if isinstance(content, dict):
        content.pop(path[-1], None)


install()
