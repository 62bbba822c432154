# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""One way into training and testing for every task: what tools/train.py and tools/test.py do.

The config says which toolbox it is for (``default_scope``); an option changes only what it is named after.
"""

from __future__ import annotations

import argparse
import importlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from mmlightvit.checkpoint.install import secure_loading
from mmlightvit.cli import preflight
from mmlightvit.data.data_root import move_data_root
from mmlightvit.durable import launch
from mmlightvit.durable.bfloat16 import complete_bfloat16
from mmlightvit.errors import AllRanksError, UserError

DEFAULT_EMA_MOMENTUM = 2e-4  # of MMEngine's EMAHook: an average over about 5000 steps


class Toolbox(NamedTuple):
    """A toolbox of the OpenMMLab family: what it is for, and what to install to have it."""

    task: str
    distribution: str


TOOLBOXES = {
    'mmdet': Toolbox('detection', 'onedl-mmdetection'),
    'mmpretrain': Toolbox('classification', 'onedl-mmpretrain'),
    'mmseg': Toolbox('segmentation', 'onedl-mmsegmentation'),
}


# -- arguments --------------------------------------------------------------------------------------------------------
def train_parser() -> argparse.ArgumentParser:
    """The arguments of tools/train.py."""
    parser = argparse.ArgumentParser(
        prog='tools/train.py',
        description='Train a model: detection, classification or segmentation, as the config says.',
        epilog='example: python tools/train.py configs/mask_rcnn_lightvit_t_1x.py --data-root /data/coco --amp',
    )
    parser.add_argument('config', help='config file')
    _add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='FILE',
        help='go on from a checkpoint; without FILE from the last one in the work directory, if there is one',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16 on a GPU, bfloat16 on the CPU')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by this run's batch size over the config's auto_scale_lr.base_batch_size",
    )
    parser.add_argument(
        '--ema',
        nargs='?',
        type=float,
        const=DEFAULT_EMA_MOMENTUM,
        metavar='MOMENTUM',
        help='keep an exponential moving average of the weights, validate it and save it as the model; '
        f'MOMENTUM is the share of the new weights in each step (default {DEFAULT_EMA_MOMENTUM})',
    )
    return parser


def test_parser() -> argparse.ArgumentParser:
    """The arguments of tools/test.py."""
    parser = argparse.ArgumentParser(
        prog='tools/test.py',
        description="Test a checkpoint on the config's test set: detection, classification or segmentation.",
        epilog='example: python tools/test.py configs/mask_rcnn_lightvit_t_1x.py work_dirs/run/epoch_12.pth '
        '--show-dir pictures',
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or address')
    _add_common_arguments(parser)
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16 on a GPU, bfloat16 on the CPU')
    parser.add_argument(
        '--out',
        metavar='PATH',
        help='keep the predictions: a .pkl file (detection, classification) or a folder of label maps (segmentation)',
    )
    parser.add_argument('--show', action='store_true', help='show each prediction in a window')
    parser.add_argument('--show-dir', metavar='DIR', help='write a picture of each prediction to DIR')
    parser.add_argument('--wait-time', type=float, default=2.0, help='seconds a window of --show stays (default 2)')
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation with the config's tta_model and tta_pipeline (boxes, not instance masks)",
    )
    return parser


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--work-dir', metavar='DIR', help='logs and checkpoints (default work_dirs/CONFIG)')
    parser.add_argument('--data-root', metavar='DIR', help='where the data is: moves every split and evaluator file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change settings of the config, e.g. train_dataloader.batch_size=4 model.backbone.arch=small',
    )
    parser.add_argument(
        '--compile',
        nargs='?',
        const='default',
        metavar='MODE',
        help='compile the backbone with torch.compile in MODE (default "default"); takes minutes on the first batch',
    )
    parser.add_argument('--launcher', choices=launch.LAUNCHERS, default='none', help='what started the processes')
    parser.add_argument('--local-rank', '--local_rank', type=int, help='set by older launchers; LOCAL_RANK wins')


# -- config -----------------------------------------------------------------------------------------------------------
def load_config(path: str) -> Config:
    """Read a config without importing what it names.

    Raises:
        UserError: The file, a base of it, or the toolbox its base lies in does not exist; or it names no toolbox.
    """
    if not os.path.isfile(path):
        raise UserError(f'config not found: {path}; configs are in {Path(__file__).resolve().parents[2] / "configs"}')
    try:
        cfg = Config.fromfile(path, import_custom_modules=False)
    except FileNotFoundError as error:
        raise UserError(f'{path} builds on a file that does not exist: {error}') from error
    except ModuleNotFoundError as error:
        raise UserError(f'{path} needs a package that is not installed: {error}; see docs/install.md') from error
    scope = cfg.get('default_scope')
    if scope not in TOOLBOXES:
        raise UserError(f'{path} sets default_scope={scope!r}; expected one of {", ".join(TOOLBOXES)}')
    if find_spec(scope) is None:
        toolbox = TOOLBOXES[scope]
        raise UserError(
            f'{path} is a {toolbox.task} config and needs {scope}, which is not installed: '
            f'pip install --no-build-isolation {toolbox.distribution} (see docs/install.md)'
        )
    return cfg


def _apply_common(cfg: Config, args: argparse.Namespace) -> None:
    if args.data_root is not None:
        move_data_root(cfg, os.path.expanduser(args.data_root))
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.compile is not None:
        use_compile(cfg, args.compile)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)


def prepare_training(args: argparse.Namespace) -> Config:
    """The config with the options of tools/train.py applied and everything it reads found.

    Raises:
        UserError: Something is missing, or an option does not fit the config.
    """
    cfg = load_config(args.config)
    _apply_common(cfg, args)
    missing = [key for key in ('train_dataloader', 'train_cfg', 'optim_wrapper') if cfg.get(key) is None]
    if missing:
        raise UserError(f'{args.config} cannot be trained: it has no {", ".join(missing)}')
    if args.amp:
        use_amp(cfg)
    if args.ema is not None:
        use_ema(cfg, args.ema)
    if args.auto_scale_lr:
        use_auto_scale_lr(cfg)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    preflight.check_training(cfg)
    return cfg


def prepare_testing(args: argparse.Namespace) -> Config:
    """The config with the options of tools/test.py applied and everything it reads found.

    Raises:
        UserError: Something is missing, or an option does not fit the config.
    """
    cfg = load_config(args.config)
    _apply_common(cfg, args)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    preflight.check_testing(cfg, args.checkpoint)
    if args.amp:
        cfg.test_cfg.fp16 = True  # MMEngine's name; its autocast takes bfloat16 on the CPU
    if args.show or args.show_dir is not None:
        show_predictions(cfg, window=args.show, folder=args.show_dir, wait_time=args.wait_time)
    if args.out is not None:
        keep_predictions(cfg, args.out)
    if args.tta:
        use_tta(cfg)
    return cfg


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
    """Turn the toolbox's visualization hook on.

    Raises:
        UserError: A window is asked for without a display, or the config has no such hook.
    """
    if window and os.name == 'posix' and not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
        raise UserError('--show needs a display, and this session has none; write files with --show-dir DIR')
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise UserError('--show and --show-dir need default_hooks.visualization, and the config has none')
    hook.show = window
    hook.wait_time = wait_time
    out_dir = None if folder is None else os.path.abspath(folder)
    if cfg.default_scope == 'mmpretrain':
        hook.enable = True
        hook.interval = 1
        hook.out_dir = out_dir
        return
    hook.draw = True
    if cfg.default_scope == 'mmdet':
        hook.test_out_dir = out_dir
    elif out_dir is not None:
        cfg.visualizer.save_dir = out_dir  # mmseg's hook draws into the visualizer's own folder


def keep_predictions(cfg: Config, path: str) -> None:
    """Write the predictions of the test set to ``path``.

    Raises:
        UserError: ``path`` does not suit the task, or its folder cannot be made.
    """
    if cfg.default_scope == 'mmseg':
        _make_folder(path)
        metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        for metric in metrics:
            metric.output_dir = path
            metric.keep_results = True
        return
    if not path.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out expects a file name that ends in .pkl, got {path}')
    _make_folder(os.path.dirname(path) or '.')
    metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    kind = 'DumpDetResults' if cfg.default_scope == 'mmdet' else 'DumpResults'
    cfg.test_evaluator = [*metrics, ConfigDict(type=kind, out_file_path=path)]


def _make_folder(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError(f'folder {path} cannot be made ({error.strerror}); choose another with --out PATH') from error


def use_tta(cfg: Config) -> None:
    """Test with the config's augmentations and its way of merging their predictions.

    Raises:
        UserError: The config brings none, or the model predicts instance masks.
    """
    if cfg.default_scope == 'mmdet' and cfg.model.get('roi_head', {}).get('mask_head') is not None:
        raise UserError(
            "--tta merges boxes only (mmdet's DetTTAModel), and this model predicts instance masks too; "
            'test it without --tta'
        )
    missing = [key for key in ('tta_model', 'tta_pipeline') if cfg.get(key) is None]
    if missing:
        raise UserError(f'--tta needs {" and ".join(missing)}, and the config has none')
    drawing = (cfg.get('default_hooks') or {}).get('visualization') or {}
    if cfg.default_scope == 'mmpretrain' and drawing.get('enable'):
        raise UserError(
            "--tta with --show or --show-dir: mmpretrain draws the network's input, of which there are several then; "
            'leave one of them out'
        )
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset = cfg.test_dataloader.dataset
    while isinstance(dataset.get('dataset'), dict):
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline


# -- running ----------------------------------------------------------------------------------------------------------
def import_toolbox(scope: str) -> None:
    """Register everything the toolbox has.

    Raises:
        UserError: It cannot be imported: the environment is broken, which tools/misc/check_env.py explains.
    """
    try:
        importlib.import_module(f'{scope}.utils').register_all_modules(init_default_scope=False)
    except (ImportError, AssertionError) as error:  # the toolboxes assert the versions they can work with
        raise UserError(f'{scope} cannot be imported: {error}; run python tools/misc/check_env.py') from error


def build_runner(cfg: Config) -> Runner:
    """The runner the config asks for (``runner_type``), MMEngine's otherwise."""
    if cfg.get('custom_imports'):
        import_modules_from_strings(**cfg.custom_imports)
    secure_loading()
    import_toolbox(cfg.default_scope)
    complete_bfloat16()
    env_cfg = cfg.get('env_cfg') or {}
    launch.init_distributed(cfg.launcher, env_cfg.get('dist_cfg'), env_cfg.get('mp_cfg'))
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def train(args: argparse.Namespace) -> Runner:
    """Train as ``args`` of :func:`train_parser` say; returns the runner after training."""
    _export_local_rank(args)
    with launch.reported_once(args.launcher):
        runner = build_runner(prepare_training(args))
    with launch.reported_once(args.launcher, AllRanksError):
        runner.train()
    launch.leave_distributed()
    return runner


def test(args: argparse.Namespace) -> dict[str, float]:
    """Test as ``args`` of :func:`test_parser` say; returns the metrics."""
    _export_local_rank(args)
    with launch.reported_once(args.launcher):
        runner = build_runner(prepare_testing(args))
    metrics = runner.test()
    launch.leave_distributed()
    return metrics


def _export_local_rank(args: argparse.Namespace) -> None:
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
