# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The rules over the data of a run, before anything is built: seconds on rank 0, one line for all ranks.

A COCO file with gaps that have one meaning is completed in a copy in the work directory, which the run reads instead of
the user's file. What a toolbox would stop at, or learn wrongly, ends the run here; the rest is for the log.

Reading order: run -> COCO files -> label images -> class folders -> the config.
"""

from __future__ import annotations

import functools
import os
import os.path as osp
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mmengine import dist, fileio
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmlightvit.data import check
from mmlightvit.data.audit import Report
from mmlightvit.data.data_root import evaluators, leaf_datasets
from mmlightvit.durable.dataset_traits import is_local, roots
from mmlightvit.durable.images import BadSample, decode, fetch
from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.errors import UserError
from mmlightvit.pictures import coco
from mmlightvit.pictures.read import displayed_size

#: The folder of the work directory that completed files are in.
COMPLETED = 'annotations'

#: Lines in the log of each kind; label images that are read of each split.
_NAMED = 20
_LOOKED_AT = 64


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
    checked = Checked()
    _check_model(cfg)
    for split in splits:
        samples: int | None = 0
        for entry in leaf_datasets(cfg, split):
            _refuse_text_as_classes(entry.key, entry.cfg)
            checks = _checks_of(entry.cfg)
            dataset = _open(entry.cfg, split) if checks else None
            if dataset is None or checks is None or not is_local(dataset):
                samples = None
                continue
            count = checks(cfg, split, entry, dataset, checked)
            samples = None if samples is None else samples + count
            if split == 'train':
                for line in check.class_number_problems(cfg, dataset):
                    raise UserError(line)
        plain = (cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}
        if split == 'train' and samples is not None and not {'dataset', 'datasets'} & set(plain):
            _check_batches(cfg, samples)
    return checked


def _checks_of(dataset: dict) -> Callable[..., int] | None:
    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    for base in getattr(kind, '__mro__', ()):
        if base.__name__ == 'CocoDataset' and base.__module__.startswith('mmdet.datasets'):
            # Children that read files of another form are left to their toolbox.
            same = kind.load_data_list is base.load_data_list and kind.COCOAPI is base.COCOAPI  # type: ignore[union-attr]
            return _check_coco if same else None
        if base.__name__ == 'BaseSegDataset' and base.__module__.startswith('mmseg.datasets'):
            return _check_labels
        if base.__name__ == 'CustomDataset' and base.__module__.startswith('mmpretrain.datasets'):
            return _check_folders
    return None


def _open(settings: dict, split: str) -> Any:
    report = Report()
    dataset = check.open_dataset(settings, split, report)
    if dataset is None:
        raise UserError(report.problems[0])
    return dataset


# COCO files -----------------------------------------------------------------------------------------------------------


def _check_coco(cfg: Config, split: str, entry: Any, dataset: Any, checked: Checked) -> int:
    path, classes = dataset.ann_file, dataset.metainfo['classes']
    try:
        stored = fetch(path)
        content = coco.parse(stored, labelled=split == 'train')
    except ValueError as error:  # BadSample is one
        raise UserError(f'{split}: {path}: {error}') from None
    report = Report()
    check.find_escapes(dataset, content, report)
    measured = [item for item in evaluators(cfg, split) if _reads(item.cfg, path)]
    with_mask = (
        check.loads_masks(entry.cfg.get('pipeline') or ()) if split == 'train' else any(map(_has_masks, measured))
    )
    lines = [*report.refused, *coco.class_problems(content, path, classes)]
    lines += [line] if with_mask and (line := coco.no_masks(content, path)) else []
    if lines:
        raise UserError(f'{split}: {lines[0]}')
    folder = roots(dataset)[0]
    findings = coco.apply(content, lambda item: displayed_size(Path(folder, item['file_name'])), with_mask)
    try:
        coco.refuse([fault for fault in findings.faults if fault.stops], path)
        objects = [fault for fault in findings.faults if fault.kind == 'annotations']
        if split == 'train' and len(objects) == len(content['annotations']):
            coco.refuse(objects, path)
    except UserError as error:
        raise UserError(f'{split}: {error}') from None
    checked.warnings += [f'{split}: {path}: {fault}' for fault in findings.faults]
    before = len(content['annotations'])
    coco.leave_out(content, findings.unusable())
    if split != 'train' and (gone := before - len(content['annotations'])):
        checked.warnings.insert(0, f'{split}: {path}: {gone} objects are left out of what is measured')
    changed = coco.order_categories(content, classes)
    if changed:
        checked.notes.append(f'{split}: {path}: its categories are taken in the order of the config')
    checked.notes += [f'{split}: {path}: {note}' for note in findings.notes()]
    checked.notes += [f'{split}: {line}' for line in check.left_out(dataset, content)]
    if nothing := coco.nothing_to_learn(content, path, classes):
        if split == 'train':
            raise UserError(f'{split}: {nothing}')
        if any(not item.cfg.get('format_only') for item in evaluators(cfg, split)):
            checked.warnings.append(f'{split}: {nothing}: average precision has no meaning then')
    if findings.completed or changed or findings.unusable() or stored.startswith(b'\xef\xbb\xbf'):
        copy = osp.join(COMPLETED, f'{entry.key}.{osp.basename(path)}')
        checked.completed[copy] = coco.text(content).encode()
        checked.notes.append(
            f'{split}: the completed file, which this run reads, is {osp.abspath(osp.join(cfg.work_dir, copy))}'
        )
        checked.files.update({item.key: copy for item in (entry, *measured)})
    return len(content['images']) - check.number_left_out(dataset, content)


def _reads(evaluator: dict, path: str) -> bool:
    file = evaluator.get('ann_file')
    return isinstance(file, str) and osp.normpath(file) == osp.normpath(path)


def _has_masks(evaluator: Any) -> bool:
    return 'segm' in (evaluator.cfg.get('metric') or ())


# Label images ---------------------------------------------------------------------------------------------------------


def _check_labels(cfg: Config, split: str, entry: Any, dataset: Any, checked: Checked) -> int:
    image_folder, label_folder = roots(dataset)
    try:
        infos = dataset.load_data_list()
    except OSError as error:
        raise UserError(f'{split}: {dataset.ann_file or image_folder}: {error}') from None
    if not infos:
        raise UserError(f'{split}: {image_folder}: no image ends in {dataset.img_suffix} (img_suffix)')
    report = Report()
    pairs = [(info['img_path'], info.get('seg_map_path')) for info in infos]
    check.note_other_endings(dataset, image_folder, pairs, report)
    checked.notes += [f'{split}: {note}' for note in report.notes]
    names = list(dataset.METAINFO.get('classes') or dataset.metainfo.get('classes') or ())
    seen = np.zeros(256, bool)
    labels = [label for _, label in pairs if label]
    for label in labels[:: max(1, len(labels) // _LOOKED_AT)]:
        try:
            values = decode(fetch(label), 'unchanged', 'pillow')
        except BadSample:
            continue  # the guard names it
        if values.dtype == np.uint8:
            seen[np.unique(values)] = True
    line = check.binary_problem(dataset, label_folder, names, seen)
    if line:
        raise UserError(f'{split}: {line}')
    return len(infos)


# Class folders --------------------------------------------------------------------------------------------------------


def _check_folders(cfg: Config, split: str, entry: Any, dataset: Any, checked: Checked) -> int:
    folder = roots(dataset)[0]
    if dataset.ann_file or not dataset.with_label or not fileio.isdir(folder):
        return len(dataset.load_data_list()) if dataset.ann_file else 0
    folders = sorted(fileio.list_dir_or_file(folder, list_file=False))
    line = check.folder_problem(dataset, folder, folders)
    if line:
        raise UserError(f'{split}: {line}')
    if split == 'train' and not dataset.metainfo.get('classes'):
        dataset._metainfo['classes'] = tuple(folders)
    files = fileio.list_dir_or_file(folder, list_dir=False, recursive=True)
    return sum(dataset.is_valid_file(name) for name in files)


# The config -----------------------------------------------------------------------------------------------------------


def _refuse_text_as_classes(key: str, dataset: dict) -> None:
    classes = (dataset.get('metainfo') or {}).get('classes')
    if isinstance(classes, str) and not osp.isfile(classes):
        raise UserError(
            f"{key}.metainfo.classes is the text {classes!r}, whose letters would be the classes; write ('{classes}',)"
        )


def _check_model(cfg: Config) -> None:
    model = cfg.get('model') or {}
    for part in ('decode_head', 'auxiliary_head'):
        for head in _several(model.get(part)):
            losses = _several(head.get('loss_decode'))
            if head.get('num_classes') == 1 and losses and not any(loss.get('use_sigmoid') for loss in losses):
                raise UserError(
                    f'model.{part} has one class and a softmax loss, which is 0 whatever it predicts: name the '
                    'background a class too, or set loss_decode.use_sigmoid=True'
                )
    batch = (cfg.get('train_dataloader') or {}).get('batch_size')
    for part in ('decode_head', 'auxiliary_head'):
        for head in _several(model.get(part)):
            norm = (head.get('norm_cfg') or {}).get('type')
            alone = norm == 'BN' or (norm == 'SyncBN' and dist.get_world_size() == 1)
            if batch == 1 and alone and 1 in (head.get('pool_scales') or _pool_scales(head)):
                raise UserError(
                    f'train_dataloader.batch_size is 1, and model.{part} ({head.get("type")}) normalises over the '
                    'batch what it pools to one value each; use a batch size of 2 or more'
                )


def _pool_scales(head: dict) -> tuple[int, ...]:
    return (1, 2, 3, 6) if head.get('type') in ('UPerHead', 'PSPHead') else ()


def _several(value: Any) -> list[dict]:
    return [item for item in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(item, dict)]


def _check_batches(cfg: Config, samples: int) -> None:
    loader = cfg.train_dataloader
    batch = loader.get('batch_size')
    ranks = dist.get_world_size()
    if loader.get('drop_last') and isinstance(batch, int) and -(-samples // ranks) < batch:
        processes = f' for each of {ranks} processes' if ranks > 1 else ''
        raise UserError(
            f'{samples} samples make no batch of {batch}{processes}, and train_dataloader.drop_last=True drops smaller '
            'ones; use a smaller train_dataloader.batch_size'
        )
