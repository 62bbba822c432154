# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The options of the commands that work on a config: what each changes, and at which stage. Imports nothing heavy.

A config is read, and then changed stage by stage in the order of :data:`STAGES`: a later one has the last word. Within
a stage, options are applied in the order of their table.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmlightvit.cli import recipe, testing
from mmlightvit.cli.arguments import KeyValues
from mmlightvit.cli.config import load_config
from mmlightvit.durable.programs import PROGRAMS
from mmlightvit.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmlightvit.data.folder import DatasetFolder

PATIENCE = 20  # validations without progress after which the training on a folder stops


class Stage(NamedTuple):
    """A step from the file to the config that is run.

    Attributes:
        meaning: The settings that it is for.
        group: Title of its options in the help; None for those that need none.
    """

    meaning: str
    group: str | None = None


#: The order of precedence.
STAGES = {
    'process': Stage('what this process sees, before anything is imported'),
    'folder': Stage('the recipe of a prepared folder, which needs its data', 'for a prepared folder'),
    'paths': Stage('where the data is'),
    'settings': Stage('any setting'),
    'run': Stage('where and how the processes run'),
    'short': Stage('what is changed most', 'short for settings of the config'),
    'method': Stage('ways of training'),
    'length': Stage('the length that was measured for the config of all other options'),
}

#: Settings that a config needs.
NEEDS: dict[str, tuple[str, ...]] = {
    'trained': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    'tested': ('test_dataloader', 'test_evaluator', 'test_cfg'),
}

#: Changes a config, by the option's value.
Change = Callable[..., None]


class Option(NamedTuple):
    """An option of a command.

    Attributes:
        flag: As on the command line.
        stage: Key of :data:`STAGES`.
        change: The setting that takes the value, or what is done with it; None if the command reads it itself.
        argument: The other arguments of ``add_argument``.
        least: The least value.
        implied: The value where it is not given, by the other arguments and the prepared folder.
        of_data: Whether the change takes the prepared folder too, or None for a config.
    """

    flag: str
    stage: str
    change: str | Change | None
    argument: dict[str, Any]
    least: int | None = None
    implied: Callable[[argparse.Namespace, DatasetFolder | None], Any] = lambda *_: None
    of_data: bool = False

    @property
    def name(self) -> str:
        """Where the parsed arguments have its value."""
        return self.argument.get('dest', self.flag.lstrip('-').replace('-', '_'))


def option(flag: str, stage: str, change: str | Change | None, **argument: Any) -> Option:
    """A row of a table; ``argument`` holds the other attributes too."""
    own = {key: argument.pop(key) for key in ('least', 'implied', 'of_data') if key in argument}
    return Option(flag, stage, change, argument, **own)


SWITCH: dict[str, Any] = {'action': 'store_true'}

#: Of every command that reads a config.
CONFIG = (
    option('--data-root', 'paths', recipe.move_data, metavar='DIR',
           help='where the data is: moves every split and evaluator file'),
    option('--cfg-options', 'settings', recipe.change_settings, nargs='+', action=KeyValues, metavar='KEY=VALUE',
           help='change settings of the config, e.g. model.backbone.arch=small; +KEY=VALUE adds one that it does not '
           'have'),
)  # fmt: skip

#: Of training and testing.
RUN = (
    *CONFIG,
    option('--work-dir', 'run', 'work_dir', metavar='DIR', help='logs and checkpoints (default work_dirs/CONFIG)'),
    option('--compile', 'run', recipe.use_compile, nargs='?', const='default', metavar='MODE',
           help='compile the backbone with torch.compile in MODE (default "default"); takes minutes on the first '
           'batch'),
    option('--launcher', 'run', 'launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none',
           help='what started the processes'),
    option('--local-rank', 'run', recipe.take_local_rank, type=int, help=argparse.SUPPRESS),  # older launchers' way
)  # fmt: skip

AMP = 'mixed precision: float16 on a GPU, bfloat16 on the CPU'

TRAIN = (
    option('--device', 'process', None, metavar='D', help='cpu, cuda or cuda:N'),
    option('--model', 'folder', recipe.use_model, of_data=True, metavar='NAME',
           help='model of another config of the task'),
    option('--fold', 'folder', recipe.use_fold, of_data=True, type=int, metavar='K',
           help='train on fold K of `mmlightvit data split --folds`'),
    option('--balance', 'folder', recipe.balance, of_data=True, choices=('none', 'repeat', 'loss'),
           help='rare classes: more often, or heavier'),
    option('--no-report', 'folder', None, **SWITCH, help='leave out the report at the end'),
    *RUN,
    option('--from', 'short', recipe.start_from, dest='source', metavar='MODEL',
           help='start from the weights of a file, folder or name; none'),
    option('--batch', 'short', 'train_dataloader.batch_size', type=int, least=1, metavar='N',
           help='pictures per step; the rate is scaled along'),
    option('--epochs', 'short', recipe.use_epochs, of_data=True, type=int, least=1, metavar='N',
           help='passes over the data; stretches the schedule'),
    option('--lr', 'short', 'optim_wrapper.optimizer.lr', type=float, metavar='X', help='learning rate, as it is'),
    option('--size', 'short', recipe.use_size, type=int, least=32, metavar='PX',
           help='short side, or square, of the pictures'),
    option('--freeze', 'short', 'model.backbone.frozen_stages', type=int, least=0, metavar='N',
           help='keep the stem and the first N stages as they start'),
    option('--workers', 'short', recipe.use_workers, type=int, least=0, metavar='N', help='processes that load data'),
    option('--seed', 'short', 'randomness.seed', type=int, least=0, metavar='N', help='of everything random'),
    option('--log', 'short', recipe.use_logs, nargs='+', metavar='NAME', help=', '.join(PROGRAMS)),
    option('--patience', 'short', recipe.use_patience, type=int, least=0, metavar='N',
           implied=lambda args, folder: PATIENCE if folder is not None else None,
           help=f'stop after N validations without progress, 0: never (default {PATIENCE} for a folder)'),
    option('--amp', 'method', recipe.use_amp, **SWITCH, help=AMP),
    option('--ema', 'method', recipe.use_ema, nargs='?', type=float, const=recipe.EMA_MOMENTUM, metavar='MOMENTUM',
           help='keep an exponential moving average of the weights, validate it and save it as the model; '
           f'MOMENTUM is the share of the new weights in each step (default {recipe.EMA_MOMENTUM})'),
    option('--auto-scale-lr', 'method', recipe.use_auto_scale_lr, **SWITCH,
           implied=lambda args, folder: args.lr is None and (folder is not None or args.batch is not None),
           help="scale the learning rate by this run's batch size over the config's auto_scale_lr.base_batch_size"),
    option('--resume', 'method', recipe.resume, nargs='?', const=recipe.LAST, metavar='FILE',
           help='go on from a checkpoint; without FILE from the last one in the work directory; `--resume auto` starts '
           'from the beginning where there is none'),
    option('--time', 'length', None, metavar='T', help='as many epochs as fit into T, such as 2h30m'),
)  # fmt: skip

TEST = (
    *RUN,
    option('--amp', 'method', 'test_cfg.fp16', **SWITCH, help=AMP),  # its autocast takes bfloat16 on the CPU
    option('--show', 'method', testing.show, **SWITCH, help='show each prediction in a window'),
    option('--wait-time', 'method', testing.wait, type=float, metavar='S',
           help=f'seconds a window of --show stays (default {testing.WAIT_TIME:g})'),
    option('--show-dir', 'method', testing.draw_into, metavar='DIR', help='write a picture of each prediction to DIR'),
    option('--tta', 'method', testing.use_tta, **SWITCH,
           help="test-time augmentation with the config's tta_model and tta_pipeline (boxes, not instance masks)"),
    option('--out', 'method', testing.keep_predictions, metavar='PATH',
           help='keep the predictions: a .json or .pkl file, for segmentation a folder of label maps; a test set '
           'without labels is not measured then'),
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser, options: Sequence[Option]) -> None:
    """``CONFIG``, and the options of a table."""
    parser.add_argument('config', metavar='CONFIG', help='config file')
    groups: dict[str | None, Any] = {None: parser}
    for item in options:
        title = STAGES[item.stage].group
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        names = [item.flag, '--local_rank'] if item.flag == '--local-rank' else [item.flag]
        groups[title].add_argument(*names, **item.argument)


def is_given(item: Option, args: argparse.Namespace) -> bool:
    """Whether an option stands on the command line."""
    return _is_set(getattr(args, item.name))


def _is_set(value: Any) -> bool:
    return value is not None and value is not False  # 0 is a value


def require_values(args: argparse.Namespace, options: Sequence[Option], *, on_folder: bool = False) -> None:
    """Refuse values that cannot be meant; answers before anything is imported.

    Raises:
        UserError: A number is too small, or an option would not be read.
    """
    for item in options:
        value = getattr(args, item.name)
        if item.least is not None and value is not None and value < item.least:
            raise UserError(f'{item.flag} expects a number of at least {item.least}, got {value}')
        if item.stage == 'folder' and is_given(item, args) and not on_folder:
            raise UserError(f'{item.flag} goes with a prepared folder (mmlightvit data import), not with a config')


def configure(
    args: argparse.Namespace,
    options: Sequence[Option] = CONFIG,
    folder: DatasetFolder | None = None,
    to_be: str | None = None,
) -> Config:
    """The config of a command, with its options applied in their order.

    Args:
        args: The command's arguments.
        options: Its table.
        folder: The prepared folder whose config it is.
        to_be: Key of :data:`NEEDS`.

    Raises:
        UserError: The config cannot be read, or an option does not fit it.
    """
    cfg = load_config(args.config if folder is None else str(folder.config))
    if cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    for stage in STAGES:
        for item in options:
            value = getattr(args, item.name) if is_given(item, args) else item.implied(args, folder)
            if item.stage == stage and item.change is not None and _is_set(value):
                _apply(cfg, item, value, folder)
        missing = [key for key in NEEDS.get(to_be or '', ()) if cfg.get(key) is None] if stage == 'settings' else []
        if missing:
            raise UserError(f'{args.config} cannot be {to_be}: it has no {", ".join(missing)}')
    recipe.drop_idle_workers(cfg)
    recipe.drop_replaced_weights(cfg)
    return cfg


def _apply(cfg: Config, item: Option, value: Any, folder: DatasetFolder | None) -> None:
    if not isinstance(item.change, str):
        assert item.change is not None
        item.change(cfg, value, *([folder] if item.of_data else []))
        return
    part: Any = cfg
    for name in item.change.split('.')[:-1]:
        part = part.get(name) or {}
        if name == 'backbone' and not part:
            raise UserError(f'{item.flag} sets {item.change}, and the model of the config has no backbone')
    cfg.merge_from_dict({item.change: value})
