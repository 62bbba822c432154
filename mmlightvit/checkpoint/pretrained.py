# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A bare backbone with weights: what ``LightViT.from_pretrained`` calls, by the registry of functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from mmlightvit.checkpoint import zoo
from mmlightvit.checkpoint.identify import find_state_dict, recognise
from mmlightvit.checkpoint.load import load_into
from mmlightvit.durable.safe_loading.read import read_checkpoint
from mmlightvit.errors import UserError
from mmlightvit.registry import FUNCTIONS
from mmlightvit.toolboxes import kind_of

Backbone = TypeVar('Backbone', bound=nn.Module)


@FUNCTIONS.register_module()
def pretrained_backbone(cls: type[Backbone], source: str, **kwargs: Any) -> Backbone:
    """Build a backbone for the weights of a source, and load them.

    Output norms that the weights lack, as a classifier's do, start fresh; the report says so.

    Args:
        cls: The backbone's class.
        source: A name of ``mmlightvit models``, a model folder, or a checkpoint.
        **kwargs: Arguments over those that the weights show.

    Raises:
        UserError: There are no such weights, or they do not fit.
    """
    path = Path(source).expanduser()
    described = path / 'model.json'
    if described.is_file():
        arguments = _of_folder(described)
        path = path / 'model.safetensors'
    elif '://' not in source and not path.exists():
        path = zoo.pull(source)
        arguments = None
    else:
        arguments = None
    checkpoint = read_checkpoint(path if path.exists() else source)
    if arguments is None:
        found = recognise(find_state_dict(checkpoint, source), source).architecture
        if found is None or found.arch is None:
            raise UserError(
                f'{source} holds {found or "no LightViT"}; give its model folder, which knows the arguments'
            )
        arguments = dict(arch=found.arch, num_global_tokens=found.num_global_tokens, window_size=found.window_size)
        arguments['in_channels'] = found.in_channels
    model = cls(**{**arguments, **kwargs})
    load_into(model, checkpoint, starting=True, name=source)
    return model


def _of_folder(path: Path) -> dict[str, Any]:
    """The backbone's arguments in model.json."""
    try:
        arguments = dict(json.loads(path.read_text(encoding='utf-8'))['model']['backbone'])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} describes no backbone: {type(error).__name__}: {error}') from None
    if kind_of(arguments) != 'LightViT':
        raise UserError(f'{path} describes a model whose backbone is no LightViT')
    return {key: value for key, value in arguments.items() if key not in ('type', 'init_cfg', '_scope_')}
