# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""From a name to a model: a table of openers, the first that fits opens it.

Openers import when they are called, so that an exported model needs neither torch nor a toolbox.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from mmlightvit.deploy.formats import ENDINGS, ending_of
from mmlightvit.errors import UserError
from mmlightvit.inference.model import Model
from mmlightvit.model_folder.info import FILE


class Query(NamedTuple):
    """The arguments of :func:`load_model`, and ``name`` as a path."""

    name: str
    path: Path
    config: str | None
    device: str | None
    allow_random: bool
    trust: bool


class Opener(NamedTuple):
    """One kind of thing that a name can mean: whether it is one, and how it is opened."""

    fits: Callable[[Query], bool]
    open: Callable[[Query], Model]


def load_model(
    model: str | os.PathLike,
    *,
    config: str | None = None,
    device: str | None = None,
    allow_random: bool = False,
    trust: bool = False,
) -> Model:
    """The model that a name stands for.

    Args:
        model: A model folder; a work directory; a file that ``mmlightvit export`` wrote; a checkpoint, which needs its
            config unless it is a published classifier; or a name of ``mmlightvit models``.
        config: The config of a checkpoint. It is Python and is executed.
        device: ``'cpu'``, ``'cuda'``, ``'cuda:1'``, ...; for exported files ``'cpu'``, ``'cuda'`` or
            ``'openvino:CPU'``. None takes a GPU where there is one.
        allow_random: Whether a model without weights is good enough, for trying things out.
        trust: Whether a ``.pt2`` file may be opened, which can run any code.

    Raises:
        UserError: There is no such model, or it cannot be loaded; one line says why.
    """
    name = os.fspath(model)
    query = Query(name, Path(name).expanduser(), config, device, allow_random, trust)
    opener = next(opener for opener in OPENERS if opener.fits(query))
    return opener.open(query)


def _open_exported(query: Query) -> Model:
    from mmlightvit.deploy.runtime import load_exported

    return load_exported(query.path, query.device, trust=query.trust)


def _open_named(query: Query) -> Model:
    from mmlightvit.checkpoint import zoo

    if query.name not in zoo.list_models():
        raise UserError(zoo.no_such_model(query.name))
    return _torch_backend(query).load_named(query.name, query.device, query.allow_random)


def _torch_backend(query: Query) -> ModuleType:
    try:
        from mmlightvit.inference import torch_backend
    except ModuleNotFoundError as error:
        raise UserError(
            f'{query.name} needs {error.name}: see docs/install.md, or export the model where that is installed'
        ) from None
    return torch_backend


#: In the order in which they are tried.
OPENERS = (
    Opener(lambda query: ending_of(query.path) in ENDINGS and query.path.is_file(), _open_exported),
    Opener(lambda query: '://' not in query.name and not query.path.exists(), _open_named),
    Opener(
        lambda query: (query.path / FILE).is_file(),
        lambda query: _torch_backend(query).load_folder(query.path, query.device),
    ),
    Opener(
        lambda query: query.path.is_dir(),
        lambda query: _torch_backend(query).load_work_dir(query.path, query.device),
    ),
    Opener(
        lambda query: query.path.suffix == '.py',
        lambda query: _torch_backend(query).load_random(str(query.path), query.device, query.allow_random),
    ),
    Opener(
        lambda query: True,
        lambda query: _torch_backend(query).load_checkpoint(query.name, query.config, query.device),
    ),
)
