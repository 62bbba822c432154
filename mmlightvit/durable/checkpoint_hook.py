# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""MMEngine's checkpoint hook, with the removals after the writing."""

from __future__ import annotations

import math
import os
import shutil
from collections import deque
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as _CheckpointHook
from mmengine.runner import Runner

from mmlightvit.durable.find import BEST_LINK, LAST_CHECKPOINT, LAST_LINK
from mmlightvit.durable.safe_loading.atomic import TEMPORARY_SUFFIX, atomic_write
from mmlightvit.durable.scores import absent, score_of
from mmlightvit.registry import HOOKS


@HOOKS.register_module()
class CheckpointHook(_CheckpointHook):
    """MMEngine's checkpoint hook, with its arguments; an old checkpoint goes only when the new one is on disk.

    ``last_checkpoint`` names the file relative to the work directory, so that it can be moved. Beside the checkpoints,
    ``last.pth`` and ``best.pth`` are links to the last one and to the best, of the first metric if there are several.
    A metric that the validation has not, or that is undefined, gives no best checkpoint, and a warning.

    Source: :class:`mmengine.hooks.CheckpointHook`, which removes first and writes then.
    """

    # Set by MMEngine's class, according to its arguments.
    best_ckpt_path: str | None
    best_ckpt_path_dict: dict[str, str | None]
    keep_ckpt_ids: deque[int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._warned: set[str] = set()

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
            # The new file lists the outdated ones too: a run killed before their removal removes them after resuming.
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
            link(self.last_ckpt, LAST_LINK)
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
            if key not in metrics:
                self._warn_once(runner, absent(metrics, key, 'default_hooks.checkpoint.save_best'))
                continue
            score = score_of(metrics, key)
            if math.isnan(score):
                self._warn_once(runner, f'{key} is undefined on this validation set: no best checkpoint by it')
                continue
            score_info, path_info = ('best_score', 'best_ckpt') if single else (f'best_score_{key}', f'best_ckpt_{key}')
            best = runner.message_hub.runtime_info.get(score_info, self.init_value_map[rule])
            if not self.is_better_than[key](score, best):
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
            if is_main_process() and key == self.key_indicators[0]:
                link(path, BEST_LINK)
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

    def _warn_once(self, runner: Runner, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            runner.logger.warning(message)


def link(checkpoint: str, name: str) -> None:
    """Let ``name``, beside a checkpoint, be that checkpoint: a link, or a copy where the file system has no links."""
    target = Path(checkpoint)
    if '://' in checkpoint or not target.is_file():
        return
    place, new = target.with_name(name), target.with_name(f'.{name}{TEMPORARY_SUFFIX}')
    new.unlink(missing_ok=True)
    try:
        new.symlink_to(target.name)
    except OSError:
        shutil.copyfile(target, new)
    os.replace(new, place)
