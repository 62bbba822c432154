# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The report of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmlightvit.evaluation import classification, figures, predictions, shown
from mmlightvit.evaluation.base import WORST, Report, shown_range, with_interval
from mmlightvit.evaluation.matches import draws, interval
from mmlightvit.evaluation.truth import Truth


class ClassReport(Report):
    def __init__(self, content: Mapping[str, Any], truth: Truth, out: Path) -> None:
        self.places, self.ranks, self.scores, notes = predictions.class_scores(content, truth)
        super().__init__(content['model'], truth, out)
        self.notes += notes

    def fill(self) -> None:
        assert self.truth.labels is not None
        labels = self.truth.labels[self.places]
        scores = classification.score(labels, self.ranks, self.scores, len(self.classes))
        sample = classification.metrics_of_draws(scores, draws(len(labels)))
        self.metrics['metrics'] = {
            name: with_interval(value, interval(value, sample[name], len(labels)) if name in sample else None, 100)
            for name, value in scores.metrics.items()
        }
        self.metrics['per_class'] = [{'class': n, **row} for n, row in zip(self.classes, scores.per_class)]
        self.metrics['calibration'] = scores.calibration
        self.save_table('per_class', list(self.metrics['per_class'][0]), [list(r.values()) for r in
                                                                         self.metrics['per_class']])  # fmt: skip
        self._overview(scores)
        self.page.section('Classes', 'Click a head to sort.')
        order = sorted(self.metrics['per_class'], key=lambda row: (row['f1'] is None, row['f1']))
        heads = ['class', 'pictures', 'precision', 'recall', 'F1']
        self.page.table(heads, [list(row.values()) for row in order])
        self.page.section('Confusion')
        self.confusion(scores.confusion, background=False)
        self.page.section('Calibration', 'How often answers of each confidence are right.')
        path = self.save('calibration', figures.calibration(scores.calibration['bins'], scores.calibration['ece'],
                                                            'pictures'))  # fmt: skip
        self.page.figures([(path, 'calibration', 'Bars under the dashed line: the model is too sure of itself.')])
        self._mistakes(scores)

    def _overview(self, scores: classification.ClassScores) -> None:
        names = {'top1': 'Top-1 accuracy', 'top5': 'Top-5 accuracy', 'f1': 'Mean F1'}
        values = self.metrics['metrics']
        self.page.tiles(
            [(title, f'{values[name]["value"]:.2f} %', shown_range(values[name], 1)) for name, title in names.items()]
        )
        self.page.text('In brackets: where it would lie in 95 of 100 other sets of as many such pictures.', 'soft')
        self.show_notes()
        points = []
        known = [row for row in self.metrics['per_class'] if row['f1'] is not None]
        if len(known) > 2:
            weak = sorted(known, key=lambda row: row['f1'])[:3]
            points.append('Weakest classes: ' + ', '.join(f'{r["class"]} (F1 {r["f1"]:.2f})' for r in weak) + '.')
        if scores.calibration['ece'] > 0.05:
            points.append(f'Scores are off by {scores.calibration["ece"]:.2f} on average.')
        self.page.points(points)

    def _mistakes(self, scores: classification.ClassScores) -> None:
        wrong = np.flatnonzero(~scores.right[:, 0])
        wrong = wrong[np.argsort(-scores.confidence[wrong], kind='stable')]
        self.page.section(
            'Most confident mistakes', 'Sure and wrong: a hard picture, or a wrong label. All are in label_errors.csv.'
        )
        (self.out / 'worst').mkdir(exist_ok=True)
        rows: list[list[Any]] = []
        cells: list[tuple[bytes, str]] = []
        for row in wrong:
            picture, answer = self.truth.pictures[self.places[row]], self.classes[scores.predicted[row]]
            says = self.classes[scores.labels[row]]
            rows.append([picture, says, answer, round(float(scores.confidence[row]), 5)])
            path = self.truth.path_of(int(self.places[row]))
            if len(cells) < WORST and path is not None:
                image = shown.thumbnail(shown.read(path))
                image.save(self.out / 'worst' / f'{len(cells) + 1:02}_{Path(picture).stem}.jpg', 'JPEG', quality=90)
                caption = f'{answer} {scores.confidence[row]:.2f}, labelled {says}: {picture}'
                cells.append((shown.for_page(image), caption))
        self.save_table('label_errors', ['picture', 'label', 'prediction', 'score'], rows)
        if cells:
            self.page.pictures(cells, 'crops')
        else:
            self.page.text(f'{len(wrong)} mistakes.', 'soft')
