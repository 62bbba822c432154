# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""At the end of a training, the folder that ``load_model`` and ``mmlightvit predict`` take."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmlightvit.checkpoint.zoo import digest
from mmlightvit.durable.seal import read_seal
from mmlightvit.errors import UserError
from mmlightvit.model_folder.info import FOLDER
from mmlightvit.model_folder.write import write_model_folder
from mmlightvit.registry import HOOKS


@HOOKS.register_module()
class ModelFolderHook(Hook):
    """Writes ``WORK_DIR/model/`` from the best checkpoint, or from the last where none was the best.

    A config whose model or pipeline ``model.json`` cannot describe gets a warning instead; its training is done.

    Args:
        name: Folder inside of the work directory.
    """

    #: After the checkpoint hook has written the last checkpoint, and the average of the weights is back in its place.
    priority = 'LOWEST'

    def __init__(self, name: str = FOLDER) -> None:
        self.name = name
        self._began = datetime.now(UTC)
        #: Metrics by the checkpoint that was the best, or the newest, when they were measured.
        self._metrics: dict[str | None, dict[str, Any]] = {}

    def before_train(self, runner: Runner) -> None:
        self._began = datetime.now(UTC)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        info = runner.message_hub.runtime_info
        best, newest = info.get('best_ckpt'), dict(metrics or {})
        self._metrics = {None: newest, best: self._metrics.get(best, newest)} if best else {None: newest}

    def after_train(self, runner: Runner) -> None:
        info = runner.message_hub.runtime_info
        checkpoint = info.get('best_ckpt') or info.get('last_ckpt')
        if not is_main_process() or checkpoint is None or not os.path.isfile(checkpoint):
            return
        folder = Path(runner.work_dir) / self.name
        metrics = self._metrics.get(info.get('best_ckpt'), {})
        try:
            seal = read_seal(checkpoint)
            training = {**self._training(runner), 'checkpoint_seal': seal and seal.sha256}
            write_model_folder(folder, runner.cfg, checkpoint, metrics=metrics, training=training)
        except UserError as error:
            runner.logger.log(logging.WARNING, f'no model folder: {error}')
        else:
            runner.logger.info(f'The model is in {folder}: mmlightvit predict {folder} PICTURES')

    def _training(self, runner: Runner) -> dict[str, Any]:
        ended = datetime.now(UTC)
        cfg: Any = runner.cfg
        return {
            'config': cfg.filename,
            'epochs': runner.epoch,
            'iterations': runner.iter,
            'batch': cfg.train_dataloader.get('batch_size'),
            'seed': runner.seed,
            'started': self._began.strftime('%Y-%m-%dT%H:%M:%SZ'),
            'hours': round((ended - self._began).total_seconds() / 3600, 2),
            'data': _data(runner),
        }


def _data(runner: Runner) -> dict[str, Any]:
    """Sizes of the data sets, and digests of their annotation files."""
    sizes: dict[str, Any] = {}
    digests = []
    for split, loop in (('train', runner.train_loop), ('val', getattr(runner, 'val_loop', None))):
        dataset: Any = getattr(getattr(loop, 'dataloader', None), 'dataset', None)
        if dataset is not None:
            sizes[f'{split}_images'] = len(dataset)
            path = getattr(dataset, 'ann_file', '')
            if path and os.path.isfile(path):
                digests.append(digest(Path(path)))
    return {**sizes, 'annotations_sha256': digests}
