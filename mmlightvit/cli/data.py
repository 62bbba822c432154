# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit data import|split|check|show|stats``: from labels of any format to a folder to train on."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlightvit.cli.arguments import Parser
from mmlightvit.data.formats import FORMATS
from mmlightvit.tasks import SPLITS, TASKS

if TYPE_CHECKING:
    from mmlightvit.data.importer import Imported


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    main = Parser(
        'data',
        'Labels of any common format to one folder to train on; then split, check and look at them.',
        ['import labelme_folder --out pets', 'check pets'],
    )
    commands = main.add_subparsers(dest='command', required=True, metavar='COMMAND')
    _import(commands)
    _split(commands)
    _check(commands)
    _show(commands)
    _stats(commands)
    return main


def _add(commands: Any, name: str, help: str, examples: list[str]) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, prog=f'mmlightvit data {name}', help=help, description=help[0].upper() + help[1:] + '.', examples=examples
    )


def _import(commands: Any) -> None:
    add = _add(
        commands,
        'import',
        'read labels of any format and write a prepared folder; the source is never changed',
        ['labelme_folder --out pets', 'coco_folder --out cars --classes car,bus --split 0.7,0.2,0.1'],
    ).add_argument
    add('source', metavar='SOURCE', type=Path, help='folder or file of labels')
    add('--out', metavar='DIR', type=Path, required=True, help='the folder to write')
    add('--format', choices=('auto', *FORMATS), default='auto', help='default: what SOURCE looks like')
    add('--task', choices=tuple(TASKS), help='default: the most that the labels allow')
    add('--images', metavar='DIR', type=Path, help='folder of the pictures; default: found beside the labels')
    add('--classes', metavar='FILE|a,b', help='order and selection; of masks: the names of 0, 1, 2, ...')
    add('--labelmap', metavar='FILE', type=Path, help='colours of masks: name:red,green,blue:: a line')
    add('--split', metavar='SHARES', help='train,val[,test]; default: the splits of SOURCE, else 0.8,0.2')
    add('--seed', metavar='N', type=int, default=0, help='of the split (default 0)')
    add('--group-by', metavar='REGEX', help='pictures whose paths match with one first group stay in one split')
    add('--unlabelled', choices=('leave-out', 'negative'), help='pictures without a label file; YOLO: negative')
    add('--min-size', metavar='PX', type=float, default=1.0, help='shortest side of a box (default 1)')
    add('--copy', action='store_true', help='copy the pictures into DIR too')
    add('--overwrite', action='store_true', help='replace a prepared folder')
    add('--strict', action='store_true', help='exit code 1 if anything is left out')


def _split(commands: Any) -> None:
    add = _add(
        commands,
        'split',
        'divide the pictures of a prepared folder anew; none is moved',
        ['pets --val 0.2 --test 0.1', 'pets --folds 5 --group-by "(cam[0-9]+)_"'],
    ).add_argument
    add('folder', metavar='DIR', type=Path, help='prepared folder')
    add('--val', metavar='SHARE', type=float, default=0.2, help='of the pictures (default 0.2)')
    add('--test', metavar='SHARE', type=float, help='default: the test split stays as it is')
    add('--folds', metavar='K', type=int, help='write K folds of train and val beside the splits')
    add('--seed', metavar='N', type=int, default=0, help='default 0')
    add('--group-by', metavar='REGEX', help='pictures whose paths match with one first group stay together')


def _check(commands: Any) -> None:
    add = _add(
        commands,
        'check',
        'read data as training will and list every problem; exit code 1 if there is any',
        ['pets', 'configs/mask_rcnn_lightvit_t_1x.py --json'],
    ).add_argument
    add('data', metavar='DIR|CONFIG', type=Path, help='prepared folder, or a config')
    add('--split', nargs='+', choices=SPLITS, default=list(SPLITS), help='default: all that it has')
    add('--json', action='store_true', help='one JSON document on stdout')


def _show(commands: Any) -> None:
    add = _add(
        commands,
        'show',
        'draw a sheet of pictures with their labels',
        ['pets', 'pets --augmented --count 12 --out augmented.png'],
    ).add_argument
    add('data', metavar='DIR|CONFIG', type=Path, help='prepared folder, or a config')
    add('--split', choices=SPLITS, default='train', help='default train')
    add('--count', metavar='N', type=int, default=24, help='pictures (default 24)')
    add('--augmented', action='store_true', help='as the training pipeline gives them')
    add('--classes', metavar='NAME', nargs='+', help='only pictures with one of these')
    add('--seed', metavar='N', type=int, default=0, help='which pictures (default 0)')
    add('--out', metavar='FILE', type=Path, help='default: DIR/show.png, or CONFIG.png')


def _stats(commands: Any) -> None:
    add = _add(
        commands,
        'stats',
        'count objects, classes and sizes; print a table and draw stats.png',
        ['pets', 'pets --json'],
    ).add_argument
    add('folder', metavar='DIR', type=Path, help='prepared folder')
    add('--out', metavar='FILE', type=Path, help='default: DIR/stats.png')
    add('--json', action='store_true', help='one JSON document on stdout, and no picture')


def run(args: argparse.Namespace) -> int:
    """Do the command."""
    return globals()[f'run_{args.command}'](args)


def run_import(args: argparse.Namespace) -> int:
    from mmlightvit.cli.check import print_report
    from mmlightvit.data.check import check_folder
    from mmlightvit.data.importer import Options, import_labels

    names = Options.__dataclass_fields__
    done = import_labels(args.source, args.out, Options(**{key: getattr(args, key) for key in names}))
    _print_import(done)
    report = check_folder(done.folder, done.probes)
    print_report(report)
    print(f'train: python tools/train.py {done.folder.config} --auto-scale-lr')
    return int(bool(report.refused) or (args.strict and bool(done.labels.lost or report.problems)))


def _print_import(done: Imported) -> None:
    folder, lost = done.folder, done.labels.lost
    source = folder.info['source']
    print(f'{source["path"]} ({source["format"]}) -> {folder.path}: {folder.task}, {len(folder.classes)} classes')
    for split, item in folder.info['splits'].items():
        objects = f' {item["objects"]:>8} objects' if 'objects' in item else ''
        print(f'  {split:<6} {item["pictures"]:>7} pictures{objects}')
    for note in done.labels.notes:
        print(f'note: {note}')
    for reason, count in Counter(loss.reason for loss in lost).most_common():
        print(f'left out: {count} x {reason}')
    if lost:
        print(f'  each with file and line in {folder.path / "lost.csv"}')


def run_split(args: argparse.Namespace) -> int:
    from mmlightvit.data.resplit import write_folds, write_split

    if args.folds:
        notes = write_folds(args.folder, args.folds, args.seed, args.group_by)
        print(f'{args.folds} folds in {args.folder}')
    else:
        counts, notes = write_split(args.folder, args.val, args.test, args.seed, args.group_by)
        print(', '.join(f'{split} {count}' for split, count in counts.items()))
    for note in notes:
        print(f'note: {note}')
    return 0


def run_check(args: argparse.Namespace) -> int:
    """The former name of ``mmlightvit check``."""
    from mmlightvit.cli import check

    code = check.run(argparse.Namespace(config=str(args.data), data_root=None, cfg_options=None, **vars(args)))
    print('mmlightvit data check is now mmlightvit check; this name goes with the next version', file=sys.stderr)
    return code


def run_show(args: argparse.Namespace) -> int:
    from mmlightvit.data.show import augmented_sheet, labelled_sheet

    out = args.out or (args.data / 'show.png' if args.data.is_dir() else Path(f'{args.data.stem}.png'))
    choice = {'split': args.split, 'count': args.count, 'classes': args.classes, 'seed': args.seed}
    if args.data.is_dir() and not args.augmented:
        from mmlightvit.data.folder import DatasetFolder

        labelled_sheet(DatasetFolder.load(args.data), out, **choice)
    else:
        cfg = _config(args.data / 'config.py' if args.data.is_dir() else args.data)
        augmented_sheet(cfg, out, augmented=args.augmented, **choice)
    print(out)
    return 0


def run_stats(args: argparse.Namespace) -> int:
    from mmlightvit.data.folder import DatasetFolder
    from mmlightvit.data.stats import count, draw, table

    folder = DatasetFolder.load(args.folder)
    counts = count(folder)
    if args.json:
        print(json.dumps(counts, indent=1, ensure_ascii=False))
        return 0
    print(table(counts))
    out = args.out or folder.path / 'stats.png'
    draw(counts, out)
    print(out)
    return 0


def _config(path: Path) -> Any:
    """A config with its toolbox imported."""
    from mmlightvit.cli.config import load_config
    from mmlightvit.toolboxes import import_toolbox

    cfg = load_config(str(path))
    import_toolbox(cfg.default_scope)
    return cfg
