# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The main metric of a model and of its exported file, which must not fall."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmlightvit.errors import UserError
from mmlightvit.evaluation.measure import main_metric
from mmlightvit.evaluation.predictions import answers, answers_of
from mmlightvit.evaluation.truth import of_data
from mmlightvit.inference.model import Model
from mmlightvit.tasks import TASKS

#: The share of the metric that 8-bit weights may cost.
_INT8_MAY_COST = 0.005


def metric_proof(model: Model, data: str, int8: bool) -> Callable[[Path], dict[str, Any]]:
    """The function that measures a file against its model; the labels are read here, before the minutes of an export.

    Args:
        model: The truth.
        data: A prepared folder, a config, or a COCO file beside its pictures; its val part.
        int8: Whether the file has 8-bit weights.

    Returns:
        A function from the file to the part of its certificate; it raises a UserError where the metric falls too far.

    Raises:
        UserError: The data are not there, or of another task.
    """
    truth = of_data(data, 'val')
    truth.check_task(model.task)

    def measure(file: Path) -> dict[str, Any]:
        own = {'trust': True} if file.suffix == '.pt2' else {}  # it has just been written
        both = answers_of(model, truth), answers(str(file), truth, **own)
        (name, before), (_, after) = (main_metric(each, truth) for each in both)
        if before is None or after is None:
            raise UserError(f'{data}: {name} is not defined there (no labelled object?); nothing was written')
        if int8 and before == 0:
            raise UserError(f'{data}: {name} is 0 before, so it proves nothing; nothing was written')
        if after < before - (_INT8_MAY_COST * before if int8 else TASKS[model.task].may_fall):
            raise UserError(f'{name} falls from {before:.4f} to {after:.4f}; nothing was written')
        return {'metric': name, 'before': before, 'after': after, 'data': data}

    return measure
