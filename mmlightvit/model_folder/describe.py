# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The description of a model, read off a config of a toolbox."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmlightvit.errors import UserError
from mmlightvit.model_folder.info import InputSpec, ModelInfo
from mmlightvit.model_folder.parts import without_files
from mmlightvit.tasks import DETECTION, INSTANCE, SEGMENTATION
from mmlightvit.toolboxes import TOOLBOXES, kind_of
from mmlightvit.version import __version__

#: Keys of a model's config that prediction must not follow: where weights start from, how it is trained.
_LEFT_OUT = ('init_cfg', 'pretrained', 'checkpoint')


def describe(cfg: Any, dataset_meta: Mapping[str, Any] | None = None) -> ModelInfo:
    """Everything but weights, metrics and training.

    Args:
        cfg: A config of mmengine with a model and a test data loader.
        dataset_meta: ``meta.dataset_meta`` of a checkpoint, which knows the classes best.

    Raises:
        UserError: The test pipeline does what model.json cannot say, or nobody knows the classes' names.
    """
    scope = cfg.get('default_scope')
    if scope not in TOOLBOXES:
        raise UserError(f'default_scope={scope!r}: expected one of {", ".join(TOOLBOXES)}')
    model = plain(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', plain(cfg.data_preprocessor))
    model = without_files(model)
    dataset = _innermost((cfg.get('test_dataloader') or {}).get('dataset') or {})
    meta = {**_metainfo(dataset, scope), **(dataset_meta or {})}
    classes = tuple(map(str, meta.get('classes') or ()))
    if not classes:
        raise UserError('neither the checkpoint nor the config says what the classes are called: set metainfo.classes')
    palette = meta.get('palette')
    is_segmenter = TOOLBOXES[scope].task == SEGMENTATION
    return ModelInfo(
        task=_task(model, TOOLBOXES[scope].task),
        name=Path(cfg.filename).stem if getattr(cfg, 'filename', None) else 'model',
        classes=classes,
        scope=scope,
        model=model,
        input=_input(cfg, dataset, model),
        # Objects get the renderer's colours; a label map those that its readers know.
        palette=[list(map(int, colour)) for colour in palette]
        if is_segmenter and palette is not None and len(palette) == len(classes)
        else None,
        versions=_versions(scope),
    )


def _task(model: Mapping[str, Any], task: str) -> str:
    has_masks = (model.get('roi_head') or {}).get('mask_head') or model.get('mask_head')
    return INSTANCE if task == DETECTION and has_masks else task


def plain(value: Any) -> Any:
    """A config or metrics as JSON takes them, without ``_LEFT_OUT``; NaN becomes None."""
    if isinstance(value, Mapping):
        # Some detectors insist on the argument train_cfg.
        kept = {str(key): item for key, item in value.items() if key not in _LEFT_OUT}
        return {key: None if key == 'train_cfg' else plain(item) for key, item in kept.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, type):
        raise UserError(f'the config names {value.__name__} as a class; model.json takes its registered name as text')
    return plain(value.tolist()) if hasattr(value, 'tolist') else str(value)


def _innermost(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data set inside of wrappers; of a concatenation, the first."""
    while True:
        inner = dataset.get('dataset') or (dataset.get('datasets') or [None])[0]
        if not isinstance(inner, Mapping):
            return dataset
        dataset = inner


def _metainfo(dataset: Mapping[str, Any], scope: str) -> dict[str, Any]:
    """Classes and palette of a data set: of its class, and over these of its config."""
    from mmengine.registry import DATASETS

    from mmlightvit.toolboxes import import_toolbox

    of_class: dict[str, Any] = {}
    kind = dataset.get('type')
    if kind is not None:
        import_toolbox(scope)
        cls = DATASETS.children[scope].get(kind) if isinstance(kind, str) else kind
        of_class = copy.deepcopy(getattr(cls, 'METAINFO', {}))
    own = {**(dataset.get('metainfo') or {})}
    if dataset.get('classes') is not None:
        own['classes'] = dataset['classes']
    if own.get('classes') is not None:
        of_class.pop('palette', None)
    return {**of_class, **own}


def _versions(scope: str) -> dict[str, str]:
    versions = {'mmlightvit': __version__}
    for name, distribution in (('torch', 'torch'), (scope, TOOLBOXES[scope].distribution)):
        try:
            versions[name] = version(distribution)
        except PackageNotFoundError:
            versions[name] = version(TOOLBOXES[scope].original)
    return versions


def _input(cfg: Any, dataset: Mapping[str, Any], model: Mapping[str, Any]) -> InputSpec:
    preprocessor = model.get('data_preprocessor') or {}
    resize: dict[str, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation = 'bilinear'
    pipeline = dataset.get('pipeline') or cfg.get('test_pipeline') or ()
    for step in pipeline:
        kind = kind_of(step)
        if kind in ('Resize', 'ResizeEdge'):
            resize, interpolation = _resize(step, kind, cfg.default_scope)
        elif kind == 'ResizeToMultiple' and resize is not None:
            resize['multiple'] = step.get('size_divisor', 32)
        elif kind == 'CenterCrop' and not step.get('auto_pad'):
            size = step['crop_size']
            crop = (size, size) if isinstance(size, int) else (size[1], size[0])
        elif not kind.startswith(('Load', 'Pack')):
            raise UserError(f'the test pipeline has {kind}, which prediction cannot repeat')
    test = preprocessor.get('test_cfg') or {}
    if test.get('size') is not None:
        raise UserError('data_preprocessor.test_cfg.size pads to a fixed size, which prediction cannot repeat')
    # mmseg pads in testing only where test_cfg says so.
    padding = test.get('size_divisor') if cfg.default_scope == 'mmseg' else preprocessor.get('pad_size_divisor')
    return InputSpec(
        mean=tuple(map(float, preprocessor.get('mean') or (0, 0, 0))),
        std=tuple(map(float, preprocessor.get('std') or (1, 1, 1))),
        channels='rgb' if preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb') else 'bgr',
        resize=resize,
        crop=crop,
        pad_multiple=padding if (padding or 1) > 1 else None,
        interpolation=interpolation,
    )


def _resize(step: Mapping[str, Any], kind: str, scope: str) -> tuple[dict[str, int], str]:
    way = step.get('backend', 'cv2'), step.get('interpolation', 'bilinear')
    if way not in (('cv2', 'bilinear'), ('pillow', 'bicubic')):
        raise UserError(f'the test pipeline resizes by {way[0]}, {way[1]}, which prediction cannot repeat')
    scale: Any = step.get('scale')
    if kind == 'ResizeEdge':
        if step.get('edge', 'short') != 'short':
            raise UserError(f'the test pipeline resizes the edge {step["edge"]}, which prediction cannot repeat')
        return {'short': int(scale)}, way[1]
    if scale is None:
        raise UserError('the test pipeline resizes by a factor, which prediction cannot repeat')
    sides = (scale, scale) if isinstance(scale, int) else tuple(scale)
    if step.get('keep_ratio'):
        return {'short': int(min(sides)), 'long': int(max(sides))}, way[1]
    return {'height': int(sides[1]), 'width': int(sides[0])}, way[1]
