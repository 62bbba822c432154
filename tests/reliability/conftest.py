# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The full reliability runs take minutes: ``make test-reliability`` asks for them with ``-m``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests of this folder unless a ``-m`` expression chooses."""
    if config.option.markexpr:
        return
    slow = [item for item in items if FOLDER in item.path.parents and item.get_closest_marker('slow')]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(scope='session')
def report(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Collects figures and prints them after the tests."""
    figures: dict[str, Any] = {}
    yield figures.update
    if figures:
        with request.config.pluginmanager.getplugin('capturemanager').global_and_fixture_disabled():
            print('\nfigures: ' + json.dumps(figures, indent=2))
