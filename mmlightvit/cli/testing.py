# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Changes of a config, by the options of testing; the toolboxes' differences are fields of their table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlightvit.errors import UserError
from mmlightvit.toolboxes import TOOLBOXES, Toolbox, kind_of

if TYPE_CHECKING:
    from mmengine.config import Config

WAIT_TIME = 2.0  # seconds


def show(cfg: Config, value: bool) -> None:
    """Show every prediction in a window.

    Raises:
        UserError: There is no display, or the config cannot draw.
    """
    if os.name == 'posix' and not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
        raise UserError('--show needs a display, and this session has none; write files with --show-dir DIR')
    _drawing_hook(cfg).update(show=True, wait_time=WAIT_TIME)


def wait(cfg: Config, seconds: float) -> None:
    """Let a window of :func:`show` stay.

    Raises:
        UserError: There is none.
    """
    hook: Any = (cfg.get('default_hooks') or {}).get('visualization') or {}
    if not hook.get('show'):
        raise UserError('--wait-time is for --show')
    hook.wait_time = seconds


def draw_into(cfg: Config, place: str) -> None:
    """Write a picture of every prediction.

    Raises:
        UserError: The config cannot draw.
    """
    _drawing_hook(cfg)
    _require_writable(place, '--show-dir DIR')
    cfg.merge_from_dict({_toolbox(cfg, '--show-dir').draw_folder: os.path.abspath(place)})


def _require_writable(path: str, option: str) -> None:
    """The folder that a file or folder is to be made in can be written."""
    from mmlightvit.cli.preflight import check_writable

    check_writable(os.path.dirname(os.path.abspath(path)), 'folder', option)


def _drawing_hook(cfg: Config) -> Any:
    """The toolbox's visualization hook, turned on for every picture."""
    toolbox = _toolbox(cfg, '--show and --show-dir')
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise UserError('--show and --show-dir need default_hooks.visualization, and the config has none')
    hook.update({'interval': 1, toolbox.draw_switch: True})
    return hook


def require_labels(cfg: Config) -> None:
    """The test set has labels, without which nothing can be measured.

    Raises:
        UserError: It has none.
    """
    unlabelled = find_unlabelled(cfg)
    if unlabelled:
        raise UserError(f'{unlabelled} has no labels, so nothing can be measured; write predictions with --out PATH')


def keep_predictions(cfg: Config, path: str) -> None:
    """Write the predictions of the test set; of a set without labels nothing else can be had.

    Args:
        cfg: The config; its test set is looked at.
        path: A ``.json`` or ``.pkl`` file, or for label maps a folder.

    Raises:
        UserError: ``path`` does not suit the task.
    """
    from mmlightvit.data.data_root import leaf_datasets

    metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    unlabelled = find_unlabelled(cfg)
    toolbox = _toolbox(cfg, '--out')
    _require_writable(path, '--out PATH')
    for _, dataset in leaf_datasets(cfg, 'test') if unlabelled else ():
        dataset['pipeline'] = _without_labels(dataset['pipeline'])
        if isinstance(dataset.get('data_prefix'), dict):
            dataset['data_prefix'].pop('seg_map_path', None)  # mmseg takes no folder, and none that is None
    if toolbox.dump is None:
        if os.path.splitext(path)[1]:
            raise UserError(f'--out expects a folder, for the label maps of {toolbox.task}; got {path}')
        for metric in metrics:
            metric.update(output_dir=path, keep_results=True, format_only=bool(unlabelled))
        return
    if not path.endswith(('.json', '.pkl', '.pickle')):
        raise UserError(f'--out expects a file name that ends in .json or .pkl, got {path}')
    writer = dict(type=toolbox.dump, out_file_path=path)
    if path.endswith('.json'):
        writer = dict(type='mmlightvit.PredictionsFile', path=path)
        for entry in leaf_datasets(cfg, 'test'):
            if str(entry.cfg.get('ann_file')).endswith('.json'):
                writer['ann_file'] = _ann_file(entry.cfg)
    cfg.test_evaluator = [writer] if unlabelled else [*metrics, writer]


def find_unlabelled(cfg: Config) -> str | None:
    """The test set, if it has images only: a COCO file without annotations (test-dev), ``with_label=False``, or no
    folder of label maps."""
    from mmlightvit.data.data_root import leaf_datasets
    from mmlightvit.pictures import coco

    toolbox = TOOLBOXES.get(cfg.default_scope)
    has_maps = toolbox is not None and toolbox.dump is None
    for _, dataset in leaf_datasets(cfg, 'test'):
        folders = dataset.get('data_prefix')
        if dataset.get('with_label') is False:
            return str(dataset.get('data_root') or folders)
        if has_maps and isinstance(folders, dict) and 'img_path' in folders and not folders.get('seg_map_path'):
            return str(folders['img_path'])
        path = _ann_file(dataset)
        if path.endswith('.json') and os.path.isfile(path):
            try:
                content = coco.parse(Path(path).read_bytes(), labelled=False)
            except ValueError:
                continue  # the check of the data names it
            if 'annotations' not in content:
                return path
    return None


def _ann_file(dataset: dict) -> str:
    return os.path.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')


def _without_labels(steps: list) -> list:
    """A pipeline, or the alternatives of test-time augmentation, without the steps that load labels."""
    kept: list = []
    for step in steps:
        if isinstance(step, (list, tuple)):
            kept += [inner] if (inner := _without_labels(list(step))) else []
        elif not kind_of(step).endswith('LoadAnnotations'):
            nested = step.get('transforms')
            kept.append(step if nested is None else {**step, 'transforms': _without_labels(nested)})
    return kept


def use_tta(cfg: Config, value: bool = True) -> None:
    """Test with the config's augmentations and its way of merging their predictions.

    Raises:
        UserError: The config brings none, or the model predicts instance masks.
    """
    toolbox = _toolbox(cfg, '--tta')
    if cfg.model.get('roi_head', {}).get('mask_head') is not None:
        raise UserError(
            "--tta merges boxes only (mmdet's DetTTAModel), and this model predicts instance masks too; "
            'test it without --tta'
        )
    missing = [key for key in ('tta_model', 'tta_pipeline') if cfg.get(key) is None]
    if missing:
        raise UserError(f'--tta needs {" and ".join(missing)}, and the config has none')
    drawing = (cfg.get('default_hooks') or {}).get('visualization') or {}
    if toolbox.draws_input and drawing.get(toolbox.draw_switch):
        raise UserError(
            f"--tta with --show or --show-dir: {cfg.default_scope} draws the network's input, of which there are "
            'several then; leave one of them out'
        )
    cfg.model = dict(cfg.tta_model, module=cfg.model)
    dataset = cfg.test_dataloader.dataset
    while isinstance(dataset.get('dataset'), dict):
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline


def _toolbox(cfg: Config, option: str) -> Toolbox:
    scope = cfg.default_scope
    if scope not in TOOLBOXES:
        raise UserError(f'{option} knows {", ".join(TOOLBOXES)}, and the config is for {scope}')
    return TOOLBOXES[scope]
