# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Writing a model folder: weights, ``model.json``, config, card and class names; what ``load_model`` reads.

Hugging Face's hub expects the same files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlightvit.checkpoint.zoo import digest
from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.errors import UserError
from mmlightvit.model_folder import card
from mmlightvit.model_folder.describe import describe, plain
from mmlightvit.model_folder.info import FILE, ModelInfo

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = 'model.safetensors'


def write_model_folder(
    folder: str | Path,
    cfg: Any,
    checkpoint: str | Path,
    *,
    name: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> ModelInfo:
    """Write the folder of a trained model.

    Args:
        folder: Made if need be; files of an earlier model in it are replaced.
        cfg: The config that it was trained with, as mmengine read it.
        checkpoint: The checkpoint that was validated.
        name: What the model is called; by default the config's stem.
        metrics: Of the validation.
        training: Provenance, as ``training`` of model.json.

    Raises:
        UserError: The config does what model.json cannot say, or a file cannot be read or written.
    """
    from mmlightvit.checkpoint.identify import find_state_dict
    from mmlightvit.durable.safe_loading.read import read_checkpoint

    content = read_checkpoint(checkpoint)
    meta = content.get('meta')
    info = describe(cfg, meta.get('dataset_meta') if isinstance(meta, Mapping) else None)
    info = replace(info, name=name or info.name, metrics=plain(metrics or {}), training=plain(training or {}))
    return write_folder(folder, info, find_state_dict(content, str(checkpoint)), cfg.pretty_text)


def write_folder(
    folder: str | Path, info: ModelInfo, state: Mapping[str, Tensor], config: str | None = None
) -> ModelInfo:
    """Write a model folder.

    Args:
        folder: Made if need be.
        info: The description of the model; the digest of the weights is filled in.
        state: The weights.
        config: Text of the config, for people and for tools/train.py.

    Returns:
        What ``model.json`` says now.
    """
    from mmlightvit.checkpoint.convert import write_state_dict  # thresholds are written without torch

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # model.json is what makes the folder a model, so it goes first and comes last.
        (folder / FILE).unlink(missing_ok=True)
        write_state_dict(state, folder / WEIGHTS)
        info = replace(info, weights_sha256=digest(folder / WEIGHTS))
        texts = {'labels.txt': ''.join(f'{name}\n' for name in info.classes), card.FILE: card.text(info)}
        if config is not None:
            texts['config.py'] = config
        _write_texts(folder, {**texts, FILE: info.to_json()})
    except OSError as error:
        raise UserError(f'{folder} cannot be written: {error.strerror or error}') from None
    return info


def set_thresholds(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write thresholds into ``model.json``, where predict and serve read them, and metrics with their intervals.

    The card says the new ones too, unless somebody has written into it.

    Args:
        folder: Of a detector.
        metrics: Of its report.
    """
    info = ModelInfo.load(folder)
    chosen = metrics['thresholds']
    per_class = {name: value for name, value in chosen['per_class'].items() if name in info.classes}
    measured = {
        f'report/{kind}_{name}': values[name]
        for kind, values in metrics['metrics'].items()
        for name in ('AP', 'AP50', 'AP75')
    }
    new = info.with_thresholds(chosen['default'], per_class, chosen['chosen_on'])
    new = replace(new, metrics={**info.metrics, **measured})
    readme = folder / card.FILE
    texts = {FILE: new.to_json()}
    if readme.is_file() and readme.read_text(encoding='utf-8') == card.text(info):
        texts[card.FILE] = card.text(new)
    _write_texts(folder, texts)


def _write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        atomic_write(folder / name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
