# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``--cfg-options``: changing settings of a config."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.config import Config, DictAction


def change(cfg: Config, options: Mapping[str, str]) -> None:
    """Apply ``--cfg-options`` to a config."""
    cfg.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in options.items()})
