# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit predict``: pictures and videos through a model, and what it found into files."""

from __future__ import annotations

import argparse
import statistics
import sys
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlightvit.cli.arguments import (
    Parser,
    add_batch_argument,
    add_folder_arguments,
    add_model_arguments,
    model_options,
    output_folder,
    refuse_unread,
)
from mmlightvit.errors import UserError
from mmlightvit.inference import outputs, sources
from mmlightvit.inference.model import OF_OBJECTS, Model, Options
from mmlightvit.inference.outputs import KINDS, Outputs, Writer
from mmlightvit.inference.sources import Entry
from mmlightvit.load import load_model
from mmlightvit.pictures.read import Picture, PictureError
from mmlightvit.pictures.result import Result
from mmlightvit.tasks import TASKS

if TYPE_CHECKING:
    from rich.progress import Progress


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = Parser(
        'predict',
        'Find what a model knows in pictures and videos. MODEL is a model folder, a work directory, an exported file, '
        'a checkpoint with its --config, or a name of `mmlightvit models`.',
        ['work_dirs/demo/detection data/digits/detection/val', 'model/ film.mp4 --save pictures csv --every 5'],
    )
    add: Any = parser.add_argument
    add('model', metavar='MODEL', help='the model')
    add(
        'source', metavar='SOURCE', nargs='+',
        help='picture, folder, quoted glob, list.txt, video, camera (0, 1), http(s):// or rtsp:// address, - (stdin)',
    )  # fmt: skip
    add_model_arguments(parser)
    add('--score-thr', type=float, metavar='X', help='one threshold for all classes (default: those of the model)')
    add('--classes', nargs='+', metavar='NAME', help='only these classes')
    add('--max-det', type=int, metavar='N', help="most objects of a picture (default: the config's)")
    add('--size', type=int, metavar='PX', help="short side, of classifiers the square (default: the model's)")
    add_batch_argument(parser)
    add('--every', type=int, default=1, metavar='N', help='each N-th frame of a video (default 1)')
    add('--recursive', action='store_true', help='folders with all that is below them')
    add(
        '--save', nargs='+', choices=(*KINDS, 'none'), default=['pictures', 'json'], metavar='KIND',
        help=f'any of {" ".join(KINDS)} none (default pictures json)',
    )  # fmt: skip
    add_folder_arguments(parser, 'outputs/predict')
    add('--coco-gt', metavar='FILE', help='COCO file with the ids of images and categories for --save coco')
    add('--explain', action='store_true', help="the global tokens' attention for what was found, beside each picture")
    add('--on-error', choices=('stop', 'skip'), help='default: stop for one named picture, skip otherwise')
    add('--json', action='store_true', help='print predictions.json instead of a line per picture')
    return parser


def run(args: argparse.Namespace) -> int:
    """Predict; the exit code is 1 if anything was skipped."""
    if args.every < 1:
        raise UserError(f'--every: expected at least 1, got {args.every}')
    if 'none' in args.save and len(args.save) > 1:
        raise UserError('--save none stands alone')
    kinds = [kind for kind in dict.fromkeys(args.save) if kind != 'none']
    if args.coco_gt is not None and 'coco' not in kinds:
        raise UserError('--coco-gt is for --save coco')
    options = Options(args.score_thr, args.classes, args.max_det, args.size, True, args.batch)
    entries = sources.find(args.source, args.recursive)
    model = load_model(args.model, **model_options(args))
    if not TASKS[model.task].has_objects:
        refuse_unread(args, OF_OBJECTS, f'a model for {model.task} finds no objects')
    outputs.check_kinds(kinds, model.task)
    folder = output_folder(args) if kinds or args.explain else None
    writers = _writers(args, model, kinds, folder)
    job = _Job(model, entries, options, writers, args)
    job.run()
    report = sys.stderr if args.json else sys.stdout
    print(job.summary(folder), file=report)
    for path, reason in job.skipped:
        print(f'skipped: {path}: {reason}', file=report)
    return 1 if job.skipped else 0


def _writers(args: argparse.Namespace, model: Model, kinds: Sequence[str], folder: Path | None) -> Outputs:
    writers: list[Writer] = []
    threshold = args.score_thr if args.score_thr is not None else model.thresholds
    if args.json:
        writers.append(outputs.JsonWriter(Path(), model.info, threshold, sys.stdout))
    if folder is not None:
        for kind in kinds:
            if kind == 'json':
                writers.append(outputs.JsonWriter(folder, model.info, threshold))
            elif kind == 'coco':
                writers.append(outputs.CocoWriter(folder, model.info, Path(args.coco_gt) if args.coco_gt else None))
            else:
                writers.append(outputs.KINDS[kind](folder, model.info))
        if args.explain:
            from mmlightvit.explain.tokens import ExplainWriter

            writers.append(ExplainWriter(folder, model))
    return Outputs(writers)


class _Job:
    """One run over all sources, in memory that does not grow with them."""

    def __init__(
        self, model: Model, entries: Sequence[Entry], options: Options, outputs: Outputs, args: argparse.Namespace
    ) -> None:
        self.model, self.entries, self.options, self.outputs = model, entries, options, outputs
        self.every, self.quiet = args.every, args.json
        single = len(entries) == 1 and entries[0].name == args.source[0] and not entries[0].is_video
        self.stops = (args.on_error or ('stop' if single else 'skip')) == 'stop'
        self.skipped: list[tuple[str, str]] = []
        self.pictures = self.objects = 0
        self.times = {name: array('f') for name in ('read', 'model', 'after')}
        #: Pictures that the model has, oldest first: number of the source, the source, a frame's place and rate.
        self._waiting: deque[tuple[int, Entry, str, float | None]] = deque()
        self._progress = _progress(len(entries)) if sys.stderr.isatty() else None

    def run(self) -> None:
        """Go through everything; whatever ends it, the files so far are completed."""
        with self.outputs, self._progress or nullcontext():
            for found in self.model.stream(self._read(), self.options):
                number, entry, frame, rate = self._waiting.popleft()
                if isinstance(found, Result):
                    self._take(found, number, entry, frame, rate)
                elif self.stops:
                    raise found
                else:
                    self.skipped.append((found.name, found.reason))
                    self.outputs.skip(found.name, found.reason)
                if self._progress is not None:
                    self._progress.advance(self._progress.task_ids[0])

    def _read(self) -> Iterator[Picture | PictureError]:
        for number, entry in enumerate(self.entries, 1):
            for count, picture in enumerate(entry.read(self.every), 1):
                frame, rate = '', None
                if isinstance(picture, Picture) and picture.rate is not None:
                    rate = picture.rate
                    frame = f' (frame {count}{f"/{picture.of}" if picture.of else ""})'
                    if self._progress is not None and count == 1 and picture.of:
                        bar = self._progress.tasks[0]
                        self._progress.update(bar.id, total=(bar.total or 0) + picture.of - 1)
                self._waiting.append((number, entry, frame, rate))
                yield picture

    def _take(self, found: Result, number: int, entry: Entry, frame: str, rate: float | None) -> None:
        self.pictures += 1
        self.objects += len(found)
        for name, times in self.times.items():
            times.append(found.speed[name])
        self.outputs.add(found, entry.place, rate)
        if not self.quiet:
            kind = 'video' if frame else 'image'
            print(
                f'{kind} {number}/{len(self.entries)}{frame} {entry.name}: {found.height}x{found.width}, '
                f'{found.summary()}, {found.speed["model"]:.0f} ms',
                flush=True,
            )

    def summary(self, folder: Path | None) -> str:
        """The line at the end."""
        objects = f', {_count(self.objects, "object")}' if TASKS[self.model.task].has_objects else ''
        read, model, after = (statistics.median(times) if times else 0 for times in self.times.values())
        return (
            f'{_count(self.pictures, "picture")}{objects}, {len(self.skipped)} skipped; median {read:.0f} ms reading, '
            f'{model:.0f} ms model, {after:.0f} ms after' + (f'; {folder}' if folder is not None else '')
        )


def _count(number: int, name: str) -> str:
    return f'{number} {name}' if number == 1 else f'{number} {name}s'


def _progress(total: int) -> Progress:
    """A bar on stderr with rate and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f'{task.speed:.1f}/s' if task.speed else '')

    columns = BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn()
    # Lines on stdout are moved above the bar only where both go to the same terminal.
    progress = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
    progress.add_task('', total=total)
    return progress
