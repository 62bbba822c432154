# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The threshold of the highest F1, against trying every score."""

from __future__ import annotations

import numpy as np
import pytest

from mmlightvit.evaluation import thresholds
from mmlightvit.evaluation.matches import IGNORED, MISTAKE, RIGHT, Matches
from mmlightvit.evaluation.thresholds import choose, curve, curves


def f1_by_counting(score, right, objects: int, threshold: float) -> float:
    shown = score >= threshold
    hits = (right & shown).sum()
    return 2 * hits / (shown.sum() + objects)


@pytest.mark.parametrize('seed', range(5))
def test_best_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    score = rng.random(200).round(2)  # ties
    right = rng.random(200) < score
    found = curve(score, right, 150)
    every = {t: f1_by_counting(score, right, 150, t) for t in np.unique(score)}
    assert found.f1.max() == pytest.approx(max(every.values()))
    best = max(t for t, f1 in every.items() if f1 == max(every.values()))  # of equal ones the highest
    assert found.best() == pytest.approx(best, abs=1e-5)
    assert found.at(found.best())['f1'] == pytest.approx(max(every.values()))
    for threshold in (0.0, 0.333, 0.5, 1.0):
        assert found.at(threshold)['f1'] == pytest.approx(f1_by_counting(score, right, 150, threshold))


def test_the_chosen_detection_itself_is_shown():
    score = np.array([np.float32(0.87654321), np.float32(0.3)], float)
    assert curve(score, np.array([True, False]), 1).best() <= score[0]


def matches(score, label, status, objects) -> Matches:
    image = np.zeros(len(score), np.int64)
    found = np.array([status], np.int8)
    return Matches.sort(image, np.array(label, np.int64), np.array(score, float), found, np.array([objects]))


def test_a_rare_class_takes_the_common_threshold():
    score = [*np.linspace(0.9, 0.5, 20), 0.45, 0.44, 0.43, 0.42, 0.41, 0.2]
    label = [0] * 20 + [1] * 6
    status = [RIGHT] * 20 + [MISTAKE] * 5 + [RIGHT]
    each, together = curves(matches(score, label, status, [20, 19]), 0)
    chosen = choose(each, together, [20, 19])
    assert chosen.own == [True, False]
    assert chosen.per_class[0] == pytest.approx(0.5, abs=1e-5)
    assert chosen.per_class[1] == chosen.common == pytest.approx(0.5, abs=1e-5)
    assert choose(each, together, [20, 20]).per_class[1] == pytest.approx(0.2, abs=1e-5)


def test_ignored_detections_do_not_count():
    each, _ = curves(matches([0.9, 0.8, 0.7], [0, 0, 0], [IGNORED, RIGHT, RIGHT], [2]), 0)
    assert each[0].f1.max() == 1


def test_nothing_found_leaves_the_default():
    each, together = curves(matches([], [], [], [30, 0]), 0)
    chosen = choose(each, together, [30, 0])
    assert chosen.per_class == [thresholds.DEFAULT_THRESHOLD] * 2
    assert each[0].at(0.5) == dict(precision=0.0, recall=0.0, f1=0.0)
