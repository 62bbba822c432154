# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Checkpoints that survive kills, full disks and rotten bits.

A checkpoint is one file: what ``torch.save`` writes, with a *seal* in the place the zip format has for a comment.
The seal says which run it is of and how far the training had come, and ends with a SHA-256 of everything before. Being
part of the file, it moves with it, and there is no moment at which the one exists without the other. ``torch.load``
reads sealed files as usual.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import zipfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as _CheckpointHook
from mmengine.runner import Runner

from mmlightvit.durable.safe_loading.atomic import TEMPORARY_SUFFIX, atomic_write
from mmlightvit.errors import UserError
from mmlightvit.registry import HOOKS

_SEAL = re.compile(
    rb'mmlightvit checkpoint run=(\d{14}) iter=(\d{12}) epoch=(\d{8}) resumable=([01]) sha256=([0-9a-f]{64})\n'
)
_SEAL_HEAD = 'mmlightvit checkpoint run={:014d} iter={:012d} epoch={:08d} resumable={:d} sha256='
_DIGEST_BYTES = 64 + 1  # hexadecimal digits and the line's end
_SEAL_BYTES = len(_SEAL_HEAD.format(0, 0, 0, 0)) + _DIGEST_BYTES
_ZIP_END = b'PK\x05\x06'
_ZIP_END_BYTES = 22  # the zip format's last record; its last two bytes are the length of the comment that follows
_CHUNK = 1 << 20
_STOCK_NAME = re.compile(r'(?:interrupted_)?(?:epoch|iter)_(\d+)\.pth')
LAST_CHECKPOINT = 'last_checkpoint'
_HINTS = {
    errno.ENOSPC: 'the disk is full: free some space',
    errno.EDQUOT: 'the disk quota is reached: free some space',
    errno.EROFS: 'the file system is read-only: remount it or choose another --work-dir',
    errno.EACCES: 'permission denied: make the directory writable or choose another --work-dir',
    errno.EFBIG: 'the file is larger than the limit on file sizes (ulimit -f)',
    errno.ENOENT: 'the directory is gone',
}


class Seal(NamedTuple):
    """What a checkpoint says about itself.

    Attributes:
        run: When its run began, in milliseconds since 1970.
        iteration: Iterations trained.
        epoch: Epochs completed.
        resumable: Whether it holds the optimizer's state, so that a run can go on from it.
        sha256: Digest of the file up to this field.
    """

    run: int
    iteration: int
    epoch: int
    resumable: bool
    sha256: str


class DamagedCheckpoint(UserError):
    """A checkpoint that is not what was written."""


def atomic_save(
    obj: Any, path: str | os.PathLike, iteration: int = 0, epoch: int = 0, resumable: bool = False, run: int = 0
) -> None:
    """Write ``obj`` and its seal to ``path``, in full or not at all.

    Args:
        obj: Whatever ``torch.save`` takes.
        path: The checkpoint. An older one of this name stays until the new one is safely on disk.
        iteration: Iterations trained.
        epoch: Epochs completed.
        resumable: Whether a run can go on from this file.
        run: When the run began, in milliseconds since 1970; 0 where it is not known.

    Raises:
        UserError: The disk is full, read-only, over quota, or refuses otherwise; nothing is left behind.
    """

    def write(file: BinaryIO) -> None:
        sealing = _SealingFile(file)
        try:
            torch.save(obj, cast(BinaryIO, sealing))
        except (OSError, RuntimeError) as error:
            # torch reports a failed write in its own words; the reason is what the operating system said first.
            raise sealing.error or error from error
        sealing.finish(_SEAL_HEAD.format(run, iteration, epoch, resumable))

    try:
        atomic_write(path, write)
    except OSError as error:
        reason = _HINTS.get(error.errno or 0, error.strerror or str(error))
        raise UserError(
            f'cannot save {path}: {reason}. Checkpoints saved before are intact: mend it and go on with --resume'
        ) from error


class _SealingFile:
    """What ``torch.save`` writes to: hashes on the way, and keeps the zip's last record back to note the seal in it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._tail = b''
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast('B')
        if len(view) >= _ZIP_END_BYTES:
            self._emit(self._tail)
            self._emit(view[:-_ZIP_END_BYTES])
            self._tail = bytes(view[-_ZIP_END_BYTES:])
        else:
            joined = self._tail + bytes(view)
            self._emit(joined[:-_ZIP_END_BYTES])
            self._tail = joined[-_ZIP_END_BYTES:]
        return len(view)

    def flush(self) -> None:
        """torch asks for it; the file is flushed and synced when it is complete."""

    def finish(self, seal_head: str) -> None:
        if not self._tail.startswith(_ZIP_END):
            raise RuntimeError('torch.save did not write a zip archive without a comment')
        self._emit(self._tail[:-2] + _SEAL_BYTES.to_bytes(2, 'little') + seal_head.encode())
        self._file.write(f'{self._digest.hexdigest()}\n'.encode())

    def _emit(self, data: bytes | memoryview) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise
        self._digest.update(data)


def read_seal(path: str | os.PathLike) -> Seal | None:
    """The seal of a checkpoint, without checking it against the content; None where there is none."""
    with open(path, 'rb') as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _SEAL_BYTES))
        match = _SEAL.fullmatch(file.read())
    if match is None:
        return None
    run, iteration, epoch, resumable, digest = match.groups()
    return Seal(int(run), int(iteration), int(epoch), resumable == b'1', digest.decode())


def verify(path: str | os.PathLike) -> Seal | None:
    """Check a checkpoint against its seal; a file without one against the zip format's own checksums.

    Args:
        path: A file that ``torch.save`` or :func:`atomic_save` wrote.

    Returns:
        The seal, or None for an intact file that another program wrote.

    Raises:
        DamagedCheckpoint: The content is not what was written, or the file is cut short.
    """
    seal = read_seal(path)
    if seal is None:
        _verify_unsealed(Path(path))
        return None
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        left = file.seek(0, os.SEEK_END) - _DIGEST_BYTES
        file.seek(0)
        while left:
            chunk = file.read(min(_CHUNK, left))
            digest.update(chunk)
            left -= len(chunk)
    if digest.hexdigest() != seal.sha256:
        raise DamagedCheckpoint(f'{path} is damaged: its content does not match its checksum')
    return seal


def _require_plain_archive(path: Path) -> None:
    with open(path, 'rb') as file:
        start = file.read(4)
        file.seek(max(0, file.seek(0, os.SEEK_END) - _ZIP_END_BYTES))
        end = file.read()
    # A sealed file whose seal is hurt still has a comment, and a file cut short has no last record.
    if not (start == b'PK\x03\x04' and end.startswith(_ZIP_END) and end.endswith(b'\0\0')):
        raise DamagedCheckpoint(f'{path} is damaged: its beginning, its end or its seal is not as it was written')


def _verify_unsealed(path: Path) -> None:
    _require_plain_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, OSError, NotImplementedError, EOFError) as error:
        raise DamagedCheckpoint(f'{path} is damaged: {error}') from error
    if bad is not None:
        raise DamagedCheckpoint(f'{path} is damaged: {bad} does not match its checksum')


def checkpoint_dir(work_dir: str, default_hooks: Mapping[str, Any] | None) -> str:
    """Where a run's checkpoints are: in its work directory, unless its checkpoint hook has an ``out_dir``.

    Args:
        work_dir: Work directory.
        default_hooks: The runner's default hooks: configs, hooks, or None for one that is left out.
    """
    work_dir = os.path.abspath(work_dir)
    hook = (default_hooks or {}).get('checkpoint')
    out_dir = hook.get('out_dir') if isinstance(hook, Mapping) else getattr(hook, 'out_dir', None)
    if not out_dir or out_dir == work_dir:  # as MMEngine's hook decides
        return work_dir
    return os.path.join(out_dir, os.path.basename(work_dir))


class Found(NamedTuple):
    """The outcome of :func:`find_newest`.

    Attributes:
        path: The newest checkpoint that verifies; None if there is none.
        skipped: One sentence for each newer or unreadable checkpoint that was passed over.
    """

    path: Path | None
    skipped: list[str]


def find_newest(directory: str | os.PathLike) -> Found:
    """The newest checkpoint in ``directory`` that a run can be resumed from and that verifies.

    What is in the files decides, not their dates or the ``last_checkpoint`` note, so a copied or moved work directory
    is as good as the original: the run that began last, then the iteration. Files without a seal (written by stock
    MMEngine) count if they are called ``epoch_N.pth`` or ``iter_N.pth``, after all sealed ones.

    Args:
        directory: The work directory.
    """
    candidates, skipped = find_candidates(directory)
    for path in candidates:
        try:
            verify(path)
        except DamagedCheckpoint as error:
            skipped.append(str(error))
        except OSError as error:
            skipped.append(f'{path} cannot be read: {error.strerror}')
        else:
            return Found(path, skipped)
    return Found(None, skipped)


def find_candidates(directory: str | os.PathLike) -> tuple[list[Path], list[str]]:
    """What :func:`find_newest` chooses from, newest first and not yet verified, and what it has passed over."""
    sealed: list[tuple[int, int, int, float, Path]] = []
    foreign: list[tuple[int, float, Path]] = []
    skipped: list[str] = []
    for path in sorted(Path(directory).glob('*.pth')):
        try:
            seal = read_seal(path)
            if seal is not None:
                if seal.resumable:
                    sealed.append((seal.run, seal.iteration, seal.epoch, path.stat().st_mtime, path))
            elif match := _STOCK_NAME.fullmatch(path.name):
                _require_plain_archive(path)
                foreign.append((int(match[1]), path.stat().st_mtime, path))
        except DamagedCheckpoint as error:
            skipped.append(str(error))
        except OSError as error:
            skipped.append(f'{path} cannot be read: {error.strerror}')
    candidates = [entry[-1] for entry in sorted(sealed, reverse=True)]
    candidates += [entry[-1] for entry in sorted(foreign, reverse=True)]
    return candidates, skipped


def remove_strays(directory: str | os.PathLike) -> list[Path]:
    """Remove what killed processes left half-written; only while no other run writes to ``directory``.

    Returns:
        The files removed.
    """
    strays = list(Path(directory).glob(f'.*{TEMPORARY_SUFFIX}'))
    for stray in strays:
        stray.unlink(missing_ok=True)
    return strays


@HOOKS.register_module()
class CheckpointHook(_CheckpointHook):
    """MMEngine's checkpoint hook, with its arguments; an old checkpoint goes only when the new one is on disk.

    ``last_checkpoint`` names the file relative to the work directory, so that it can be moved.

    Source: :class:`mmengine.hooks.CheckpointHook`, which removes first and writes then.
    """

    # Set by MMEngine's class, according to its arguments.
    best_ckpt_path: str | None
    best_ckpt_path_dict: dict[str, str | None]
    keep_ckpt_ids: deque[int]

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        # Paths of the best checkpoints come from the checkpoint that was resumed; the work directory may have moved.
        if self.save_best is not None:
            if len(self.key_indicators) == 1:
                self.best_ckpt_path = self._here(self.best_ckpt_path)
            else:
                self.best_ckpt_path_dict = {key: self._here(path) for key, path in self.best_ckpt_path_dict.items()}

    def _here(self, path: str | None) -> str | None:
        return None if path is None else self.file_backend.join_path(self.out_dir, os.path.basename(path))

    def _remove(self, path: str | None) -> None:
        if path is None or not is_main_process():
            return
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):
            self.file_backend.rmtree(path)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        name = self.filename_tmpl.format(step)
        outdated: list[int] = []
        if self.max_keep_ckpts > 0:
            ids = [kept for kept in self.keep_ckpt_ids if kept != step]
            outdated = ids[: max(0, len(ids) + 1 - self.max_keep_ckpts)]
            # The new file lists the outdated ones too: a run killed before their removal makes up for it on resuming.
            runner.message_hub.update_info('keep_ckpt_ids', [*ids, step])
            self.keep_ckpt_ids = deque([*ids[len(outdated) :], step], self.max_keep_ckpts)
        self._save(runner, name, meta)
        for old in outdated:
            self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)))
        if self.max_keep_ckpts > 0:
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def _save(self, runner: Runner, name: str, meta: dict) -> None:
        """Save under ``name``, note it, and only then remove the checkpoint of an interruption before it."""
        interrupted = runner.message_hub.runtime_info.get('interrupted_ckpt')
        if name.startswith('interrupted_'):
            runner.message_hub.update_info('interrupted_ckpt', name)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            relative = os.path.relpath(self.last_ckpt, runner.work_dir) if '://' not in self.last_ckpt else None
            note = relative if relative and not relative.startswith('..') else self.last_ckpt
            atomic_write(os.path.join(runner.work_dir, LAST_CHECKPOINT), lambda file: file.write(note.encode()))
        if interrupted is not None and interrupted != name:
            if not name.startswith('interrupted_'):
                runner.message_hub.pop_info('interrupted_ckpt')
            self._remove(self.file_backend.join_path(self.out_dir, interrupted))

    def save_interrupted(self, runner: Runner, epoch: int, iteration: int) -> str:
        """Save where the run was stopped; the next regular checkpoint replaces it.

        Args:
            runner: The runner.
            epoch: Epochs completed.
            iteration: Iterations trained.

        Returns:
            The checkpoint's path.
        """
        name = f'interrupted_iter_{iteration}.pth'
        self._save(runner, name, dict(epoch=epoch, iter=iteration))
        return str(self.last_ckpt)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:
            return
        step = runner.epoch if self.by_epoch else runner.iter
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        single = len(self.key_indicators) == 1
        replaced: list[str | None] = []
        for key, rule in zip(self.key_indicators, self.rules):
            score_info, path_info = ('best_score', 'best_ckpt') if single else (f'best_score_{key}', f'best_ckpt_{key}')
            best = runner.message_hub.runtime_info.get(score_info, self.init_value_map[rule])
            score = metrics[key]
            if score is None or not self.is_better_than[key](score, best):
                continue
            previous = self.best_ckpt_path if single else self.best_ckpt_path_dict[key]
            name = f'best_{key}_{self.filename_tmpl.format(step)}'.replace('/', '_')
            path = self.file_backend.join_path(self.out_dir, name)
            runner.message_hub.update_info(score_info, score)
            runner.message_hub.update_info(path_info, path)
            runner.save_checkpoint(
                self.out_dir,
                filename=name,
                file_client_args=self.file_client_args,
                save_optimizer=False,
                save_param_scheduler=False,
                meta=dict(epoch=runner.epoch, iter=runner.iter),
                by_epoch=False,
                backend_args=self.backend_args,
            )
            if single:
                self.best_ckpt_path = path
            else:
                self.best_ckpt_path_dict[key] = path
            replaced.append(previous if previous != path else None)
            runner.logger.info(f'The best checkpoint so far, {key} {score:0.4f}, is saved to {name}.')
        if not replaced:
            return
        # The regular checkpoint is saved again, because the best score belongs to what a resumed run has to know.
        # Only then does the previous best go: a kill in between leaves one file too many, never one too few.
        if self.last_ckpt is not None:
            self._save_checkpoint_with_step(runner, step, dict(epoch=runner.epoch, iter=runner.iter, validated=True))
        for previous in replaced:
            self._remove(previous)
