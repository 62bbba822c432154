# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The programs that ``--log`` names, the packages that each needs, and what ``pip install`` takes for them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

#: ``{name: (packages, distributions)}``; :mod:`mmlightvit.durable.trackers` sets up MMEngine's backend for each.
PROGRAMS: Mapping[str, tuple[tuple[str, ...], str]] = MappingProxyType(
    {
        'tensorboard': (('tensorboard',), 'tensorboard'),
        'mlflow': (('mlflow', 'sqlalchemy', 'alembic'), 'mlflow-skinny sqlalchemy alembic'),
        'wandb': (('wandb',), 'wandb'),
        'clearml': (('clearml',), 'clearml'),
        'dvclive': (('dvclive',), 'dvclive'),
        'aim': (('aim',), 'aim'),
    }
)
