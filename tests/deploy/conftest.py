# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Models and their exports, made once for all tests: an export takes ten seconds and more."""

from __future__ import annotations

from typing import NamedTuple

import minute
import pytest

from mmlightvit.deploy.export import Plan, export
from mmlightvit.deploy.runtime import load_exported
from mmlightvit.deploy.verify import generated_pictures

KINDS = {
    'classification': 'lightvit_t_imagenet',
    'instance': 'mask_rcnn_lightvit_t_1x',
    'segmentation': 'semantic_fpn_lightvit_t_ade20k',
}


class Exported(NamedTuple):
    """A model, its file, and the file opened."""

    model: object
    path: object
    opened: object


@pytest.fixture(scope='session')
def pictures():
    return generated_pictures(3)


@pytest.fixture(scope='session')
def exported(tmp_path_factory, pictures):
    """A function from a task to its model and file."""
    made = {}

    def get(task: str) -> Exported:
        if task not in made:
            model = minute.model(KINDS[task])
            path = tmp_path_factory.mktemp(task) / 'model.onnx'
            export(model, path, Plan(), pictures)
            made[task] = Exported(model, path, load_exported(path))
        return made[task]

    return get
