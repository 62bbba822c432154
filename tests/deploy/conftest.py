# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Models and their exports, each made once in a run of the tests: an export takes ten seconds and more."""

from __future__ import annotations

import os
from typing import NamedTuple

import minute
import pytest
from filelock import FileLock

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
    """A function from a task to its model and file, which the first worker that asks traces for all."""
    made = {}
    in_worker = 'PYTEST_XDIST_WORKER' in os.environ
    root = tmp_path_factory.getbasetemp().parent if in_worker else tmp_path_factory.mktemp('exported')

    def get(task: str) -> Exported:
        if task not in made:
            model = minute.model(KINDS[task])
            path = root / f'exported-{task}' / 'model.onnx'
            with FileLock(root / f'{task}.lock'):
                if not path.exists():
                    path.parent.mkdir(exist_ok=True)
                    export(model, path, Plan(), pictures)
            made[task] = Exported(model, path, load_exported(path))
        return made[task]

    return get
