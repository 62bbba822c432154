# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The part that the reports of all tasks share: a folder, a page, and the form of numbers."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.durable.safe_loading.atomic import atomic_write
from mmlightvit.evaluation import figures, shown
from mmlightvit.evaluation.matches import FEWEST
from mmlightvit.evaluation.page import Page
from mmlightvit.evaluation.truth import Truth
from mmlightvit.pictures.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Truth and prediction of a picture, given its place and pixels.
Pair = Callable[[int, NDArray[np.uint8]], Sequence[Result]]
FORMAT = 'mmlightvit-report/1'
WORST = 24


class Report(ABC):
    """A report of any task; ``metrics`` becomes metrics.json."""

    def __init__(self, model: Mapping[str, Any], truth: Truth, out: Path) -> None:
        self.truth, self.out, self.classes = truth, out, list(truth.classes)
        self.notes = list(truth.notes)
        count = len(truth.pictures)
        self.metrics: dict[str, Any] = dict(
            format=FORMAT,
            model=dict(model),
            data=dict(name=truth.name, task=truth.task, pictures=count, classes=self.classes),
        )
        name = model.get('name') or 'model'
        self.page = Page(f'{name} on {truth.name}', f'{many(count, "picture")}, {many(len(self.classes), "class")}')
        if count < FEWEST:
            self.notes.append(f'With under {FEWEST} pictures there is no saying how far off the numbers are.')

    def write(self) -> None:
        """Write everything."""
        self.fill()
        self.page.write(self.out / 'index.html')
        self.metrics['notes'] = self.notes
        write_text(self.out / 'metrics.json', json.dumps(self.metrics, indent=1, ensure_ascii=False) + '\n')

    @abstractmethod
    def fill(self) -> None:
        """Measure, and fill ``page`` and ``metrics``."""

    def show_notes(self) -> None:
        for note in self.notes:
            self.page.text(note, 'note')

    def save(self, name: str, figure: Figure) -> Path:
        path = self.out / f'{name}.png'
        atomic_write(path, lambda file: figure.savefig(file, format='png'))
        return path

    def save_table(self, name: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator='\n')
        writer.writerow(heads)
        writer.writerows(['' if value is None else value for value in row] for row in rows)
        write_text(self.out / f'{name}.csv', buffer.getvalue())

    def confusion(self, matrix: NDArray, background: bool) -> None:
        """The section, confusion.csv and confusion.png."""
        names = self.classes + (['background'] if background else [])
        self.save_table('confusion', ['truth', *names], [[name, *row] for name, row in zip(names, matrix.tolist())])
        path = self.save('confusion', figures.confusion(matrix, names))
        self.page.figures([(path, 'confusion matrix', 'Rows are the truth, columns the prediction.')])
        mixed = [
            (int(matrix[i, j]), names[i], names[j], float(matrix[i, j] / matrix[i].sum()))
            for i, j in zip(*np.nonzero(matrix[: len(self.classes), : len(self.classes)]))
            if i != j
        ]
        if mixed:
            self.page.text('Mixed up most often:')
            rows = [[i, j, count, share] for count, i, j, share in sorted(mixed, reverse=True)[:8]]
            self.page.table(['truth', 'taken for', 'how often', 'share of the truth'], rows)

    def worst(self, places: Sequence[tuple[int, str]], pair: Pair) -> None:
        """The section and ``worst/``; worst picture first."""
        self.page.section(
            'Worst pictures', 'Truth on the left, prediction on the right; the worst first. Click one to enlarge it.'
        )
        (self.out / 'worst').mkdir(exist_ok=True)
        cells: list[tuple[bytes, str]] = []
        for place, caption in places:
            path = self.truth.path_of(place)
            if path is not None and len(cells) < WORST:
                image = shown.side_by_side(*pair(place, shown.read(path)))
                name = f'{len(cells) + 1:02}_{Path(self.truth.pictures[place]).stem}.jpg'
                image.save(self.out / 'worst' / name, 'JPEG', quality=90)
                cells.append((shown.for_page(image), f'{self.truth.pictures[place]}: {caption}'))
        if cells:
            self.page.pictures(cells)
        else:
            self.page.text(
                'No picture has a mistake.' if not places else 'The pictures are not where the labels say.', 'soft'
            )


def with_interval(value: float | None, ends: tuple[float, float] | None, most: float = 1.0) -> dict[str, float | None]:
    low, high = (None, None) if ends is None else (max(ends[0], 0.0), min(ends[1], most))
    return dict(value=value, low=low, high=high)


def shown_range(interval: Mapping[str, float | None], digits: int = 3) -> str:
    return '' if interval['low'] is None else f'[{interval["low"]:.{digits}f}, {interval["high"]:.{digits}f}]'


def number(value: float | None, digits: int = 3, unit: str = '') -> str:
    return '–' if value is None else f'{value:.{digits}f}{unit}'


def percent(value: float) -> str:
    return f'{100 * value:.0f} %'


def many(number: int, noun: str) -> str:
    """``1 class``, ``1,200 classes``."""
    return f'{number:,} {noun}' + ('' if number == 1 else 'es' if noun.endswith('s') else 's')


def write_text(path: Path, text: str) -> None:
    atomic_write(path, lambda file: file.write(text.encode()))
