# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Steps timed in turns: their order, what counts, and the interval of a ratio."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mmlightvit.cost.timing import bootstrap_interval, take_turns, time_of
from mmlightvit.errors import UserError


def test_steps_take_turns_in_both_directions():
    order, lines = [], []
    laps = take_turns({name: lambda name=name: order.append(name) for name in 'abc'}, 4, progress=lines.append)
    assert ''.join(order) == 'abc' + 'abccbaabccba'  # the first of each is not timed
    assert [len(laps[name]) for name in 'abc'] == [4, 4, 4]
    assert lines == [f'round {turn} of 4' for turn in (1, 2, 3, 4)]


def test_a_step_is_repeated_for_about_so_long():
    calls = []
    (laps,) = take_turns({'a': lambda: calls.append(time.sleep(0.02))}, 1, seconds=0.2).values()
    assert 3 <= len(calls) - 2 <= 10  # one that is not timed, one that says how often
    assert 0.02 <= laps[0].wall < 0.1, 'the time of one'


def test_waiting_takes_no_processor_time_and_sync_is_waited_for():
    lap = time_of(lambda: None, sync=lambda: time.sleep(0.1))
    assert lap.wall >= 0.1 and lap.processor < 0.05


def test_no_round_is_refused():
    with pytest.raises(UserError, match='rounds: expected at least 1, got 0'):
        take_turns({}, 0)


def test_interval_of_the_median():
    sample = np.random.default_rng(1).normal(2.0, 0.1, 400)
    low, high = bootstrap_interval(sample)
    # The median of a normal sample has a standard error of 1.2533 sigma / sqrt(n).
    assert (high - low) / (2 * 1.96) == pytest.approx(1.2533 * 0.1 / 20, rel=0.25)
    assert low < 2.0 < high
    assert bootstrap_interval([3.0]) == (3.0, 3.0)
