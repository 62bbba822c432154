# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The answers of a model for every picture of a set: ``predictions.json`` with all digits that scores need."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmlightvit.errors import UserError
from mmlightvit.evaluation.truth import Truth
from mmlightvit.pictures import coco
from mmlightvit.pictures.result import FORMAT
from mmlightvit.tasks import DETECTION, INSTANCE, TASKS

#: Detections of a class in a picture that COCO counts.
MOST = 100

if TYPE_CHECKING:
    from mmlightvit.inference.model import Model
    from mmlightvit.pictures.result import Result


class Answers(NamedTuple):
    """The answers of a model for a set.

    Attributes:
        model: ``name``, ``task``, ``classes``, ``weights_sha256``.
        content: Of predictions.json; a segmenter has none.
        maps: A segmenter's label maps, each with the place of its picture, to be read once.
    """

    model: dict[str, Any]
    content: dict[str, Any] | None = None
    maps: Iterable[tuple[int, NDArray]] = ()


def answers(model: str, truth: Truth, *, batch: int = 1, **options: Any) -> Answers:
    """Ask a model about every picture of a set.

    Args:
        model: Any that ``load_model`` takes; or predictions that are there already: ``predictions.json``, or a COCO
            results file.
        truth: The set.
        batch: Pictures of one size that go through the model together.
        **options: Arguments of ``load_model``.

    Raises:
        UserError: There is no such model, or none of the pictures is there.
    """
    if model.endswith('.json'):
        content = read(model, truth)
        return Answers(content['model'], content)
    from mmlightvit.load import load_model

    return answers_of(load_model(model, **options), truth, batch)


def answers_of(model: Model, truth: Truth, batch: int = 1) -> Answers:
    """Ask a model that is loaded."""
    info = model.info
    about = dict(name=info.name, task=info.task, classes=list(info.classes), weights_sha256=info.weights_sha256)
    results = predict(model, truth, batch)
    if not TASKS[info.task].has_label_map:
        return Answers(about, content_of(about, results, truth))
    return Answers(about, maps=((place, result.label_map) for place, result in results if result.label_map is not None))


def predict(model: Model, truth: Truth, batch: int) -> Iterator[tuple[int, Result]]:
    """The results of the pictures that can be read, each with its place; with all that the model's config lets through.

    Raises:
        UserError: No picture is there.
    """
    paths = [str(path) for path in map(truth.path_of, range(len(truth.pictures))) if path is not None]
    if not paths:
        raise UserError(f'none of the {len(truth.pictures)} pictures of {truth.name} is in {truth.root}')
    results = model.predict_iter(paths, score_thr=0.0, keep_image=False, batch_size=batch, on_error='skip')
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        results = iter(track(results, 'predicting', len(paths), console=Console(stderr=True), transient=True))
    for result in results:
        place = truth.place_of(result.path or '')
        if place is not None:
            yield place, result


def content_of(about: Mapping[str, Any], results: Iterable[tuple[int, Result]], truth: Truth) -> dict[str, Any]:
    """``predictions.json`` of results, unrounded; a path is the name of the picture in the truth."""
    listed = [{**result.to_dict(exact=True), 'path': truth.pictures[place]} for place, result in results]
    return dict(format=FORMAT, model=dict(about), score_thr=0.0, results=listed, skipped=[])


def read(source: str | Path | Mapping[str, Any] | Sequence[Any], truth: Truth) -> dict[str, Any]:
    """``predictions.json``, or a COCO results file whose ids are those of the truth's own file.

    Raises:
        UserError: It is neither.
    """
    content = coco.read_json(Path(source)) if isinstance(source, str | Path) else source
    if isinstance(content, Mapping) and content.get('format') == FORMAT:
        return dict(content)
    name = Path(source).stem if isinstance(source, str | Path) else 'results'
    if isinstance(content, Mapping) or truth.coco is None:
        raise UserError(f'{name}: expected predictions.json of mmlightvit predict, or a COCO results file')
    return _of_coco(content, truth, name)


def _of_coco(listed: Sequence[Any], truth: Truth, name: str) -> dict[str, Any]:
    assert truth.coco is not None and truth.ids is not None
    places = {label: place for place, label in enumerate(truth.classes)}
    results = {
        image['id']: dict(path=image['file_name'], height=image['height'], width=image['width'], objects=[])
        for image in truth.coco['images']
    }
    try:
        for item in listed:
            x, y, w, h = item.get('bbox') or (0, 0, 0, 0)
            label = truth.ids.category(item['category_id'])
            if label is None:
                raise KeyError(f'category_id {item["category_id"]}')
            entry = {'class_id': places.get(label), 'class': label, 'score': item['score'], 'xywh': [x, y, w, h]}
            if isinstance(item.get('segmentation'), Mapping):
                entry['mask'] = item['segmentation']
            results[truth.ids.image(item['image_id'])]['objects'].append(entry)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f'{name} is no COCO results file for {truth.name}: {error!r}') from None
    task = INSTANCE if any('segmentation' in item for item in listed) else DETECTION
    model = dict(name=name, task=task, classes=list(truth.classes), weights_sha256=None)
    return dict(format=FORMAT, model=model, score_thr=0.0, results=list(results.values()), skipped=[])


def coco_results(content: Mapping[str, Any], truth: Truth) -> tuple[list[dict[str, Any]], list[str]]:
    """COCO results with the ids of ``truth``, and remarks for a reader.

    Raises:
        UserError: A prediction is for a picture of another size.
    """
    assert truth.coco is not None
    places = {name: place for place, name in enumerate(truth.classes)}
    out: list[dict[str, Any]] = []
    seen: set[int] = set()
    others = 0
    for result in content['results']:
        place = truth.place_of(result['path'])
        if place is None:
            others += 1
            continue
        image = truth.coco['images'][place]
        if (result['height'], result['width']) != (image['height'], image['width']):
            raise UserError(
                f'{result["path"]} is {result["width"]}x{result["height"]} px as displayed, and {truth.name} says '
                f'{image["width"]}x{image["height"]}: they are for different pictures'
            )
        seen.add(place)
        for item in result['objects']:
            if item['class'] not in places:
                continue
            box = item.get('xywh') or _xywh(item['box'])
            entry = dict(
                image_id=image['id'], category_id=places[item['class']] + 1, bbox=box, score=float(item['score'])
            )
            if 'mask' in item:
                entry['segmentation'] = item['mask']
            out.append(entry)
    notes = _notes(truth, len(seen), others, 'nothing was found in them')
    crowded = Counter((item['image_id'], item['category_id']) for item in out)
    cut = len({image for (image, _), count in crowded.items() if count > MOST})
    if cut:
        notes.append(
            f'In {cut} of the pictures the surest {MOST} detections of a class count and no more, as COCO has it.'
        )
    if content.get('score_thr'):
        notes.append('These predictions were cut off at a score, so AP is too low.')
    return out, notes


def class_scores(
    content: Mapping[str, Any], truth: Truth
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], list[str]]:
    """Of a classifier: places of pictures, (n, ranks) classes by falling score, their scores, and notes.

    Raises:
        UserError: It knows a class that the truth has not, or nothing is there for the truth's pictures.
    """
    known = {name: place for place, name in enumerate(truth.classes)}
    places, ranks, scores, others = [], [], [], 0
    for result in content['results']:
        place = truth.place_of(result['path'])
        if place is None:
            others += 1
            continue
        places.append(place)
        wrong = [item['class'] for item in result['probs'] if item['class'] not in known]
        if wrong:
            raise UserError(f'the model answers {wrong[0]!r}, which is no class of {truth.name}')
        ranks.append([known[item['class']] for item in result['probs']])
        scores.append([float(item['score']) for item in result['probs']])
    if not places:
        raise UserError(f'there is no prediction for a picture of {truth.name}')
    order = np.argsort(places)
    notes = _notes(truth, len(places), others, 'they do not count')
    return np.array(places)[order], np.array(ranks)[order], np.array(scores)[order], notes


def _notes(truth: Truth, seen: int, others: int, then: str) -> list[str]:
    missing = len(truth.pictures) - seen
    notes = [f'{missing} of {len(truth.pictures)} pictures have no prediction: {then}.'] if missing else []
    return notes + ([f'{others} predictions are for other pictures, and are left out.'] if others else [])


def _xywh(box: Sequence[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]
