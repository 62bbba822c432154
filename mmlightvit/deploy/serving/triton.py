# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""An exported file as a model of NVIDIA's Triton server: its folder in a model repository."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mmlightvit.deploy.formats.base import package
from mmlightvit.errors import UserError
from mmlightvit.model_folder.info import ModelInfo

#: Pictures of one size that the server may put together, where the graph takes several.
_MOST_BATCH = 16
_TYPES = {'tensor(float)': 'TYPE_FP32', 'tensor(int64)': 'TYPE_INT64'}

_README = """# {name}: a model for NVIDIA Triton

    docker run --rm -p 8000:8000 -v {repository}:/models nvcr.io/nvidia/tritonserver:RELEASE-py3 \\
        tritonserver --model-repository=/models

RELEASE is a release of Triton, such as 25.10. It gives the network what it gets, so the client prepares pictures as the
parameter `mmlightvit` of `config.pbtxt` says; `mmlightvit.inference.preprocess.prepare` does it in Python. `labels.txt`
has the classes in their order.
"""


def target_of(repository: Path, source: Path, overwrite: bool) -> Path:
    """The folder of a file's model in a repository.

    Raises:
        UserError: It is there already.
    """
    target = repository / source.stem
    if target.exists() and not overwrite:
        raise UserError(f'{target} is there already: --overwrite replaces it')
    return target


def write_model(source: Path, info: ModelInfo, repository: Path, overwrite: bool = False) -> Path:
    """Write the folder of a model: configuration, labels, a copy of the file as its version 1, how to start it.

    Args:
        source: An ``.onnx`` file that ``mmlightvit export`` wrote; the model has its name.
        info: What it says of itself.
        repository: Folder of models; made if it is missing. A server that watches it sees the model when it is whole.
        overwrite: Whether a model of that name is replaced.

    Returns:
        The folder.

    Raises:
        UserError: There is such a model, it is another kind of file, or a folder cannot be written.
    """
    if source.suffix != '.onnx':
        raise UserError(f'{source}: Triton gets the .onnx file')
    target = target_of(repository, source, overwrite)
    ort = package('onnxruntime', 'runtime')
    session = ort.InferenceSession(str(source), providers=['CPUExecutionProvider'])
    files = {
        'config.pbtxt': _config(source.stem, session, info),
        'labels.txt': ''.join(f'{name}\n' for name in info.classes),
        'README.md': _README.format(name=source.stem, repository=repository.resolve()),
    }
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix='.triton-', dir=repository.resolve().parent) as folder:
            draft = Path(folder) / target.name
            (draft / '1').mkdir(parents=True)
            shutil.copyfile(source, draft / '1' / 'model.onnx')
            for name, text in files.items():
                (draft / name).write_text(text, encoding='utf-8')
            if target.exists():
                os.replace(target, Path(folder) / 'before')
            os.replace(draft, target)
    except OSError as error:
        raise UserError(f'{target} cannot be written: {error.strerror or error}') from None
    return target


def _config(name: str, session: Any, info: ModelInfo) -> str:
    batched = isinstance(session.get_inputs()[0].shape[0], str)
    content = json.loads(info.to_json())
    metadata = json.dumps({key: content[key] for key in ('task', 'classes', 'input', 'thresholds')}, ensure_ascii=False)
    lines = [
        f'name: {_text(name)}',
        'backend: "onnxruntime"',
        f'max_batch_size: {_MOST_BATCH if batched else 0}',
        *(['dynamic_batching { }'] if batched else []),
        *(_tensor('input', value, batched) for value in session.get_inputs()),
        *(_tensor('output', value, batched) for value in session.get_outputs()),
        f'parameters {{ key: "mmlightvit" value {{ string_value: {_text(metadata)} }} }}',
    ]
    return '\n'.join(lines) + '\n'


def _tensor(kind: str, value: Any, batched: bool) -> str:
    """An input or output; the axis of the batch is not among its dimensions, open ones are -1."""
    dims = ', '.join(str(size) if isinstance(size, int) else '-1' for size in value.shape[1 if batched else 0 :])
    labels = ' label_filename: "labels.txt"' if value.name == 'probs' else ''
    return f'{kind} {{ name: {_text(value.name)} data_type: {_TYPES[value.type]} dims: [ {dims} ]{labels} }}'


def _text(value: str) -> str:
    """A text in the text form of protocol buffers, whose escapes are JSON's."""
    return json.dumps(value, ensure_ascii=False)
