# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The number of a validation that decides: there under its name, and defined."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Any

_AVERAGE_PRECISION = re.compile(r'(.*/)?(bbox|segm|proposal)_mAP\w*')


def score_of(metrics: Mapping[str, Any], key: str) -> float:
    """A metric as a number; NaN where it is undefined, as COCO's average precision of no object is, given as -1.

    Raises:
        KeyError: There is no such metric.
    """
    score = float(metrics[key])
    return math.nan if score < 0 and _AVERAGE_PRECISION.fullmatch(key) else score


def absent(metrics: Mapping[str, Any], key: str, setting: str) -> str:
    """What to say of a metric that a setting names and the validation has not."""
    similar = difflib.get_close_matches(key, metrics, 1, 0.5)
    there = f'; nearest: {similar[0]}' if similar else ''
    return f'{setting}={key!r}: the validation has no such metric{there}; it has {", ".join(sorted(metrics))}'
