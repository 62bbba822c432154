# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Whether one of two models is better, or the set too small to tell: a paired bootstrap of the pictures."""

from __future__ import annotations

from typing import NamedTuple

from mmlightvit.errors import UserError
from mmlightvit.evaluation.matches import FEWEST, interval
from mmlightvit.evaluation.measure import Measured, sampled
from mmlightvit.tasks import TASKS

BETTER, WORSE, SAME, UNKNOWN = 'better', 'worse', 'the same', 'too small to tell'


class Difference(NamedTuple):
    """One number of two models.

    Attributes:
        kind, name: As in :class:`Measured`.
        first, second: Its values.
        low, high: 95 % interval of ``second - first``; None where there are too few pictures.
        verdict: Of the second: ``'better'``, ``'worse'``, ``'the same'`` or ``'too small to tell'``.
    """

    kind: str
    name: str
    first: float
    second: float
    low: float | None
    high: float | None
    verdict: str


def differences(first: Measured, second: Measured) -> list[Difference]:
    """The second model against the first, number by number; those that one of them lacks are left out.

    Raises:
        UserError: They were not measured on the same pictures, or have no number in common.
    """
    if first.pictures != second.pictures:
        raise UserError(
            f'the models were asked about different pictures ({len(first.pictures)} and {len(second.pictures)}): '
            'predict the same set with both'
        )
    draws_of_first, draws_of_second = sampled(first), sampled(second)
    out = []
    for kind in first.values.keys() & second.values.keys():
        for name, a in first.values[kind].items():
            b = second.values[kind][name]
            if a is None or b is None or name not in draws_of_first[kind]:
                continue
            gained = draws_of_second[kind][name] - draws_of_first[kind][name]
            bounds = interval(b - a, gained, len(first.pictures))
            low, high = bounds if bounds is not None else (None, None)
            out.append(Difference(kind, name, a, b, low, high, _verdict(a, b, bounds)))
    if not out:
        raise UserError('the models have no number in common: are they for the same task?')
    return out


def _verdict(first: float, second: float, bounds: tuple[float, float] | None) -> str:
    if bounds is None:
        return UNKNOWN
    low, high = bounds
    if first == second and low == high:
        return SAME
    return BETTER if low > 0 else WORSE if high < 0 else UNKNOWN


def conclusion(rows: list[Difference], task: str, first: str, second: str, pictures: int) -> str:
    """One sentence about the number that decides.

    Args:
        rows: Of :func:`differences`.
        task: The task of both.
        first, second: Names of the models.
        pictures: In the set.
    """
    kind, name = TASKS[task].metric
    main = next((d for d in rows if (d.kind, d.name) == (kind, name)), rows[0])
    gain = f'{main.second - main.first:+.3f} {main.name}'
    if main.low is None:
        return f'{pictures} pictures are too few to tell: {gain}; at least {FEWEST} are needed for an interval'
    gain += f' [{main.low:+.3f}, {main.high:+.3f}]'
    if main.verdict == SAME:
        return f'{first} and {second} are the same here'
    if main.verdict == UNKNOWN:
        return f'too small to tell on {pictures} pictures whether {second} is better than {first}: {gain}'
    return f'{second} is {main.verdict} than {first}: {gain}'
