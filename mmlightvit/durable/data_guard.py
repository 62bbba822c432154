# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A guard over the data of a run: bad files are named once, counted, replaced in a way that repeats, and bounded.

The hook wraps the loaders of the data sets that the runner has built, so a config keeps its form and every override of
a data set or a pipeline works as without it. What a sample turned out to be is one byte in memory shared by the worker
processes; the process that trains reads these bytes now and then, agrees on them with the other ranks, and logs.

Reading order: errors -> loaders -> guard of one data set -> hook.
"""

from __future__ import annotations

import math
import os
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image

from mmlightvit.durable.dataset_traits import innermost, is_a, is_local, roots
from mmlightvit.durable.images import MAX_PIXELS, BadSample, decode, escapes, fetch, read_header
from mmlightvit.errors import UserError, listed
from mmlightvit.registry import HOOKS

_GOOD, _REPAIRED, _BAD = 0, 1, 2
#: Names in one message; the log has them all.
_NAMED = 20
#: Sizes of the black image that stands in where no annotation says the size.
_STAND_IN = (224, 224)


class BadDataError(UserError):
    """The data cannot be used as they are.

    A worker process's error reaches the main process as the text of its traceback; this one keeps its last line, which
    is the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rsplit(f'{type(self).__name__}: ', 1)[-1].strip())


def _several(items: list, name: Callable[[Any], str] = str) -> str:
    return listed(map(name, items), _NAMED, '; ')


class _ImageLoader:
    """mmcv's image loader, with the header read before the pixels and the size held against the annotation's."""

    def __init__(self, loader: Any, guard: DatasetGuard) -> None:
        self.loader = loader
        self.guard = guard

    def __repr__(self) -> str:
        return f'guarded {self.loader!r}'

    def __call__(self, results: dict) -> dict:
        notes: list[str] = []
        try:
            image = self._read(results, notes)
        except BadSample as error:
            if not self.guard.stands_in:
                raise
            image = np.zeros((*(self._expected(results) or _STAND_IN), 3), np.uint8)
            notes.append(f'{error}; a black image stands in')
        if self.loader.to_float32:
            image = image.astype(np.float32)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        self.guard.note(results, notes)
        return results

    def _expected(self, results: dict) -> tuple[int, int] | None:
        """(H, W) as annotated: in a COCO file, or as the size of the label image."""
        if 'height' in results and 'width' in results:
            return int(results['height']), int(results['width'])
        if results.get('seg_map_path'):
            return read_header(fetch(results['seg_map_path'], self.loader.backend_args), self.guard.max_pixels).size
        return None

    def _read(self, results: dict, notes: list[str]) -> np.ndarray:
        path = results['img_path']
        self.guard.refuse_escaping(path, self.guard.image_root)
        content = fetch(path, self.loader.backend_args)
        stored = read_header(content, self.guard.max_pixels).size
        flag, backend = self.loader.color_type, self.loader.imdecode_backend
        image = decode(content, flag, backend)
        if image.shape[:2] == stored and 'height' not in results:
            return image  # label images are held against the image by the loader of annotations
        expected = self._expected(results)
        if expected is None or image.shape[:2] == expected:
            return image
        if stored == expected:
            notes.append('it was annotated as stored, so its EXIF orientation is not applied')
            return decode(content, f'{flag}_ignore_orientation', backend)
        raise BadSample(
            f'it is {image.shape[1]} x {image.shape[0]} pixels, but its annotation says {expected[1]} x {expected[0]}'
        )


class _AnnotationLoader:
    """A toolbox's loader of annotations; objects that it cannot use are left out, mmseg's label images are checked.

    mmdet's are not: panoptic ones are colours, and stuff maps hold more classes than the data set names things.
    """

    def __init__(self, loader: Any, guard: DatasetGuard) -> None:
        self.loader = loader
        self.guard = guard

    def __repr__(self) -> str:
        return f'guarded {self.loader!r}'

    def __call__(self, results: dict) -> dict:
        notes: list[str] = []
        if results.get('instances'):
            self._leave_out(results, notes)
        labels = results.get('seg_map_path') if self.loader.with_seg else None
        if labels:
            self.guard.refuse_escaping(labels, self.guard.label_root)
        checked = labels if self.guard.has_label_images else None
        if checked:
            self._check_label_file(checked)
        try:
            results = self.loader(results)
        except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AssertionError) as error:
            raise BadSample(
                f'its annotation cannot be used: {type(error).__name__}: {" ".join(str(error).split())}'
            ) from error
        if checked:
            self._check_labels(results)
        if getattr(self.loader, 'with_mask', False) and len(results['gt_masks']):
            empty = (results['gt_masks'].areas == 0) & ~results['gt_ignore_flags']
            if empty.any():
                results['gt_ignore_flags'] = results['gt_ignore_flags'] | empty
                notes.append(f'{int(empty.sum())} of its masks have no area and are ignored')
        self.guard.note(results, notes)
        return results

    def _leave_out(self, results: dict, notes: list[str]) -> None:
        height, width = results['ori_shape']
        with_mask = getattr(self.loader, 'with_mask', False)
        kept = []
        for instance in results['instances']:
            mask = instance.get('mask')
            if not all(math.isfinite(value) for value in instance['bbox']):
                notes.append('an object whose box is not finite is left out')
            elif with_mask and not mask:
                notes.append('an object without a mask is left out')
            elif with_mask and isinstance(mask, dict) and list(mask.get('size', ())) != [height, width]:
                notes.append(f'an object whose mask is not {width} x {height} pixels is left out')
            else:
                kept.append(instance)
        results['instances'] = kept

    def _check_label_file(self, path: str) -> None:
        name = os.path.basename(path)
        try:
            mode = read_header(fetch(path, self.loader.backend_args), self.guard.max_pixels).mode
        except BadSample as error:
            raise BadSample(f'its label image {name}: {error}') from error
        if mode not in ('L', 'P', '1'):
            raise BadSample(f'its label image {name} has mode {mode}, expected 8-bit class indices (L or P)')

    def _check_labels(self, results: dict) -> None:
        labels = results['gt_seg_map']
        if labels.shape != tuple(results['ori_shape']):
            raise BadSample(
                f'its label image is {labels.shape[1]} x {labels.shape[0]} pixels, '
                f'the image {results["ori_shape"][1]} x {results["ori_shape"][0]}'
            )
        classes = self.guard.num_classes
        if classes and labels.size:
            outside = (labels >= classes) & (labels != self.guard.ignore_index)
            if outside.any():
                raise BadSample(
                    f'its label image holds the value {labels[outside].min()} (after zero-label reduction, if any), '
                    f'expected 0 to {classes - 1} or {self.guard.ignore_index}'
                )


class DatasetGuard:
    """Watches one data set that reads files; takes the place of its ``prepare_data``.

    Args:
        dataset: A data set of mmengine's kind.
        split: ``'train'``, ``'val'`` or ``'test'``; a bad file of the last two is an error.
        max_bad_share: Bad samples that a training set may hold, as a share of its length.
        max_pixels: Pixels that an image may have.
        stands_in: In testing, a black image takes the place of a bad one instead of an error.
    """

    def __init__(self, dataset: Any, split: str, max_bad_share: float, max_pixels: int, stands_in: bool) -> None:
        self.dataset = dataset
        self.split = split
        self.max_bad_share = max_bad_share
        self.max_pixels = max_pixels
        self.testing = split != 'train'
        self.stands_in = self.testing and stands_in
        self.image_root, self.label_root = roots(dataset)
        self.num_classes = len(dataset.metainfo.get('classes') or ())
        self.ignore_index = getattr(dataset, 'ignore_index', 255)
        self.has_label_images = is_a(dataset, 'mmseg.datasets', 'BaseSegDataset')
        #: One byte per sample, shared with the worker processes.
        self.states = torch.zeros(len(dataset), dtype=torch.uint8).share_memory_()
        self.logged = torch.zeros_like(self.states)
        self._wrapped: Any = None
        dataset.prepare_data = self.prepare_data

    def wrap(self) -> None:
        """Wrap the pipeline's loaders. A pipeline that another hook has replaced is wrapped on its next use."""
        from mmcv.transforms import LoadAnnotations, LoadImageFromFile

        pipeline = self.dataset.pipeline
        if pipeline is self._wrapped:
            return
        for place, transform in enumerate(pipeline.transforms):
            # Loaders with a `transform` of their own, of arrays or of other formats, are left alone.
            if getattr(type(transform), 'transform', None) is LoadImageFromFile.transform:
                pipeline.transforms[place] = _ImageLoader(transform, self)
            elif isinstance(transform, LoadAnnotations):
                pipeline.transforms[place] = _AnnotationLoader(transform, self)
        self._wrapped = pipeline

    def prepare_data(self, idx: int) -> Any:
        """The sample at ``idx``; in training the next good one in its place, which depends on nothing else."""
        import cv2

        self.wrap()
        total = len(self.dataset)
        for index in ((idx + step) % total for step in range(total)):
            # A known bad one is tried again: what it draws of the random numbers is part of what the next one gets.
            try:
                return type(self.dataset).prepare_data(self.dataset, index)
            except (BadSample, cv2.error) as error:  # OpenCV's, where a shape is too odd to be transformed
                if self.testing:
                    raise BadDataError(f'{self.split} data: {self.name(index)}: {error}') from error
                self.states[index] = _BAD
            self.stop_if_too_many()
        raise BadDataError(f'{self.split} data: not one of the {total} samples can be used')

    def name(self, index: int) -> str:
        return str(self.dataset.get_data_info(index).get('img_path', f'sample {index}'))

    def note(self, results: dict, notes: list[str]) -> None:
        """Remember that a sample was repaired; ``describe`` makes the notes again."""
        if notes:
            results.setdefault('guard_notes', []).extend(notes)
            index = results['sample_idx']
            self.states[index] = max(int(self.states[index]), _REPAIRED)

    def describe(self, index: int) -> str:
        """File and reason of a sample that is not good, in one line."""
        self.wrap()
        results = self.dataset.get_data_info(index)
        name = results.get('img_path', f'sample {index}')
        try:
            for transform in self.dataset.pipeline.transforms:
                if isinstance(transform, (_ImageLoader, _AnnotationLoader)):
                    results = transform(results)
        except BadSample as error:
            return f'{name}: {error}'
        notes = results.get('guard_notes') or ['it could not be read or transformed at first, and can be read now']
        return f'{name}: {", ".join(dict.fromkeys(notes))}'

    def refuse_escaping(self, path: str, root: str) -> None:
        if escapes(path, root):
            raise BadDataError(
                f'{self.split} data: the annotation names {path}, which is outside of {root}; '
                'correct the annotation, or set data_prefix to the folder that holds all the images'
            )

    def of_state(self, state: int) -> list[int]:
        return (self.states == state).nonzero().flatten().tolist()

    def stop_if_too_many(self) -> None:
        bad = int((self.states == _BAD).sum())
        if bad > self.max_bad_share * len(self.dataset):
            raise BadDataError(
                f'{self.split} data: {bad} of {len(self.dataset)} samples are bad, more than '
                f'max_bad_share={self.max_bad_share:g} allows: {_several(self.of_state(_BAD), self.describe)}. '
                'mmlightvit check CONFIG lists every problem'
            )

    def refuse_missing(self) -> None:
        """Look for every file of a test set before an hour is spent on the first ones."""
        missing = []
        for index in range(len(self.dataset)):
            info = self.dataset.get_data_info(index)
            for path, root in ((info.get('img_path'), self.image_root), (info.get('seg_map_path'), self.label_root)):
                if isinstance(path, str):
                    self.refuse_escaping(path, root)
                    if not os.path.isfile(path) or not os.path.getsize(path):
                        missing.append(path)
        if missing:
            raise BadDataError(
                f'{self.split} data: {len(missing)} files are missing or empty: {_several(missing)}. '
                "Complete the data, or set the data guard's allow_bad_test_images=True to test with black images in "
                'their place'
            )


@HOOKS.register_module()
class DataGuardHook(Hook):
    """Names and counts the bad files of a run's data, and bounds them.

    In training, a sample that cannot be used is replaced by the next one of its data set, so a run repeats itself; an
    object that cannot be used is left out. In validation and testing, nothing is skipped: before the run, every file
    must be there, and an undecodable one ends the run.

    Args:
        max_bad_share: Share of bad samples in a training set, 0 to 1, above which the run stops with their list.
        max_pixels: Height x width that an image may have; a larger one is bad, and is never decoded.
        interval: Iterations between two looks at what the workers found.
        allow_bad_test_images: Validate and test even so: a black image stands in for a bad one, which is logged. What
            it shows counts as not found.
        annotation_check: A function, or its import path, that names what a toolbox leaves out in silence as it reads
            an annotation file: it takes a data set, and gives an object with ``refused`` and ``problems`` (sentences;
            the run stops on the first kind) and ``notes``. None looks at no annotation file.

    Raises:
        ValueError: A share outside of 0 to 1, or an interval or a size below 1.
    """

    priority = 'VERY_HIGH'

    def __init__(
        self,
        max_bad_share: float = 0.05,
        max_pixels: int = MAX_PIXELS,
        interval: int = 50,
        allow_bad_test_images: bool = False,
        annotation_check: str | Callable[[Any], Any] | None = None,
    ) -> None:
        if not 0 <= max_bad_share <= 1:
            raise ValueError(f'max_bad_share must be a share between 0 and 1, got {max_bad_share}')
        if interval < 1 or max_pixels < 1:
            raise ValueError(f'interval and max_pixels must be at least 1, got {interval} and {max_pixels}')
        self.max_bad_share = max_bad_share
        self.max_pixels = max_pixels
        self.interval = interval
        self.allow_bad_test_images = allow_bad_test_images
        self.annotation_check: Callable[[Any], Any] | None = (
            pkgutil.resolve_name(annotation_check) if isinstance(annotation_check, str) else annotation_check
        )
        self.guards: list[DatasetGuard] = []

    def before_run(self, runner: Runner) -> None:
        # Label images are read by Pillow, which has the same limit as a warning: one limit for both.
        Image.MAX_IMAGE_PIXELS = max(self.max_pixels, MAX_PIXELS)
        for split in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{split}_loop', None)
            if hasattr(loop, 'dataloader'):
                self._watch(runner, split, loop)

    def _watch(self, runner: Runner, split: str, loop: Any) -> None:
        watched = {id(guard.dataset) for guard in self.guards}
        for dataset in innermost(loop.dataloader.dataset):
            if id(dataset) in watched or not hasattr(dataset, 'prepare_data') or not hasattr(dataset, 'pipeline'):
                continue
            guard = DatasetGuard(dataset, split, self.max_bad_share, self.max_pixels, self.allow_bad_test_images)
            self.guards.append(guard)
            if guard.testing and not guard.stands_in and is_local(dataset):
                guard.refuse_missing()
            if self.annotation_check is not None and not guard.testing and dist.is_main_process():
                self._report_annotations(runner, guard, self.annotation_check(dataset))
        self._restart_workers(loop)

    @staticmethod
    def _restart_workers(loop: Any) -> None:
        """Older mmengine forks the workers of iteration-based training as the loop is built, so before the guard."""
        iterator: Any = getattr(loop, 'dataloader_iterator', None)
        if getattr(iterator, '_iterator', None) is not None:
            loop.dataloader_iterator = type(iterator)(loop.dataloader)

    @staticmethod
    def _report_annotations(runner: Runner, guard: DatasetGuard, found: Any) -> None:
        told = f'data guard: {guard.split}'
        if found.refused:
            raise BadDataError(f'{guard.split} data: {_several(found.refused)}')
        for problem in found.problems[:_NAMED]:
            runner.logger.warning(f'{told}: {problem}')
        if found.problems:
            more = f', the first {_NAMED} named above' if len(found.problems) > _NAMED else ''
            runner.logger.warning(f'{told}: {len(found.problems)} problems in {guard.dataset.ann_file}{more}')
        for note in found.notes:
            runner.logger.info(f'{told}: {note}')

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        if self.every_n_train_iters(runner, self.interval):
            self._report(runner, 'train')

    def after_train_epoch(self, runner: Runner) -> None:
        self._report(runner, 'train')

    def after_train(self, runner: Runner) -> None:
        self._report(runner, 'train')

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._report(runner, 'val')

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._report(runner, 'test')

    def _report(self, runner: Runner, split: str) -> None:
        for guard in self.guards:
            if guard.split == split:
                self._agree(guard)
                self._log_new(runner.logger.warning, guard)
                if not guard.testing:
                    guard.stop_if_too_many()

    @staticmethod
    def _agree(guard: DatasetGuard) -> None:
        """Give every rank the states that any rank has found."""
        if dist.get_world_size() == 1:
            return
        mine = [(state, guard.of_state(state)) for state in (_REPAIRED, _BAD)]
        for theirs in dist.all_gather_object(mine):
            for state, indices in theirs:
                found = torch.tensor(indices, dtype=torch.long)
                guard.states[found] = guard.states[found].clamp(min=state)

    @staticmethod
    def _log_new(log: Callable[[str], None], guard: DatasetGuard) -> None:
        new = (guard.states != guard.logged).nonzero().flatten().tolist()
        if not new:
            return
        guard.logged.copy_(guard.states)
        if dist.is_main_process():
            for index in new:
                log(f'data guard: {guard.split}: {guard.describe(index)}')
            bad, repaired = len(guard.of_state(_BAD)), len(guard.of_state(_REPAIRED))
            log(
                f'data guard: {guard.split}: of {len(guard.states)} samples, {bad} are bad and replaced '
                f'({bad / len(guard.states):.2%}), {repaired} are used with what is said above'
            )
