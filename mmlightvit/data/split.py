# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Dividing pictures into splits and folds: classes in equal shares, groups and near-duplicates together."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmlightvit.data.probe import Probe, duplicates
from mmlightvit.errors import UserError
from mmlightvit.pictures.objects import Picture

#: From this share of a picture's pixels on, a class of a label map counts as being in it.
_MIN_SHARE = 0.01


def groups(pictures: Sequence[Picture], probes: dict[Path, Probe], pattern: str | None) -> list[int]:
    """A number for each picture; pictures of one number stay together.

    Args:
        pictures: All of them.
        probes: Of all of them.
        pattern: A regular expression with a group (camera, patient, video), searched in the path.

    Raises:
        UserError: The pattern is none, has no group, or matches no picture.
    """
    number = np.arange(len(pictures))

    def join(places: np.ndarray) -> None:
        """Give all groups of these pictures one number."""
        found = np.unique(number[places])
        if len(found) > 1:
            number[np.isin(number, found)] = found[0]

    if pattern:
        keys = np.array(_keys(pictures, pattern))
        for key in set(keys) - {''}:
            join(np.flatnonzero(keys == key))
    for first, near, _ in duplicates([probes[picture.path] for picture in pictures]):
        join(np.append(near, first))
    return number.tolist()


def _keys(pictures: Sequence[Picture], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f'--group-by {pattern!r} is no regular expression: {error}') from None
    if not compiled.groups:
        raise UserError(f'--group-by {pattern!r} has no group; put what names the group in brackets: (cam\\d+)_')
    found = [compiled.search(picture.path.as_posix()) for picture in pictures]
    if not any(found):
        raise UserError(f'--group-by {pattern!r} matches no picture, such as {pictures[0].path}')
    return [(match[1] or '') if match else '' for match in found]


def classes_of(picture: Picture, classes: Sequence[str]) -> set[str]:
    """The classes of a picture; those of a label map from a hundredth of its pixels on."""
    if picture.label_map:
        with Image.open(picture.label_map) as image:
            shares = np.asarray(image.histogram()[: len(classes)]) / (image.width * image.height)
        return {name for name, share in zip(classes, shares) if share >= _MIN_SHARE}
    named = {item.label for item in picture.objects}
    return named | {picture.label} if picture.label is not None else named


def strata(present: Sequence[set[str]]) -> list[str]:
    """The rarest class of each picture; the empty name for none."""
    often = Counter(name for names in present for name in names)
    return [min(names, key=lambda name: (often[name], name)) if names else '' for names in present]


def folds(stratum: Sequence[str], group: Sequence[int], count: int, seed: int) -> list[np.ndarray]:
    """Places of the pictures of each fold.

    Raises:
        UserError: scikit-learn is not installed, or there are fewer groups than folds.
    """
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError:
        raise UserError('splitting needs scikit-learn: pip install "mmlightvit[data]"') from None
    number = len(set(group))
    if number < count:
        raise UserError(f'{len(group)} pictures in {number} groups cannot be divided into {count}')
    if max(Counter(stratum).values()) < count:  # no class fills all folds: nothing to keep in equal shares
        stratum = [''] * len(group)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'The least populated class', UserWarning)
        return [test for _, test in splitter.split(np.zeros(len(group)), stratum, group)]


def divide(present: Sequence[set[str]], group: Sequence[int], val: float, test: float, seed: int) -> list[str]:
    """The split of each picture.

    Args:
        present: The classes of each picture.
        group: As :func:`groups` gives it.
        val: Share of the pictures for ``val``; 0 for none.
        test: Likewise for ``test``.
        seed: Of the division.
    """
    names = ['train'] * len(group)
    left = list(range(len(group)))
    for split, share in (('test', test), ('val', val / (1 - test))):
        number = len({group[place] for place in left})
        if share <= 0 or number < 2:
            continue
        count = min(max(2, round(1 / share)), number)
        first = folds(strata([present[place] for place in left]), [group[place] for place in left], count, seed)[0]
        for place in first:
            names[left[place]] = split
        left = [place for place in left if names[place] == 'train']
    return names


def shares(text: str) -> tuple[float, float]:
    """The shares of val and test from ``0.8,0.2`` or ``0.8,0.1,0.1``, train first.

    Raises:
        UserError: They are no such shares.
    """
    try:
        values = [float(word) for word in text.split(',')]
    except ValueError:
        values = []
    if not 1 <= len(values) <= 3 or min(values) < 0 or values[0] <= 0 or abs(sum(values) - 1) > 1e-6:
        raise UserError(f'--split {text}: expected shares of train, val and, if wanted, test that add up to 1: 0.8,0.2')
    return (values + [0.0, 0.0])[1], (values + [0.0, 0.0])[2]


def absences(pictures: Sequence[Picture], present: Sequence[set[str]], classes: Sequence[str]) -> list[str]:
    """A note for each split that lacks a class which another has."""
    per_split: dict[str, set[str]] = {}
    for picture, names in zip(pictures, present):
        per_split.setdefault(picture.split or 'train', set()).update(names)
    everywhere = set().union(*per_split.values()) if per_split else set()
    return [
        f'{split} has no picture of {", ".join(missing)}'
        for split, names in per_split.items()
        if (missing := [name for name in classes if name in everywhere - names])
    ]
