# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The model card, ``README.md`` of a model folder, in the form of Hugging Face's hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmlightvit.errors import listed
from mmlightvit.model_folder.info import ModelInfo
from mmlightvit.tasks import TASKS

FILE = 'README.md'
_MOST_CLASSES = 20


def text(info: ModelInfo) -> str:
    """The card of a model. A fact that nobody gave is "not stated".

    Args:
        info: The model; a metric is a number, or ``value`` with the ``low`` and ``high`` of its interval.
    """
    metrics = '\n'.join(f'| {name} | {_measured(value)} |' for name, value in info.metrics.items())
    training, data = info.training, info.training.get('data') or {}
    return f"""---
{_head(info)}
---
# {info.name}

LightViT (arXiv 2207.05557), {info.task}, {len(info.classes)} classes: {listed(info.classes, _MOST_CLASSES)}.

```python
from mmlightvit import load_model
model = load_model('.')  # this folder
model.predict('picture.jpg').save('labelled.jpg')
```

| metric | value, with its 95 % interval where one was measured |
|---|---|
{metrics or '| | not stated |'}

- training pictures: {_stated(data.get('train_images'))}; validation pictures: {_stated(data.get('val_images'))}
- digests of the annotations: {_stated(', '.join(data.get('annotations_sha256') or ()))}
- epochs: {_stated(training.get('epochs'))}; batch: {_stated(training.get('batch'))}; seed: \
{_stated(training.get('seed'))}
- thresholds: {_thresholds(info.thresholds)}
- licence of the weights: {_stated(info.licence.get('weights'))}; of the data: {_stated(info.licence.get('data'))}
- limits: not stated
- SHA-256 of the weights: {_stated(info.weights_sha256)}

```bibtex
@article{{huang2022lightvit,
  title = {{LightViT: Towards Light-Weight Convolution-Free Vision Transformers}},
  author = {{Huang, Tao and Huang, Lang and You, Shan and Wang, Fei and Qian, Chen and Xu, Chang}},
  journal = {{arXiv:2207.05557}},
  year = {{2022}}
}}
```
"""


def _head(info: ModelInfo) -> str:
    """The YAML that the hub reads; a list of JSON is one of YAML too."""
    task = TASKS[info.task]
    return '\n'.join(
        [
            'library_name: mmlightvit',
            f'pipeline_tag: {task.hub_tag}',
            f'license: {str(info.licence.get("weights") or "unknown").lower()}',
            f'tags: {json.dumps(["lightvit", info.task])}',
            f'metrics: {json.dumps([task.hub_metric])}',
        ]
    )


def _stated(value: Any) -> str:
    return 'not stated' if value in (None, '', 'unknown', {}, []) else str(value)


def _measured(value: Any) -> str:
    if not isinstance(value, Mapping):
        return _stated(value)
    number, low, high = (value.get(key) for key in ('value', 'low', 'high'))
    return _stated(_rounded(number)) + ('' if low is None else f' ({_rounded(low)} to {_rounded(high)})')


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _thresholds(thresholds: Mapping[str, Any]) -> str:
    if not thresholds:
        return 'not stated'
    each = [f'{name} {_rounded(value)}' for name, value in (thresholds.get('per_class') or {}).items()]
    shown = [_stated(_rounded(thresholds.get('default'))), *([', '.join(each)] if each else [])]
    return '; '.join([*shown, f'chosen on {_stated(thresholds.get("chosen_on"))}'])
