# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The models that have a name: ``model-index.yml``, and where their weights are kept."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlparse

from mmlightvit.durable.safe_loading.offline import is_offline
from mmlightvit.errors import UserError
from mmlightvit.tasks import CLASSIFICATION, DETECTION, INSTANCE, SEGMENTATION, TASKS

#: By their names in the index.
_TASKS = {task.metafile: name for name, task in TASKS.items()}
_DRIVE = "the authors' README (https://github.com/hunto/LightViT) links the same weights on Google Drive"


@dataclass(frozen=True)
class Entry:
    """A named model.

    Attributes:
        name, config: Its name, and the path of its config.
        task: A key of ``mmlightvit.tasks.TASKS``.
        parameters, macs: Counts at ``Input Size``.
        metric: Published metric, or ''.
        licence: Of the weights.
        address: Of the weights, or None where none are published as a file.
        size: Bytes of the file, None if unknown.
        sha256: Digest of the file, None if unknown.
        note: Where weights without an address are said to be.
    """

    name: str
    config: Path
    task: str
    parameters: int | None
    macs: int | None
    metric: str
    licence: str
    address: str | None
    size: int | None
    sha256: str | None
    note: str

    @property
    def cached(self) -> Path | None:
        """Where the weights are kept, whether they are there or not; None without weights."""
        return None if self.address is None else cache_dir() / PurePath(urlparse(self.address).path).name

    @property
    def is_here(self) -> bool:
        return self.cached is not None and self.cached.is_file()


def cache_dir() -> Path:
    """``torch.hub``'s folder of checkpoints, found without torch."""
    cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    home = os.environ.get('TORCH_HOME') or os.path.join(cache, 'torch')
    return Path(home).expanduser() / 'hub' / 'checkpoints'


def resource(name: str) -> Path:
    """A file that travels with the package, or lies beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / '.mim' / name
    return inside if inside.exists() else package.parent / name


@lru_cache(maxsize=1)
def entries() -> tuple[Entry, ...]:
    """All named models."""
    try:
        import yaml
    except ImportError:
        raise UserError('the list of models needs PyYAML: pip install pyyaml') from None

    index = resource('model-index.yml')
    found = []
    for path in yaml.safe_load(index.read_text(encoding='utf-8'))['Import']:
        content = yaml.safe_load(resource(path).read_text(encoding='utf-8'))
        found += [_entry(model) for model in content['Models']]
    return tuple(found)


def _entry(model: dict[str, Any]) -> Entry:
    metadata, results = model.get('Metadata') or {}, model.get('Results') or []
    metrics = [f'{name} {value}' for result in results for name, value in list(result['Metrics'].items())[:1]]
    tasks = [_TASKS[result['Task']] for result in results if result['Task'] in _TASKS]
    return Entry(
        name=model['Name'],
        config=resource(model['Config']),
        task=tasks[-1] if tasks else _task_by_name(model['Name']),
        parameters=metadata.get('Parameters'),
        macs=metadata.get('FLOPs'),
        metric=', '.join(metrics),
        licence='Apache-2.0' if model.get('Weights') else '',
        address=model.get('Weights'),
        size=metadata.get('Size'),
        sha256=metadata.get('SHA256'),
        note=metadata.get('Published Weights') or '',
    )


def _task_by_name(name: str) -> str:
    """The task of a model without published results: its config is named after its head."""
    heads = {
        INSTANCE: ('mask_rcnn', 'own_data_instance'),
        DETECTION: ('retinanet', 'own_data_detection'),
        SEGMENTATION: ('fpn', 'upernet', 'own_data_segmentation'),
    }
    return next((task for task, words in heads.items() if any(word in name for word in words)), CLASSIFICATION)


def list_models(task: str | None = None) -> list[str]:
    """Names that :func:`mmlightvit.load_model` takes.

    Args:
        task: A key of ``mmlightvit.tasks.TASKS``; None for all.
    """
    if task is not None and task not in TASKS:
        raise UserError(f'task: expected {", ".join(TASKS)}, got {task!r}')
    return [entry.name for entry in entries() if task in (None, entry.task)]


def find(name: str) -> Entry:
    """The model of a name.

    Raises:
        UserError: There is none.
    """
    for entry in entries():
        if entry.name == name:
            return entry
    raise UserError(no_such_model(name))


def no_such_model(name: str) -> str:
    """What to say of a name that nothing bears."""
    names = list_models()
    near = difflib.get_close_matches(name, names, 1, 0.5)
    nearest = f'; nearest: {near[0]}' if near else ''
    known = f"one of the {len(names)} names of 'mmlightvit models'"
    return f'no model {name!r}: not a file or folder, and not {known}{nearest}'


def pull(name: str) -> Path:
    """The weights of a model, fetched once.

    Raises:
        UserError: None are published, or they cannot be had; the message says where to put them.
    """
    entry = find(name)
    path = entry.cached
    if path is None or entry.address is None:
        raise UserError(without_weights(entry))
    if not path.is_file():
        where = f'put {path.name} at {path} (address {entry.address}; {_DRIVE})'
        if is_offline('HF_HUB_OFFLINE'):
            raise UserError(f'{name} is not here and MMLIGHTVIT_OFFLINE is set; {where}')
        _fetch(name, entry.address, where)
    if entry.sha256 is not None and digest(path) != entry.sha256:
        raise UserError(f'{path} is not what was published: its SHA-256 is not {entry.sha256}; remove it and try again')
    return path


def without_weights(entry: Entry) -> str:
    """What to say of a model whose weights have no address."""
    note = f'; they are {entry.note}: fetch the file, and give its path with --config {entry.config}'
    return f'no weights of {entry.name} are published as a file{note if entry.note else ""}'


def _fetch(name: str, address: str, where: str) -> None:
    from mmlightvit.durable.safe_loading.read import CheckpointUnavailable, download

    try:
        download(address)
    except CheckpointUnavailable as error:
        reason = str(error).partition('(')[2].partition(')')[0]
        raise UserError(f'{name} cannot be had ({reason}); {where}') from None


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    import hashlib

    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
