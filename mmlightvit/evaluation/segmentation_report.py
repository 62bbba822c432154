# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The report of label maps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.errors import UserError
from mmlightvit.evaluation import predictions, shown
from mmlightvit.evaluation.base import WORST, Report, number, shown_range, with_interval, write_text
from mmlightvit.evaluation.matches import draws, interval
from mmlightvit.evaluation.segmentation import PixelScores
from mmlightvit.evaluation.truth import Truth
from mmlightvit.tasks import SEGMENTATION


class SegmentationReport(Report):
    def __init__(self, maps: Iterable[tuple[int, NDArray]], truth: Truth, out: Path, model: Mapping[str, Any]) -> None:
        truth.check_task(SEGMENTATION, model['classes'])
        super().__init__(dict(model), truth, out)
        self.maps = maps
        self.kept: dict[int, NDArray] = {}

    def fill(self) -> None:
        places = []

        def pairs() -> Iterable[tuple[NDArray, NDArray]]:
            for place, predicted in self.maps:
                places.append(place)
                truth = self.truth.label_map(place)
                self._keep(place, predicted, truth)
                yield predicted, truth

        scores = PixelScores(pairs(), len(self.classes), self.truth.ignore)
        if not places:
            raise UserError(f'there is no prediction for a picture of {self.truth.name}')
        missing = len(self.truth.pictures) - len(places)
        if missing:
            self.notes.append(f'{missing} pictures have no prediction: they do not count.')
        sample = scores.metrics_of_draws(draws(len(places)))
        self.metrics['metrics'] = {
            name: with_interval(value, interval(value, sample[name], len(places)), 100)
            for name, value in scores.metrics.items()
        }
        self.metrics['per_class'] = [{'class': n, **row} for n, row in zip(self.classes, scores.per_class())]
        rows = self.metrics['per_class']
        self.save_table('per_class', list(rows[0]), [list(row.values()) for row in rows])
        of_pictures = dict(zip(places, scores.of_pictures().tolist()))
        listed = [dict(path=self.truth.pictures[p], pixel_accuracy=_or_none(v)) for p, v in of_pictures.items()]
        content = dict(format=predictions.FORMAT, model=self.metrics['model'], results=listed)
        write_text(self.out / 'predictions.json', json.dumps(content, ensure_ascii=False))
        names = {'mIoU': 'Mean IoU', 'mAcc': 'Mean accuracy of classes', 'aAcc': 'Right pixels'}
        values = self.metrics['metrics']
        self.page.tiles([(title, number(values[n]['value'], 2, ' %'), shown_range(values[n], 1)) for n, title in
                         names.items()])  # fmt: skip
        self.page.text('In brackets: where it would lie in 95 of 100 other sets of as many such pictures.', 'soft')
        self.show_notes()
        self.page.section('Classes', 'IoU and accuracy in percent. Click a head to sort.')
        order = sorted(rows, key=lambda row: (row['IoU'] is None, row['IoU']))
        self.page.table(['class', 'pixels', 'IoU', 'accuracy'], [list(row.values()) for row in order], 2)
        self.page.section('Confusion', 'In pixels.')
        self.confusion(scores.confusion, background=False)
        worst = sorted(self.kept, key=lambda place: of_pictures[place])
        captions = [(p, f'{100 * of_pictures[p]:.1f} % of the pixels are right') for p in worst if of_pictures[p] < 1]

        def pair(place: int, pixels: NDArray[np.uint8]) -> list[Any]:
            truth = self.truth.label_map(place)
            truth[truth == self.truth.ignore] = len(self.classes)  # no class, so it is ignored here too
            return [shown.label_map(pixels, values, self.classes) for values in (truth, self.kept[place])]

        self.worst(captions, pair)

    def _keep(self, place: int, predicted: NDArray, truth: NDArray) -> None:
        """Hold the label maps of the worst pictures so far, and no others."""
        counted = truth != self.truth.ignore
        if predicted.shape != truth.shape or not counted.any():
            return
        self._right = getattr(self, '_right', {})
        self._right[place] = float((predicted == truth)[counted].mean())
        self.kept[place] = predicted.astype(np.uint16)
        if len(self.kept) > WORST:
            best = max(self.kept, key=self._right.__getitem__)
            del self.kept[best]


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
