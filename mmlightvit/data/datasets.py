# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The data sets of a config, opened with nothing read: what the rules need of a toolbox's data set, as plain fields."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmlightvit.data.data_root import DatasetEntry, evaluators
from mmlightvit.durable.dataset_traits import is_local, roots
from mmlightvit.durable.images import MAX_PIXELS
from mmlightvit.errors import UserError
from mmlightvit.pictures.read import displayed_size

COCO, LABEL_MAPS, CLASSES, OTHER = 'COCO file', 'label maps', 'classes', 'other'
_KINDS = {
    'CocoDataset': ('mmdet.datasets', COCO),
    'BaseSegDataset': ('mmseg.datasets', LABEL_MAPS),
    'CustomDataset': ('mmpretrain.datasets', CLASSES),
}


@dataclass
class DataSet:
    """A data set.

    Attributes:
        built: The toolbox's.
        split: ``train``, ``val`` or ``test``.
        key: What ``--cfg-options`` calls it.
        settings: Of the config.
        max_pixels: Height x width that an image may have.
        evaluators: The metrics of its split.
        kind: ``COCO``, ``LABEL_MAPS``, ``CLASSES`` or ``OTHER``.
        file: Its annotation file; empty where it has none.
        images, labels: Folders; empty where the config gives none.
        classes: Those of the config; of class folders, after the rules, the names of the folders.
        own_classes: Those of the kind of data set, of which a config may take some.
        backend_args: Where its files lie, as MMEngine says it.
        is_local: Its files lie on a disk.
        learns: It is trained on.
        filter: ``filter_cfg``, where it holds.
    """

    built: Any
    split: str
    key: str = ''
    settings: dict = field(default_factory=dict)
    max_pixels: int = MAX_PIXELS
    evaluators: list[DatasetEntry] = field(default_factory=list)

    def __post_init__(self) -> None:
        built = self.built
        self.kind = _kind_of(type(built))[0]
        self.file: str = getattr(built, 'ann_file', None) or ''
        self.images, self.labels = roots(built)
        self.classes = list(built.metainfo.get('classes') or ())
        self.own_classes = list(getattr(built, 'METAINFO', {}).get('classes') or ())
        self.backend_args = getattr(built, 'backend_args', None)
        self.is_local = is_local(built)
        self.learns = self.split == 'train'
        self.filter: dict = (None if built.test_mode else getattr(built, 'filter_cfg', None)) or {}

    def size_of(self, item: dict) -> tuple[int, int] | None:
        """(height, width) of the picture of a COCO file's entry, by the picture's header."""
        return displayed_size(Path(self.images, item['file_name']))

    @property
    def loads_masks(self) -> bool:
        """Whether its pipeline loads masks."""
        return _loads_masks(self.settings.get('pipeline') or ())

    def same_data(self) -> str:
        """Equal for data sets that read the same."""
        return repr((type(self.built), self.file, self.built.data_prefix, self.built.metainfo.get('classes')))


def open_data_set(entry: DatasetEntry, split: str, cfg: Config) -> DataSet:
    """A data set of a config, with nothing read; see :func:`kind_of` for those that are better left alone.

    Args:
        entry: Its key and settings.
        split: ``train``, ``val`` or ``test``.
        cfg: The config; its toolbox is imported.

    Raises:
        UserError: It cannot be set up.
    """
    limit = ((cfg.get('default_hooks') or {}).get('data_guard') or {}).get('max_pixels', MAX_PIXELS)
    classes = (entry.cfg.get('metainfo') or {}).get('classes')
    if isinstance(classes, str) and not os.path.isfile(classes):
        raise UserError(
            f'{entry.key}.metainfo.classes is the text {classes!r}, whose letters would be the classes; '
            f"write ('{classes}',)"
        )
    try:
        built: Any = DATASETS.build({**entry.cfg, 'pipeline': [], 'lazy_init': True})
    except (AssertionError, ValueError, TypeError, KeyError, OSError) as error:
        kind = entry.cfg.get('type')
        raise UserError(f'{split}: {kind} cannot be set up: {" ".join(str(error).split())}') from None
    return DataSet(built, split, entry.key, entry.cfg, limit, list(evaluators(cfg, split)))


def reads_as_its_toolbox(settings: dict) -> bool:
    """Whether a data set is of a known kind and reads its files by its toolbox's own code."""
    kind = settings.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    return _kind_of(kind)[1]


def _kind_of(kind: Any) -> tuple[str, bool]:
    """The kind of a class of data sets, and whether it reads its files as the toolbox does."""
    for base in getattr(kind, '__mro__', ()):
        module, name = _KINDS.get(base.__name__, ('', OTHER))
        if module and base.__module__.startswith(module):
            is_plain = name != COCO or (kind.load_data_list is base.load_data_list and kind.COCOAPI is base.COCOAPI)
            return name, is_plain
    return OTHER, False


def _loads_masks(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value.get('with_mask')) or any(_loads_masks(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(_loads_masks(item) for item in value)
