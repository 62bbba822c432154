# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The report of boxes and masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlightvit.errors import listed
from mmlightvit.evaluation import figures, predictions, shown
from mmlightvit.evaluation.base import Report, many, number, percent, shown_range, with_interval
from mmlightvit.evaluation.coco_scores import ERRORS, IOUS, KINDS, METRICS, CocoScores, Working, row_of
from mmlightvit.evaluation.matches import Matches, draws, interval, metrics_of_draws
from mmlightvit.evaluation.page import Cell
from mmlightvit.evaluation.thresholds import FEWEST_OBJECTS, Curve, Thresholds, choose, curves
from mmlightvit.evaluation.truth import Truth
from mmlightvit.tasks import INSTANCE

_SUSPECTS_ON_PAGE = 12
_WORDS = {
    'AP': 'average precision, mean of IoU 0.50 to 0.95',
    'AP50': 'average precision at IoU 0.50',
    'AP75': 'average precision at IoU 0.75',
}


class DetectionReport(Report):
    def __init__(self, content: Mapping[str, Any], truth: Truth, out: Path, iou: float) -> None:
        truth = truth.for_classes(content['model']['classes'])
        results, notes = predictions.coco_results(content, truth)
        super().__init__(content['model'], truth, out)
        self.notes += notes
        self.iou, self.results = iou, results
        assert truth.coco is not None
        self.coco = truth.coco
        self.has_masks = content['model']['task'] == truth.task == INSTANCE
        self.kinds = list(KINDS) if self.has_masks else ['bbox']
        if content['model']['task'] == INSTANCE and not self.has_masks:
            self.notes.append('The labels have no masks, so only boxes are measured.')

    def fill(self) -> None:
        scores = {kind: CocoScores(self.coco, self.results, kind) for kind in self.kinds}
        weights = draws(len(self.truth.pictures))
        matches: dict[str, Matches] = {}
        of_classes: dict[str, list[dict[str, Any]]] = {}
        self.metrics['metrics'] = {}
        for kind, of_kind in scores.items():
            matches[kind] = of_kind.matches()
            self.metrics['metrics'][kind], of_classes[kind] = self._intervals(of_kind, matches[kind], weights)
        boxes = scores['bbox']
        each, together = curves(matches['bbox'], row_of(self.iou))
        objects = matches['bbox'].objects.sum(0).tolist()
        chosen = choose(each, together, objects)
        kept = [item for item in self.results if item['score'] >= chosen.per_class[item['category_id'] - 1]]
        working = boxes.working(kept, self.iou)
        self.metrics['data']['objects'] = sum(objects)
        self.metrics['thresholds'] = dict(
            default=chosen.common,
            per_class=dict(zip(self.classes, chosen.per_class)),
            chosen_on=f'{self.truth.name}, F1 at IoU {self.iou:g}',
        )
        rows = self._rows(of_classes, objects, each, chosen)
        self.metrics['per_class'] = rows
        tide = [self.iou] + [0.75] * (self.iou != 0.75)
        self.metrics['sizes'] = {area: int(boxes.objects(area).sum()) for area in ('small', 'medium', 'large')}
        self.metrics['tide'] = {k: {f'{iou:g}': s.errors(iou) for iou in tide} for k, s in scores.items()}
        self.metrics['calibration'] = {k: s.calibration(self.iou) for k, s in scores.items()}
        totals = _totals(working)
        self.metrics['at_thresholds'] = totals
        self._overview(rows, totals, working)
        self._errors()
        self._curves(boxes, each, together, chosen)
        self._per_class(rows)
        self._sizes()
        self.page.section(
            'Confusion',
            f'Detections from the thresholds on, matched to objects at IoU {self.iou:g}. The last row is what was '
            'found where nothing is; the last column is what was missed.',
        )
        self.confusion(working.confusion, background=True)
        self._worst(working, kept)
        self._suspects(working)

    def _intervals(
        self, scores: CocoScores, every: Matches, weights: NDArray[np.float32]
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Each metric with its interval, and of each class."""
        sample, precision = metrics_of_draws(lambda area: every if area == 'all' else scores.matches(area), weights)
        count = len(self.truth.pictures)
        of_class = scores.per_class()
        for row, values in zip(of_class, precision):
            row['AP'] = with_interval(row['AP'], interval(row['AP'], values, count))
        return {
            name: with_interval(scores.metrics[name], interval(scores.metrics[name], sample[name], count))
            for name in METRICS
        }, of_class

    def _rows(
        self,
        of_classes: Mapping[str, list[dict[str, Any]]],
        objects: Sequence[int],
        each: Sequence[Curve],
        chosen: Thresholds,
    ) -> list[dict[str, Any]]:
        rows = []
        for place, name in enumerate(self.classes):
            at = each[place].at(chosen.per_class[place])
            has = objects[place] > 0
            row: dict[str, Any] = {'class': name, 'objects': objects[place]}
            for kind in self.kinds:
                prefix = '' if kind == 'bbox' else 'mask_'
                scores = of_classes[kind][place]
                row |= {f'{prefix}AP': scores['AP']['value'], f'{prefix}AP_low': scores['AP']['low']}
                row |= {f'{prefix}AP_high': scores['AP']['high']}
                row |= {f'{prefix}{key}': scores[key] for key in ('AP50', 'AP75', 'AR')}
            row |= dict(threshold=chosen.per_class[place], own_threshold=chosen.own[place])
            row |= {key: at[key] if has or key == 'precision' else None for key in ('precision', 'recall', 'f1')}
            rows.append(row)
        self.save_table('per_class', list(rows[0]), [list(row.values()) for row in rows])
        return rows

    # -- sections -----------------------------------------------------------------------------------------------------
    def _overview(self, rows: Sequence[Mapping[str, Any]], totals: Mapping[str, float], working: Working) -> None:
        tiles = []
        for kind, of_kind in self.metrics['metrics'].items():
            what = f' ({KINDS[kind]})' if self.has_masks else ''
            tiles += [(f'{name}{what}', number(of_kind[name]['value']), shown_range(of_kind[name])) for name in _WORDS]
        tiles.append(('Found', percent(totals['recall']), 'of the objects, at the thresholds'))
        tiles.append(('Right', percent(totals['precision']), 'of the detections, at the thresholds'))
        self.page.tiles(tiles)
        self.page.text(
            f'AP is {_WORDS["AP"]}, from 0 to 1. In brackets: where it would lie in 95 of 100 other sets of '
            f'{len(self.truth.pictures)} such pictures (bootstrap of the pictures).',
            'soft',
        )
        self.show_notes()
        self.page.points(self._findings(rows, working))

    def _findings(self, rows: Sequence[Mapping[str, Any]], working: Working) -> list[str]:
        if not self.results:
            return ['The model found nothing at all: no detection passes its own score threshold.']
        points = []
        costs = self.metrics['tide'][self.kinds[-1]][f'{self.iou:g}']
        most = sorted((error['cost'], error['count'], kind) for kind, error in costs.items())[::-1]
        named = [f'{ERRORS[kind]} ({cost:.3f} AP, {count:,} times)' for cost, count, kind in most[:2] if cost >= 0.005]
        if named:
            points.append(f'Most is lost to: {"; ".join(named)}.')
        known = [row for row in rows if row['objects'] >= FEWEST_OBJECTS]
        known = known if len(known) > 2 else [row for row in rows if row['AP'] is not None]
        if len(known) > 2:
            weak = sorted(known, key=lambda row: row['AP'])[:3]
            points.append('Weakest classes: ' + ', '.join(f'{row["class"]} (AP {row["AP"]:.3f})' for row in weak) + '.')
        empty = [row['class'] for row in rows if not row['objects']]
        if empty:
            points.append(f'Not in this set, so not measured: {listed(empty, 5)}.')
        few = [row['class'] for row in rows if 0 < row['objects'] < FEWEST_OBJECTS]
        if few:
            points.append(
                f'{many(len(few), "class")} with under {FEWEST_OBJECTS} objects '
                f'({listed(few, 5)}): their numbers are chance to a large part.'
            )
        ece = self.metrics['calibration']['bbox']['ece']
        if ece is not None and ece > 0.1:
            points.append(f'Scores are off by {ece:.2f} on average: do not read them as probabilities.')
        if working.suspects:
            points.append(f'{len(working.suspects):,} places where the labels may be wrong are in label_errors.csv.')
        return points

    def _per_class(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.page.section(
            'Classes',
            f'Precision, recall and F1 at the threshold, IoU {self.iou:g}. A threshold with * is that of all classes: '
            f'under {FEWEST_OBJECTS} objects. Click a head to sort.',
        )
        keys = {'AP': 'AP', 'AP50': 'AP50', 'AP75': 'AP75', 'AR': 'recall, mean'}
        if self.has_masks:
            keys |= {'mask_AP': 'mask AP', 'mask_AP50': 'mask AP50'}
        heads = ['class', 'objects', *keys.values(), 'threshold', 'precision', 'recall', 'F1']
        table: list[list[Cell]] = []
        for row in sorted(rows, key=lambda row: (row['AP'] is None, row['AP'])):
            threshold = f'{row["threshold"]:.3f}{"" if row["own_threshold"] else " *"}'
            numbers = [row[key] for key in keys]
            table.append(
                [row['class'], row['objects'], *numbers, threshold, row['precision'], row['recall'], row['f1']]
            )
        self.page.table(heads, table)

    def _sizes(self) -> None:
        self.page.section('Sizes', 'Small is under 32 x 32 pixels, large from 96 x 96 on, as COCO has it.')
        heads, rows = ['size', 'objects'], []
        for kind in self.kinds:
            what = '' if kind == 'bbox' else 'mask '
            heads += [f'{what}AP', f'{what}recall, mean']
        for size, count in self.metrics['sizes'].items():
            names = f'AP{size[0]}', f'AR{size[0]}'
            rows.append(
                [size, count, *(self.metrics['metrics'][k][name]['value'] for k in self.kinds for name in names)]
            )
        self.page.table(heads, rows)

    def _curves(self, boxes: CocoScores, each: Sequence[Curve], together: Curve, chosen: Thresholds) -> None:
        self.page.section('Thresholds and curves')
        pr = self.save('pr', figures.precision_recall(boxes.precision_curves(), IOUS))
        f1 = self.save('f1', figures.f1_curves(each, together, chosen.per_class, self.classes))
        self.page.figures(
            [
                (pr, 'precision over recall', 'Mean of the classes; a thin line is a class at IoU 0.50.'),
                (f1, 'F1 over threshold', 'The dot is the threshold with the highest F1, which predict then uses.'),
            ]
        )

    def _errors(self) -> None:
        self.page.section('Kinds of error', 'What each kind costs (TIDE), and how far scores can be trusted.')
        shown_kind = self.kinds[-1]
        tide = self.save('tide', figures.errors(self.metrics['tide'][shown_kind], ERRORS))
        of_kind = self.metrics['calibration']['bbox']
        trust = self.save('calibration', figures.calibration(of_kind['bins'], of_kind['ece'], 'detections'))
        self.page.figures(
            [
                (
                    tide,
                    'cost of each kind of error',
                    f'Of {KINDS[shown_kind]}. Badly placed at 0.75 but not at {self.iou:g}: found, but not exactly.',
                ),
                (trust, 'calibration', 'Bars under the dashed line: the model is too sure of itself.'),
            ]
        )

    def _worst(self, working: Working, kept: Sequence[Mapping[str, Any]]) -> None:
        by_id = {image['id']: place for place, image in enumerate(self.coco['images'])}
        bad = sorted(
            (counts['f1'], -counts['fp'] - counts['fn'], by_id[image_id], counts)
            for image_id, counts in working.pictures.items()
            if counts['f1'] < 1 and counts['fp'] + counts['fn'] > 0
        )
        places = [
            (place, f'F1 {f1:.2f}; {counts["fn"]} missed, {counts["fp"]} too many, {counts["tp"]} right')
            for f1, _, place, counts in bad
        ]
        sides = _by_picture(self.coco['annotations']), _by_picture(kept)

        def pair(place: int, pixels: NDArray[np.uint8]) -> list[Any]:
            image_id = self.coco['images'][place]['id']
            return [shown.objects(pixels, side.get(image_id, []), self.classes, self.has_masks) for side in sides]

        self.worst(places, pair)

    def _suspects(self, working: Working) -> None:
        images = {image['id']: place for place, image in enumerate(self.coco['images'])}
        rows: list[list[Any]] = []
        cells: list[tuple[bytes, str]] = []
        for suspect in working.suspects:
            result = suspect['result']
            place, (x, y, w, h) = images[result['image_id']], result['bbox']
            name = self.classes[result['category_id'] - 1]
            box = [round(value, 2) for value in (x, y, x + w, y + h)]
            rows.append([self.truth.pictures[place], name, round(result['score'], 5), *box, suspect['type'],
                         suspect['truth_class'], round(suspect['iou'], 3)])  # fmt: skip
            path = self.truth.path_of(place)
            if len(cells) < _SUSPECTS_ON_PAGE and path is not None:
                says = f'labelled {suspect["truth_class"]}' if suspect['truth_class'] else 'no label'
                caption = f'{name} {result["score"]:.2f}, {says}: {self.truth.pictures[place]}'
                cells.append((shown.for_page(shown.cut_out(shown.read(path), result['bbox'])), caption))
        heads = ['picture', 'class', 'score', 'x1', 'y1', 'x2', 'y2', 'type', 'truth_class', 'iou']
        self.save_table('label_errors', heads, rows)
        self.page.section(
            'Suspected label errors',
            'Detections that the labels call wrong, surest first: a label may be missing or of the wrong class. '
            f'{len(rows):,} in all, in label_errors.csv.',
        )
        if cells:
            self.page.pictures(cells, 'crops')


def _totals(working: Working) -> dict[str, float]:
    """Precision, recall and F1 of all pictures, each class at its threshold."""
    tp, fp, fn = (sum(counts[key] for counts in working.pictures.values()) for key in ('tp', 'fp', 'fn'))
    return dict(precision=tp / max(tp + fp, 1), recall=tp / max(tp + fn, 1), f1=2 * tp / max(2 * tp + fp + fn, 1))


def _by_picture(items: Iterable[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    out: dict[int, list[Mapping[str, Any]]] = {}
    for item in items:
        out.setdefault(item['image_id'], []).append(item)
    return out
