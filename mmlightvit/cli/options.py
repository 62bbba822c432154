# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What the options of training and testing change in a config; the toolboxes' differences are fields of their table."""

from __future__ import annotations

import json
import os

from mmengine.config import Config, ConfigDict

from mmlightvit.data.data_root import leaf_datasets
from mmlightvit.errors import UserError
from mmlightvit.toolboxes import TOOLBOXES, Toolbox


def drop_idle_workers(cfg: Config) -> None:
    """Leave out the settings of workers where a data loader has none: torch refuses them."""
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader and not loader.get('num_workers'):
            loader.pop('prefetch_factor', None)
            if loader.get('persistent_workers'):
                loader.persistent_workers = False


def drop_replaced_weights(cfg: Config) -> None:
    """Leave out the backbone's ``init_cfg`` where all of a LightViT comes from ``load_from``."""
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    ours = str(backbone.get('type')).rpartition('.')[2] == 'LightViT'  # others are loaded as far as they fit
    fresh = cfg.get('load_fresh') or ()
    kept = any(part.startswith('backbone') for part in ([fresh] if isinstance(fresh, str) else fresh))
    if cfg.get('load_from') is not None and ours and not kept:
        backbone.pop('init_cfg', None)


def use_amp(cfg: Config) -> None:
    """Train in mixed precision.

    Raises:
        UserError: The config's optimizer wrapper is one of its own kind.
    """
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    name = kind if isinstance(kind, str) else kind.__name__
    if name.rsplit('.', maxsplit=1)[-1] not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp replaces OptimWrapper, and the config has optim_wrapper.type={name}')
    cfg.optim_wrapper.type = 'mmlightvit.AmpOptimWrapper'


def use_ema(cfg: Config, momentum: float) -> None:
    """Keep a moving average of the weights. A config that keeps one already only gets the momentum.

    Raises:
        UserError: ``momentum`` is not in (0, 1).
    """
    if not 0 < momentum < 1:
        raise UserError(f'--ema expects a momentum between 0 and 1, the share of the new weights; got {momentum}')
    hooks = cfg.get('custom_hooks') or []
    for hook in hooks:
        if isinstance(hook, dict) and str(hook.get('type')).endswith('EMAHook'):
            hook['momentum'] = momentum
            return
    # Before the checkpoint hook, so that what is saved as the model is the average.
    hook = ConfigDict(type='mmengine.EMAHook', momentum=momentum, priority='ABOVE_NORMAL')
    cfg.custom_hooks = [*hooks, hook]


def use_compile(cfg: Config, mode: str) -> None:
    """Compile the backbone. A config that does so already only gets the mode.

    Raises:
        UserError: torch.compile has no such mode.
    """
    from torch._inductor import list_mode_options

    if mode not in list_mode_options():
        expected = ', '.join(list_mode_options())
        raise UserError(f'--compile expects a mode of torch.compile ({expected}), got {mode}')
    hooks = cfg.get('custom_hooks') or []
    for hook in hooks:
        if isinstance(hook, dict) and str(hook.get('type')).endswith('CompileBackboneHook'):
            hook['mode'] = mode
            return
    cfg.custom_hooks = [*hooks, ConfigDict(type='mmlightvit.CompileBackboneHook', mode=mode)]


def use_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate to the run's batch size.

    Raises:
        UserError: The config does not say which batch size its learning rate is for.
    """
    settings = cfg.get('auto_scale_lr') or {}
    if not settings.get('base_batch_size'):
        raise UserError(
            '--auto-scale-lr needs auto_scale_lr.base_batch_size, the batch size that the learning rate is for, '
            'and the config does not set it; add --cfg-options auto_scale_lr.base_batch_size=N'
        )
    settings['enable'] = True


def show_predictions(cfg: Config, *, window: bool, folder: str | None, wait_time: float) -> None:
    """Turn the toolbox's visualization hook on, for every image.

    Raises:
        UserError: A window is asked for without a display, or the config has no such hook.
    """
    toolbox = _toolbox(cfg, '--show and --show-dir')
    if window and os.name == 'posix' and not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
        raise UserError('--show needs a display, and this session has none; write files with --show-dir DIR')
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise UserError('--show and --show-dir need default_hooks.visualization, and the config has none')
    hook.update(show=window, wait_time=wait_time, interval=1)
    hook[toolbox.draw_switch] = True
    if folder is not None:
        cfg.merge_from_dict({toolbox.draw_folder: os.path.abspath(folder)})


def keep_predictions(cfg: Config, path: str | None) -> None:
    """Write the predictions of the test set to ``path``; of a set without labels nothing else can be had.

    Args:
        cfg: The config; its test set is looked at.
        path: A ``.json`` or ``.pkl`` file, or for label maps a folder; None to write nothing.

    Raises:
        UserError: ``path`` does not suit the task, or there is neither a label nor a path.
    """
    metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    unlabelled = find_unlabelled(cfg)
    if path is None:
        if unlabelled:
            raise UserError(
                f'{unlabelled} has no labels, so nothing can be measured; write predictions with --out PATH'
            )
        return
    toolbox = _toolbox(cfg, '--out')
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
    writer = ConfigDict(type=toolbox.dump, out_file_path=path)
    if path.endswith('.json'):
        writer = ConfigDict(type='mmlightvit.PredictionsFile', path=path)
        for entry in leaf_datasets(cfg, 'test'):
            if str(entry.cfg.get('ann_file')).endswith('.json'):
                writer.ann_file = _ann_file(entry.cfg)
    cfg.test_evaluator = [writer] if unlabelled else [*metrics, writer]


def find_unlabelled(cfg: Config) -> str | None:
    """The test set, if it has images only: a COCO file without annotations (test-dev), ``with_label=False``, or no
    folder of label maps."""
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
            with open(path, encoding='utf-8-sig') as file:
                content = json.load(file)
            if isinstance(content, dict) and 'images' in content and 'annotations' not in content:
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
        elif not str(step['type']).endswith('LoadAnnotations'):
            nested = step.get('transforms')
            kept.append(step if nested is None else ConfigDict(step, transforms=_without_labels(nested)))
    return kept


def use_tta(cfg: Config) -> None:
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
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset = cfg.test_dataloader.dataset
    while isinstance(dataset.get('dataset'), dict):
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline


def _toolbox(cfg: Config, option: str) -> Toolbox:
    scope = cfg.default_scope
    if scope not in TOOLBOXES:
        raise UserError(f'{option} knows {", ".join(TOOLBOXES)}, and the config is for {scope}')
    return TOOLBOXES[scope]
