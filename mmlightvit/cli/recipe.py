# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Changes of a config, by the options of training: another model or start, balanced classes, other numbers.

:mod:`mmlightvit.cli.options` says in which order. Imports nothing heavy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlightvit.cli.arguments import nearest
from mmlightvit.cli.config import load_config
from mmlightvit.durable.programs import PROGRAMS
from mmlightvit.errors import UserError
from mmlightvit.tasks import CLASSIFICATION, TASKS
from mmlightvit.toolboxes import kind_of

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmlightvit.data.folder import DatasetFolder

EMA_MOMENTUM = 2e-4  # of MMEngine's EMAHook: an average over about 5000 steps
LAST = ''  # of --resume without a file
_IGNORED = 255  # in label maps


def use_model(cfg: Config, name: str, folder: DatasetFolder) -> None:
    """Take the model of another config, for the folder's classes; data, pipelines and schedule stay the folder's.

    Args:
        cfg: The folder's config, changed in place.
        name: A config of this project by its name, or any config file.
        folder: The prepared folder.

    Raises:
        UserError: There is no such config, or its model is for another task.
    """
    from mmengine.config import Config

    from mmlightvit.config_paths import configs_folder

    known = {path.stem: path for path in configs_folder().glob('*.py')}
    path = known.get(name.removesuffix('.py')) or Path(name).expanduser()
    if not path.is_file():
        hint = nearest(name, known)
        raise UserError(
            f'--model {name}: no config of that name{f"; nearest: {hint}" if hint else ""}; they are in '
            f'{configs_folder()}'
        )
    other = load_config(str(path))
    if other.default_scope != cfg.default_scope or _has_masks(other.model) != _has_masks(cfg.model):
        raise UserError(f'--model {name} is not for {folder.task}, the task of {folder.path}')
    model = other.model
    for head in _dicts(model):
        if 'num_classes' in head:
            head['num_classes'] = len(folder.classes)
    if folder.task == CLASSIFICATION:
        model.head.topk = cfg.model.head.topk
        arch = model.backbone.get('arch')
        start = Config.fromfile(configs_folder() / '_base_' / 'lightvit.py').get(f'lightvit_{arch}')
        if start is not None:  # pre-training begins at random; fine-tuning where that has ended
            model.backbone.init_cfg = start.init_cfg
    cfg.model = model


def use_fold(cfg: Config, number: int, folder: DatasetFolder) -> None:
    """Train and validate on the files of the fold that a folder has been opened at."""
    cfg.train_dataloader.dataset.ann_file = str(folder.file_of('train'))
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.ann_file = str(folder.file_of('val'))
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        if 'ann_file' in evaluator:
            evaluator.ann_file = str(folder.file_of('val'))


def start_from(cfg: Config, source: str) -> None:
    """Start from the weights of a model, or, with ``none``, from none.

    A classifier gives its backbone, any other model everything; where it knows another number of classes, the layers
    that give them begin at random.

    Raises:
        UserError: There is no such model, or its weights are not here.
    """
    from mmlightvit.checkpoint import zoo

    backbone = cfg.model.backbone
    if source.lower() == 'none':
        backbone.init_cfg = None
        if backbone.get('norm_eval'):
            backbone.norm_eval = False  # its statistics would be those of no training
        return
    path = Path(source).expanduser()
    if path.is_dir():
        weights = [*path.glob('model.safetensors'), *path.glob('model/model.safetensors'), *path.glob('best.pth')]
        if not weights:
            raise UserError(f'--from {source}: there is no model.safetensors and no best.pth in it')
        whole = str(weights[0])
    elif path.is_file():
        whole = str(path)
    else:
        entry = next((entry for entry in zoo.entries() if entry.name == source), None)
        if entry is None or entry.address is None:
            hint = nearest(source, [entry.name for entry in zoo.entries() if entry.address])
            raise UserError(
                f'--from {source}: no file, no folder, and no model with published weights'
                f'{f"; nearest: {hint}" if hint else ""}; see mmlightvit models'
            )
        if entry.task == CLASSIFICATION:
            backbone.init_cfg = dict(type='Pretrained', checkpoint=entry.address)
            return
        whole = entry.address
    cfg.load_from, cfg.load_other_classes = whole, True


# -- numbers ----------------------------------------------------------------------------------------------------------
def use_epochs(cfg: Config, epochs: int, folder: DatasetFolder | None) -> None:
    """Train for some passes over the data.

    Raises:
        UserError: The config counts iterations, and the size of the training set is unknown.
    """
    pictures = None if folder is None else folder.info['splits']['train']['pictures']
    if pictures is None and cfg.train_cfg.get('max_epochs') is None:
        raise UserError('--epochs: this config counts iterations; use --cfg-options train_cfg.max_iters=N')
    stretch(cfg, epochs, pictures, int(os.environ.get('WORLD_SIZE', '1')))


def stretch(cfg: Config, epochs: int, pictures: int | None, processes: int) -> None:
    """Train for some epochs, with the schedule stretched to them; validate after each where iterations are counted.

    Args:
        cfg: The config, changed in place.
        epochs: Passes over the training set.
        pictures: Of the training set, where iterations are counted.
        processes: Of the job.
    """
    loop = cfg.train_cfg
    if loop.get('max_epochs') is not None:
        _stretch(cfg, epochs, loop.max_epochs, by_epoch=True)
        loop.max_epochs = epochs
        return
    assert pictures is not None
    length = max(1, math.ceil(pictures / (cfg.train_dataloader.batch_size * processes)))
    _stretch(cfg, epochs * length, loop.max_iters, by_epoch=False)
    loop.max_iters = epochs * length
    loop.val_interval = cfg.default_hooks.checkpoint.interval = length
    if cfg.default_hooks.get('logger'):
        cfg.default_hooks.logger.interval = min(cfg.default_hooks.logger.get('interval', 10), length)


def _stretch(cfg: Config, new: int, old: int, *, by_epoch: bool) -> None:
    schedules = cfg.get('param_scheduler') or []
    for item in schedules if isinstance(schedules, (list, tuple)) else [schedules]:
        if item.get('by_epoch', True) == by_epoch:
            for key in ('begin', 'end', 'T_max'):
                if isinstance(item.get(key), int) and item[key] <= old:
                    item[key] = round(item[key] * new / old)
            if item.get('end') is not None and item['end'] <= item.get('begin', 0):
                item['end'] = item.get('begin', 0) + 1
            if item.get('milestones'):
                item['milestones'] = [max(1, round(step * new / old)) for step in item['milestones']]


def use_size(cfg: Config, size: int) -> None:
    """Train and predict at another size: of the short side in detection and segmentation, of the square otherwise.

    Raises:
        UserError: The pipelines have no step that a size can be given to.
    """
    steps = [step for step in _dicts([cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader]) if 'type' in step]
    steps += [step for step in _dicts(cfg.get('tta_pipeline') or []) if 'type' in step]
    done = 0
    for step in steps:
        kind = kind_of(step)
        scale = step.get('scale')
        if kind in ('Resize', 'RandomResize') and isinstance(scale, (list, tuple)):
            short = min(scale)
            step['scale'] = tuple(round(side * size / short) for side in scale)
        elif kind == 'RandomCrop' and cfg.default_scope == 'mmseg':
            step['crop_size'] = (size, size)
        elif kind == 'CenterCrop':
            step['crop_size'] = size
        elif kind == 'RandomResizedCrop':
            step['scale'] = size
        elif kind == 'ResizeEdge':
            step['scale'] = round(step['scale'] * size / 224)
        else:
            continue
        done += 1
    if not done:
        raise UserError('--size: no step of the pipelines has a size that it knows; change it in the config')
    if cfg.default_scope == 'mmseg' and cfg.model.data_preprocessor.get('size') is not None:
        cfg.model.data_preprocessor.size = (size, size)


def use_workers(cfg: Config, workers: int) -> None:
    """Let as many processes load the data of each data loader."""
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            loader.num_workers = workers
            loader.persistent_workers = workers > 0


def use_patience(cfg: Config, patience: int) -> None:
    """Stop after some validations without progress of the metric that chooses the best checkpoint; 0: never.

    Raises:
        UserError: The config names no such metric.
    """
    hooks = custom_hooks(cfg, 'EarlyStoppingHook')
    if patience > 0:
        checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
        monitor = checkpoint.get('save_best')
        if not isinstance(monitor, str) or monitor == 'auto':
            raise UserError('--patience needs default_hooks.checkpoint.save_best, the metric, and the config has none')
        # COCO's metrics are shares, the others percents; both steps are half of the last digit that is logged.
        min_delta = 0.0005 if monitor.startswith('coco/') else 0.05
        hook = dict(type='mmlightvit.EarlyStoppingHook', monitor=monitor, patience=patience, min_delta=min_delta)
        hooks.append(dict(hook, rule=checkpoint.get('rule') or 'greater'))
    cfg.custom_hooks = hooks


def use_logs(cfg: Config, names: Sequence[str]) -> None:
    """Tell other programs of the run, besides the log file.

    Raises:
        UserError: One is not known.
    """
    wanted = dict.fromkeys(name.strip().lower() for item in names for name in item.split(',') if name.strip())
    for name in wanted:
        if name not in PROGRAMS:
            hint = nearest(name, PROGRAMS)
            known = f'nearest: {hint}' if hint else f'expected {", ".join(PROGRAMS)}'
            raise UserError(f'--log {name}: no logger of that name; {known}')
    if cfg.get('visualizer') is None:
        cfg.visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
    there = cfg.visualizer.get('vis_backends') or []
    there = list(there) if isinstance(there, (list, tuple)) else [there]
    ours = [dict(type='mmlightvit.Tracker', backend=name, name=name) for name in wanted]
    cfg.visualizer.vis_backends = [backend for backend in there if backend.get('name') not in wanted] + ours


# -- ways of running and training -------------------------------------------------------------------------------------
def move_data(cfg: Config, root: str) -> None:
    """Look for the data of every split and evaluator in another folder."""
    from mmlightvit.data.data_root import move_data_root

    move_data_root(cfg, os.path.expanduser(root))


def change_settings(cfg: Config, settings: Mapping[str, str]) -> None:
    """Change any setting, by its key."""
    from mmlightvit.cli.settings import change

    change(cfg, settings)


def take_local_rank(cfg: Config, rank: int) -> None:
    """Put what older launchers hand over as an option where newer ones put it."""
    os.environ.setdefault('LOCAL_RANK', str(rank))


def use_amp(cfg: Config, on: bool = True) -> None:
    """Train in mixed precision.

    Raises:
        UserError: The config's optimizer wrapper is one of its own kind.
    """
    kind = kind_of(cfg.optim_wrapper) or 'OptimWrapper'
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp replaces OptimWrapper, and the config has optim_wrapper.type={kind}')
    cfg.optim_wrapper.type = 'mmlightvit.AmpOptimWrapper'


def use_ema(cfg: Config, momentum: float) -> None:
    """Keep a moving average of the weights. A config that keeps one already only gets the momentum.

    Raises:
        UserError: ``momentum`` is not in (0, 1).
    """
    if not 0 < momentum < 1:
        raise UserError(f'--ema expects a momentum between 0 and 1, the share of the new weights; got {momentum}')
    # Before the checkpoint hook, so that what is saved as the model is the average.
    _tune_hook(cfg, dict(type='mmengine.EMAHook', priority='ABOVE_NORMAL'), momentum=momentum)


def use_compile(cfg: Config, mode: str) -> None:
    """Compile the backbone. A config that does so already only gets the mode.

    Raises:
        UserError: torch.compile has no such mode.
    """
    import torch

    try:
        torch.compile(torch.nn.Identity(), mode=mode)  # looks at the mode, and compiles nothing yet
    except RuntimeError as error:
        raise UserError(f'--compile: {error}') from error
    _tune_hook(cfg, dict(type='mmlightvit.CompileBackboneHook'), mode=mode)


def _tune_hook(cfg: Config, hook: dict[str, Any], **settings: Any) -> None:
    """Set arguments of the custom hook of a kind, which is added where there is none."""
    hooks = custom_hooks(cfg)
    there = next((item for item in hooks if kind_of(item) == kind_of(hook)), None)
    if there is None:
        cfg.custom_hooks = [*hooks, {**hook, **settings}]
    else:
        there.update(settings)


def custom_hooks(cfg: Config, but: str | None = None) -> list[Any]:
    """The custom hooks of a config, without those of a kind."""
    return [hook for hook in cfg.get('custom_hooks') or [] if but is None or kind_of(hook) != but]


def use_auto_scale_lr(cfg: Config, on: bool = True) -> None:
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


def resume(cfg: Config, source: str) -> None:
    """Go on from a checkpoint.

    Args:
        cfg: The config, changed in place; it has its work directory.
        source: The checkpoint; :data:`LAST` takes the last one of the work directory, ``'auto'`` too, if there is one.

    Raises:
        UserError: There is none to go on from.
    """
    from mmlightvit.durable.find import goes_on

    cfg.resume = True
    cfg.load_from = None if source in (LAST, 'auto') else source
    if source == LAST and not goes_on(cfg):
        raise UserError(
            f'--resume: there is no checkpoint in {cfg.work_dir} to go on from; name the work directory of the run '
            'with --work-dir DIR, or use --resume auto, which starts from the beginning where there is none'
        )


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
    ours = kind_of(backbone) == 'LightViT'  # others are loaded as far as they fit
    fresh = cfg.get('load_fresh') or ()
    kept = any(part.startswith('backbone') for part in ([fresh] if isinstance(fresh, str) else fresh))
    if cfg.get('load_from') is not None and ours and not kept:
        backbone.pop('init_cfg', None)


# -- balance ----------------------------------------------------------------------------------------------------------
def balance(cfg: Config, how: str, folder: DatasetFolder) -> None:
    """Give rare classes more weight, and print what each class has got.

    Args:
        cfg: The config, changed in place.
        how: ``'repeat'`` shows their pictures more often; ``'loss'`` weighs their errors more; ``'none'`` does nothing.
        folder: The data.

    Raises:
        UserError: The task has no such way.
    """
    has_maps = TASKS[folder.task].has_label_map
    if how == 'none':
        return
    if how == 'repeat' and has_maps:
        raise UserError('--balance repeat is not for segmentation, whose pictures hold most classes; use loss')
    if how == 'loss' and TASKS[folder.task].has_objects:
        raise UserError(f'--balance loss is for classification and segmentation, not for {folder.task}; use repeat')
    shares = _shares(folder)
    if how == 'repeat':
        from statistics import median

        threshold = median(share for share in shares if share)
        loader = cfg.train_dataloader
        loader.dataset = dict(type='ClassBalancedDataset', oversample_thr=threshold, dataset=loader.dataset)
        weights = [max(1.0, math.sqrt(threshold / share)) if share else 0.0 for share in shares]
    else:
        weights = [1 / math.log(1.1 + share) for share in shares]
        mean = sum(weights) / len(weights)
        weights = [round(weight / mean, 4) for weight in weights]
        for head in _dicts([cfg.model[name] for name in TASKS[folder.task].heads if name in cfg.model]):
            for key in ('loss', 'loss_decode'):
                if isinstance(head.get(key), dict):
                    head[key]['class_weight'] = weights
    for name, weight in zip(folder.classes, weights):
        print(f'{name}: {"pictures" if how == "repeat" else "loss"} x {weight:.2f}')


def _shares(folder: DatasetFolder) -> list[float]:
    """The share of each class: of the training pictures that have it, or of their labelled pixels."""
    pictures = folder.pictures('train')
    if not TASKS[folder.task].has_label_map:
        names = [{picture.label} if picture.label else {item.label for item in picture.objects} for picture in pictures]
        return [sum(name in labels for labels in names) / len(pictures) for name in folder.classes]
    import numpy as np
    from PIL import Image

    counts = np.zeros(256, dtype=np.int64)
    for picture in pictures:
        assert picture.label_map is not None
        with Image.open(picture.label_map) as image:
            counts += np.bincount(np.asarray(image).ravel(), minlength=256)
    counts[_IGNORED] = 0
    return (counts[: len(folder.classes)] / max(1, counts.sum())).tolist()


def choose_device(name: str) -> None:
    """Let this process see one device only; before torch looks for them.

    Raises:
        UserError: It is none.
    """
    kind, _, number = name.partition(':')
    if kind not in ('cpu', 'cuda') or (number and not number.isdecimal()) or (kind == 'cpu' and number):
        raise UserError(f'--device {name}: expected cpu, cuda or cuda:N')
    if kind == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    elif number:
        os.environ['CUDA_VISIBLE_DEVICES'] = number


def _has_masks(model: Any) -> bool:
    return 'mask_head' in (model.get('roi_head') or {})


def _dicts(value: Any) -> Iterator[dict]:
    """Every dict inside a config, itself included."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _dicts(item)
