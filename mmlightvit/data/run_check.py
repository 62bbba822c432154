# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The rules over the labels of a run, before anything is built: seconds on rank 0, one line for all ranks.

A COCO file with gaps that have one meaning is completed in a copy in the work directory, which the run reads instead of
the user's file. What a toolbox would stop at, or learn wrongly, ends the run here; the rest is for the log.
"""

from __future__ import annotations

import functools
import os
import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from mmengine import dist
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmlightvit.data import rules
from mmlightvit.data.data_root import DatasetEntry, evaluators, leaf_datasets
from mmlightvit.data.datasets import open_data_set, reads_as_its_toolbox
from mmlightvit.data.rules import Part, Report
from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.errors import UserError
from mmlightvit.pictures import coco

#: The folder of the work directory that completed files are in.
COMPLETED = 'annotations'

#: Lines in the log of each kind.
_NAMED = 20


@dataclass
class Checked:
    """What the check tells a run.

    Attributes:
        error: The line that ends it.
        warnings: For the log: what will be left out.
        notes: For the log: what was completed, and what may be meant.
        files: The annotation file to read instead, by the key of a data set or evaluator; under the work directory.
        completed: Contents of these files, until all that need one have written it.
    """

    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    completed: dict[str, bytes] = field(default_factory=dict)

    def log(self, logger: Any) -> None:
        """Write the lines into a run's log."""
        for write, lines in ((logger.warning, self.warnings), (logger.info, self.notes)):
            for line in lines[:_NAMED]:
                write(f'data: {line}')
            if len(lines) > _NAMED:
                write(f'data: and {len(lines) - _NAMED} more lines of this kind; mmlightvit check lists all')


def check_run(cfg: Config, splits: Sequence[str]) -> Checked:
    """Check the data of a run on rank 0, and let the config of every rank read the completed files.

    Args:
        cfg: Of the run, with ``work_dir``; its toolbox is imported. Changed in place.
        splits: ``train`` and ``val``, or ``test``.

    Raises:
        UserError: The same on every rank: why the data cannot be used.
    """
    found = [Checked()]
    if dist.is_main_process():
        try:
            found = [_check(cfg, splits)]
        except UserError as error:
            found = [Checked(error=str(error))]
    contents = found[0].completed
    found[0].completed = {}  # large; sent on only where a node has a work directory of its own
    dist.broadcast_object_list(found)
    [checked] = found
    if checked.error:
        raise UserError(checked.error)
    _write(contents, checked, cfg.work_dir)
    checked.files = {key: osp.abspath(osp.join(cfg.work_dir, name)) for key, name in checked.files.items()}
    for split in splits:
        for entry in (*leaf_datasets(cfg, split), *evaluators(cfg, split)):
            if entry.key in checked.files:
                entry.cfg['ann_file'] = checked.files[entry.key]
    guard = (cfg.get('default_hooks') or {}).get('data_guard')
    if guard and 'train' in splits:
        guard['annotation_check'] = None  # done
    return checked


def _write(contents: dict[str, bytes], checked: Checked, work_dir: str) -> None:
    """Write the completed files: rank 0, and the first process of each node that does not see them then."""
    if not checked.files:
        return
    _write_all(contents, work_dir)
    dist.barrier()
    names = set(checked.files.values())
    lacks = not all(osp.isfile(osp.join(work_dir, name)) for name in names)
    if any(dist.all_gather_object(lacks)):
        sent = [contents]
        dist.broadcast_object_list(sent)
        if lacks and int(os.environ.get('LOCAL_RANK', '0')) == 0:
            _write_all(sent[0], work_dir)
        dist.barrier()


def _write_all(contents: dict[str, bytes], work_dir: str) -> None:
    for name, content in contents.items():
        path = osp.join(work_dir, name)
        os.makedirs(osp.dirname(path), exist_ok=True)
        atomic_write(path, functools.partial(_put, content))


def _put(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _check(cfg: Config, splits: Sequence[str]) -> Checked:
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    checked, report = Checked(), Report()
    rules.check_model(cfg, report)
    _end_if_refused(report)
    for split in splits:
        entries = list(leaf_datasets(cfg, split))
        samples = [_check_data_set(cfg, split, entry, report, checked) for entry in entries]
        plain = not {'dataset', 'datasets'} & set((cfg.get(f'{split}_dataloader') or {}).get('dataset') or {})
        if split == 'train' and plain and samples and None not in samples:
            rules.check_batches(cfg, sum(filter(None, samples)), report)
        _end_if_refused(report)
    checked.warnings = [*report.warnings, *report.problems]
    checked.notes = [*report.notes, *checked.notes]
    return checked


def _end_if_refused(report: Report) -> None:
    if report.refused:
        raise UserError(report.refused[0])


def _check_data_set(cfg: Config, split: str, entry: DatasetEntry, report: Report, checked: Checked) -> int | None:
    """Hold the rules over the labels of a data set; the number of its samples, None where its files are left alone."""
    data = open_data_set(entry, split, cfg) if reads_as_its_toolbox(entry.cfg) else None
    if data is None or not data.is_local:
        return None
    measured = [item for item in data.evaluators if _reads(item.cfg, data.file)]
    part = Part(data, with_mask=data.loads_masks if split == 'train' else any(map(_has_masks, measured)))
    part.measured = any(not item.cfg.get('format_only') for item in data.evaluators)
    rules.read_labels(part)
    samples = rules.check_labels(part)
    if split == 'train':
        rules.check_fit(cfg, data, part.report)
    report.add(split, part.report)
    _end_if_refused(report)
    if part.content is not None and part.findings is not None:
        changed = coco.order_categories(part.content, data.classes)
        had_mark = part.stored.startswith(b'\xef\xbb\xbf')
        if part.findings.completed or changed or part.findings.unusable() or had_mark:
            copy = osp.join(COMPLETED, f'{data.key}.{osp.basename(data.file)}')
            checked.completed[copy] = coco.text(part.content).encode()
            path = osp.abspath(osp.join(cfg.work_dir, copy))
            checked.notes.append(f'{split}: the completed file, which this run reads, is {path}')
            checked.files.update(dict.fromkeys((data.key, *(item.key for item in measured)), copy))
    return samples


def _reads(evaluator: dict, path: str) -> bool:
    file = evaluator.get('ann_file')
    return isinstance(file, str) and osp.normpath(file) == osp.normpath(path)


def _has_masks(evaluator: Any) -> bool:
    return 'segm' in (evaluator.cfg.get('metric') or ())
