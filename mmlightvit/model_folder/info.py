# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The description of a model: ``model.json`` of a model folder, and the metadata of an exported file.

It is data: nothing in it is executed, and what it wants built is checked first (``torch_backend``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.errors import UserError
from mmlightvit.tasks import TASKS

FORMAT = 'mmlightvit/1'
FILE = 'model.json'
#: The model folder of a work directory.
FOLDER = 'model'
#: The key under which exported files carry the same JSON.
METADATA_KEY = 'mmlightvit'
SCOPES = ('mmdet', 'mmpretrain', 'mmseg')
DEFAULT_THRESHOLD = 0.3  # mmdet's

_COUNT = {'type': 'integer', 'minimum': 1}
_SHARE = {'type': 'number', 'minimum': 0, 'maximum': 1}
_THREE = {'type': 'array', 'items': {'type': 'number'}, 'minItems': 3, 'maxItems': 3}
_COLOUR = {**_THREE, 'items': {'type': 'integer', 'minimum': 0, 'maximum': 255}}

#: JSON schema of model.json. Further keys are kept as they are.
SCHEMA: dict[str, Any] = {
    'type': 'object',
    'required': ['format', 'task', 'name', 'classes', 'scope', 'model', 'input'],
    'properties': {
        'format': {'enum': [FORMAT]},
        'task': {'enum': list(TASKS)},
        'name': {'type': 'string'},
        'classes': {'type': 'array', 'items': {'type': 'string'}, 'minItems': 1},
        'palette': {'type': ['array', 'null'], 'items': _COLOUR},
        'scope': {'enum': list(SCOPES)},
        'model': {'type': 'object', 'required': ['type']},
        'input': {
            'type': 'object',
            'required': ['mean', 'std'],
            'properties': {
                'channels': {'enum': ['rgb', 'bgr']},
                'mean': _THREE,
                'std': _THREE,
                'resize': {
                    'type': ['object', 'null'],
                    'properties': dict.fromkeys(('short', 'long', 'height', 'width', 'multiple'), _COUNT),
                },
                'crop': {'type': ['array', 'null'], 'items': _COUNT, 'minItems': 2, 'maxItems': 2},
                'pad_multiple': {'type': ['integer', 'null'], 'minimum': 1},
                'interpolation': {'enum': ['bilinear', 'bicubic']},
            },
            'additionalProperties': False,
        },
        'thresholds': {
            'type': 'object',
            'properties': {
                'default': _SHARE,
                'per_class': {'type': 'object', 'additionalProperties': _SHARE},
                'chosen_on': {'type': ['string', 'null']},
            },
            'additionalProperties': False,
        },
        'metrics': {'type': 'object'},
        'training': {'type': 'object'},
        'licence': {'type': 'object'},
        'weights_sha256': {'type': ['string', 'null']},
        'versions': {'type': 'object'},
    },
}


@dataclass(frozen=True)
class InputSpec:
    """How pictures are prepared; ``input`` of model.json.

    Attributes:
        mean, std: Per channel, in pixel values.
        channels: ``'rgb'`` or ``'bgr'``.
        resize: None keeps the size. ``short`` alone: the short side, in pixels. ``short`` and ``long``: the largest
            size whose sides stay within both. ``height`` and ``width``: exactly these. With ``multiple``, they are then
            brought up to a multiple of it.
        crop: (height, width) of the centre; None for all.
        pad_multiple: Zeros to the right and at the bottom, up to a multiple; None for none.
        interpolation: ``'bilinear'`` as OpenCV's, ``'bicubic'`` as Pillow's.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: str = 'rgb'
    resize: Mapping[str, int] | None = None
    crop: tuple[int, int] | None = None
    pad_multiple: int | None = None
    interpolation: str = 'bilinear'

    def with_size(self, size: int) -> InputSpec:
        """The same for another short side; crop and long side keep their proportion to it."""
        if size < 1:
            raise UserError(f'size: expected at least 1 pixel, got {size}')
        resize = self.resize or {}
        if self.crop is not None:
            short = round(size * resize.get('short', min(self.crop)) / min(self.crop))
            return replace(self, resize={'short': max(size, short)}, crop=(size, size))
        if 'short' not in resize:
            return replace(self, resize={'height': size, 'width': size})
        new = {**resize, 'short': size}
        if 'long' in resize:
            new['long'] = round(size * resize['long'] / resize['short'])
        return replace(self, resize=new)


@dataclass(frozen=True)
class ModelInfo:
    """The content of ``model.json``.

    Attributes:
        task: A key of ``mmlightvit.tasks.TASKS``.
        name: What people call the model.
        classes: Names; a class is its place, from 0.
        scope: The toolbox that builds ``model``.
        model: The model's configuration, literals only.
        input: How pictures are prepared.
        palette: RGB of each class; None takes the renderer's.
        thresholds: ``default``, ``per_class`` by name, ``chosen_on``.
        metrics, training, licence, versions: For people.
        weights_sha256: Digest of the weights' file.
        extra: Keys that others added, such as the certificate of an export.
    """

    task: str
    name: str
    classes: tuple[str, ...]
    scope: str
    model: Mapping[str, Any]
    input: InputSpec
    palette: Sequence[Sequence[int]] | None = None
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    licence: Mapping[str, Any] = field(default_factory=lambda: {'weights': 'unknown', 'data': 'unknown'})
    weights_sha256: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | Path) -> ModelInfo:
        """Read a model folder's ``model.json``.

        Raises:
            UserError: It is missing, or not of this format.
        """
        path = Path(folder) / FILE
        try:
            text = path.read_text(encoding='utf-8')
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f'{path} cannot be read: {getattr(error, "strerror", None) or error}') from None
        return cls.from_json(text, str(path))

    @classmethod
    def from_json(cls, text: str, name: str = FILE) -> ModelInfo:
        """Parse and check.

        Args:
            text: JSON.
            name: Where it is from, for messages.

        Raises:
            UserError: It is no JSON, or not of this format; the message says at which key.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f'{name} is no JSON: {error}') from None
        check(content, SCHEMA, name)
        known = {item.name for item in fields(cls)} - {'extra', 'input', 'classes'}
        spec: dict[str, Any] = {
            key: tuple(item) if isinstance(item, list) else item for key, item in content['input'].items()
        }
        info = cls(
            classes=tuple(content['classes']),
            input=InputSpec(**spec),
            extra={key: value for key, value in content.items() if key not in known | {'format', 'input', 'classes'}},
            **{key: content[key] for key in known if key in content},
        )
        info._check(name)
        return info

    def _check(self, name: str) -> None:
        """Rules that the schema cannot hold."""
        resize = set(self.input.resize or {'short'}) - {'multiple'}
        if resize not in ({'short'}, {'short', 'long'}, {'height', 'width'}):
            raise UserError(
                f'{name}: input.resize has {sorted(resize)}, expected short, short and long, or height and width'
            )
        if 0 in self.input.std:
            raise UserError(f'{name}: input.std has a 0, by which nothing can be divided')
        if self.palette is not None and len(self.palette) != len(self.classes):
            raise UserError(f'{name}: the palette has {len(self.palette)} colours for {len(self.classes)} classes')
        unknown = sorted(set(self.thresholds.get('per_class') or {}) - set(self.classes))
        if unknown:
            raise UserError(f'{name}: thresholds.per_class names {", ".join(unknown)}, which is no class')

    def to_json(self) -> str:
        """UTF-8 text, keys sorted."""
        content = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ('extra', 'input')}
        spec = {item.name: getattr(self.input, item.name) for item in fields(self.input)}
        content = {**self.extra, **content, 'format': FORMAT, 'input': spec}
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + '\n'

    def with_thresholds(self, default: float, per_class: Mapping[str, float], chosen_on: str) -> ModelInfo:
        """The same with thresholds that were chosen on data."""
        chosen = {'default': default, 'per_class': dict(per_class), 'chosen_on': chosen_on}
        return replace(self, thresholds=chosen)

    def threshold_of_classes(self) -> NDArray[np.float32]:
        """The score from which an object of each class counts, (classes,)."""
        default = self.thresholds.get('default', DEFAULT_THRESHOLD)
        per_class = self.thresholds.get('per_class') or {}
        return np.array([per_class.get(name, default) for name in self.classes], np.float32)


def find_folder(model: str | Path) -> Path | None:
    """The folder of a model's ``model.json``: the folder itself, or the one in a work directory."""
    path = Path(model).expanduser()
    return next((folder for folder in (path, path / FOLDER) if (folder / FILE).is_file()), None)


_TYPES: dict[str, Any] = {
    'object': dict,
    'array': list,
    'string': str,
    'null': type(None),
    'integer': int,
    'number': (int, float),
}


def check(value: Any, schema: Mapping[str, Any], place: str) -> None:
    """Hold a value against a JSON schema, as far as the one above goes.

    Args:
        value: From ``json.loads``.
        schema: With ``type``, ``enum``, ``required``, ``properties``, ``additionalProperties``, ``items``, and the
            least and greatest numbers and lengths.
        place: Where the value stands, for messages.

    Raises:
        UserError: It does not fit.
    """
    if 'enum' in schema and value not in schema['enum']:
        raise UserError(f'{place}: expected {" or ".join(map(str, schema["enum"]))}, got {_shown(value)}')
    expected = schema.get('type', ())
    expected = [expected] if isinstance(expected, str) else expected
    if expected and (isinstance(value, bool) or not any(isinstance(value, _TYPES[name]) for name in expected)):
        raise UserError(f'{place}: expected {" or ".join(expected)}, got {_shown(value)}')
    if isinstance(value, dict):
        missing = [key for key in schema.get('required', ()) if key not in value]
        if missing:
            raise UserError(f'{place}: {", ".join(missing)} is missing')
        known, others = schema.get('properties', {}), schema.get('additionalProperties', True)
        for key, item in value.items():
            if key in known or isinstance(others, Mapping):
                check(item, known.get(key, others), f'{place}: {key}')
            elif not others:
                raise UserError(f'{place}: expected {", ".join(known)}, got {_shown(key)}')
    elif isinstance(value, list):
        if not schema.get('minItems', 0) <= len(value) <= schema.get('maxItems', len(value)):
            raise UserError(f'{place}: {len(value)} entries are too few or too many')
        for index, item in enumerate(value):
            check(item, schema.get('items', {}), f'{place}[{index}]')
    elif isinstance(value, int | float) and not schema.get('minimum', value) <= value <= schema.get('maximum', value):
        raise UserError(f'{place}: {value} is too small or too large')


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + '...'
