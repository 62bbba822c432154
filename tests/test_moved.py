# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Modules under their former names."""

from __future__ import annotations

import importlib
import sys
import warnings

import pytest

from mmlightvit.moved import MOVED


@pytest.fixture(autouse=True)
def _imported_afresh(monkeypatch):
    for name in MOVED:
        monkeypatch.delitem(sys.modules, f'mmlightvit.{name}', raising=False)


@pytest.mark.parametrize('old', MOVED)
def test_an_old_name_is_the_same_module_and_warns(old):
    pytest.importorskip('torch')
    pytest.importorskip('mmcv')
    with warnings.catch_warnings(record=True) as caught:  # by an old name of the room too
        warnings.simplefilter('always')
        module = importlib.import_module(f'mmlightvit.{old}')
    assert str(caught[-1].message) == f'mmlightvit.{old} is mmlightvit.{MOVED[old]} now'
    assert caught[-1].category is DeprecationWarning
    assert module is importlib.import_module(f'mmlightvit.{MOVED[old]}')
    assert module.__name__ == module.__spec__.name == f'mmlightvit.{MOVED[old]}'


def test_names_of_the_reference():
    with pytest.warns(DeprecationWarning):
        from mmlightvit.inference.masks import Masks
        from mmlightvit.inference.model_info import ModelInfo
    assert (Masks.__module__, ModelInfo.__module__) == ('mmlightvit.pictures.masks', 'mmlightvit.model_folder.info')
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('mmlightvit.inference.nothing')
