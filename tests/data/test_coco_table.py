# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""COCO files as people have them, through every command that opens one: a file means the same in all of them.

A row is an odd file, a column is a command, by the function with which it opens the file. What has one meaning is
completed alike; what has none is left out and named, or refused, in the same words.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import planted
import pytest
from imports import imported
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from small_runs import COMMON, TASKS, forget

pytest.importorskip('mmdet')
pytest.importorskip('hotcoco')

from mmlightvit.cli import main
from mmlightvit.data import stats
from mmlightvit.data.check import check_config, check_folder
from mmlightvit.data.folder import DatasetFolder
from mmlightvit.data.run_check import check_run
from mmlightvit.errors import UserError
from mmlightvit.evaluation.coco_scores import CocoScores
from mmlightvit.evaluation.predictions import coco_results, read
from mmlightvit.evaluation.truth import Truth, of_data
from mmlightvit.evaluation.write import PredictionsFile
from mmlightvit.inference.outputs import _read_truth
from mmlightvit.registry import METRICS
from mmlightvit.toolboxes import import_toolbox

Objects = dict[str, list[tuple]]


class Odd(NamedTuple):
    """An odd file.

    Attributes:
        change: Makes it of a good one's content; or the bytes of a good one, those of the odd one.
        left_out: Places of the objects that are left out.
        crowds: Places of the objects that become crowds.
        words: What is said where something is left out, or the file is refused.
        refused: By all commands but the import, which names what it leaves out, and the check, which lists all.
    """

    change: Callable[[Any], Any]
    left_out: tuple[int, ...] = ()
    crowds: tuple[int, ...] = ()
    words: str = ''
    refused: bool = False


def each(kind: str, **values: Any) -> Callable[[dict], None]:
    """Sets keys of every item, by a function of what they were; ``None`` removes a key."""

    def change(content: dict) -> None:
        for item in content[kind]:
            for key, value in values.items():
                if value is None:
                    item.pop(key, None)
                else:
                    item[key] = value(item.get(key)) if callable(value) else value

    return change


def one(kind: str, place: int, **values: Any) -> Callable[[dict], None]:
    return lambda content: content[kind][place].update(values)


def ids(spell: Callable[[Any], Any]) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for kind, keys in (
            ('images', ['id']),
            ('categories', ['id']),
            ('annotations', ['id', 'image_id', 'category_id']),
        ):
            each(kind, **dict.fromkeys(keys, spell))(content)

    return change


def scrap(content: dict) -> None:
    content['annotations'][0]['segmentation'].append([3, 3, 9, 9])


def nested(content: dict) -> None:
    [part] = content['annotations'][0]['segmentation']
    content['annotations'][0]['segmentation'] = [[[x, y] for x, y in zip(part[0::2], part[1::2])]]


def same_file(content: dict) -> None:
    content['images'].append({**content['images'][1], 'id': 999})
    content['annotations'].append({**content['annotations'][0], 'id': 99, 'image_id': 999})


TABLE = {
    'good': Odd(lambda content: None),
    'byte-order mark': Odd(lambda stored: b'\xef\xbb\xbf' + stored),
    'iscrowd null': Odd(each('annotations', iscrowd=lambda _: None)),
    'iscrowd text': Odd(each('annotations', iscrowd='0')),
    'no iscrowd': Odd(each('annotations', iscrowd=None)),
    'ignore text': Odd(each('annotations', ignore='0')),
    'ignore': Odd(one('annotations', 2, ignore=1), crowds=(2,)),
    'iscrowd true': Odd(one('annotations', 2, iscrowd='true'), crowds=(2,)),
    'category_id text': Odd(each('annotations', category_id=str)),
    'image_id text': Odd(each('annotations', image_id=str)),
    'ids number text': Odd(ids(str)),
    'ids text': Odd(ids('key{}'.format)),
    'ids float': Odd(ids(float)),
    'no annotation ids': Odd(each('annotations', id=None)),
    'one annotation id': Odd(each('annotations', id=7)),
    'size text': Odd(each('images', height=str, width=str)),
    'size text with a point': Odd(each('images', height='{}.0'.format, width='{}.0'.format)),
    'size float': Odd(each('images', height=float, width=float)),
    'no size': Odd(each('images', height=None, width=None)),
    'no area': Odd(each('annotations', area=None)),
    'area 0': Odd(each('annotations', area=0)),
    'a scrap of two points': Odd(scrap),
    'backslash': Odd(each('images', file_name=lambda name: '.\\' + name)),
    'other order': Odd(lambda content: content['categories'].reverse()),
    'unknown image': Odd(one('annotations', 1, image_id=12345), left_out=(1,), words='there is no image 12345'),
    'no image_id': Odd(lambda content: content['annotations'][1].pop('image_id'), (1,), words='there is no image None'),
    'unknown category': Odd(one('annotations', 1, category_id=99), (1,), words='there is no category 99'),
    'iscrowd 7': Odd(one('annotations', 1, iscrowd=7), (1,), words='its iscrowd is 7, expected 0 or 1'),
    'box not finite': Odd(
        one('annotations', 3, bbox=[1, 1, float('nan'), 5]), (3,), words='not [x, y, width, height] in finite numbers'
    ),
    'empty box': Odd(one('annotations', 3, bbox=[1, 1, -5, 5]), (3,), words='its box is empty: -5 x 5 pixels'),
    'the same file': Odd(same_file, words='are the same file'),
    'mask without area': Odd(one('annotations', 0, segmentation=[[5, 5, 9, 5, 13, 5]]), (0,), words='has no area'),
    'two points alone': Odd(one('annotations', 0, segmentation=[[5, 5, 9, 9]]), (0,), words='three or more points'),
    'nested points': Odd(nested, words='its mask is lists of points; expected lists of numbers', refused=True),
    'flat mask': Odd(one('annotations', 0, segmentation=[4, 4, 9, 4, 9, 9]), words='one list of numbers', refused=True),
    'no box': Odd(
        lambda content: [content['annotations'][0].pop(key) for key in ('bbox', 'segmentation')],
        words='it has no bbox',
        refused=True,
    ),
    'image id twice': Odd(lambda content: one('images', 1, id=content['images'][0]['id'])(content),
                          words='stands twice, for ', refused=True),
    'image without id': Odd(lambda content: content['images'][1].pop('id'), words='it has no id', refused=True),
    'category without name': Odd(one('categories', 1, name=None), words='it has no name', refused=True),
    'no categories': Odd(lambda content: content['categories'].clear(), words='categories is empty', refused=True),
    'images no list': Odd(lambda content: content.update(images={}), words='no list of objects images', refused=True),
    'not JSON': Odd(lambda stored: stored[:-1], words='it is not JSON', refused=True),
    'too deep': Odd(lambda stored: stored[:-1] + b', "x": ' + b'[' * 200_000, words='nested too deeply', refused=True),
}  # fmt: skip
OF_BYTES = ('byte-order mark', 'not JSON', 'too deep')


def make_odd(path: Path, name: str) -> None:
    stored = path.read_bytes()
    if name in OF_BYTES:
        path.write_bytes(TABLE[name].change(stored))
    else:
        content = json.loads(stored)
        TABLE[name].change(content)
        path.write_text(json.dumps(content))


def meant(path: Path, odd: Odd) -> Objects:
    """The objects of a good file by picture, as the odd one's are meant."""
    content = json.loads(path.read_text())
    names = {item['id']: item['name'] for item in content['categories']}
    files = {item['id']: item['file_name'] for item in content['images']}
    out: Objects = {Path(name).name: [] for name in files.values()}
    for place, item in enumerate(content['annotations']):
        if place not in odd.left_out:
            out[Path(files[item['image_id']]).name].append(
                (names[item['category_id']], *map(float, item['bbox']), place in odd.crowds)
            )
    return in_order(out)


def in_order(objects: Objects) -> Objects:
    return {name: sorted(items) for name, items in sorted(objects.items())}


# How the commands open the file: (labels, what is said) ---------------------------------------------------------------


class World(NamedTuple):
    """A data set of files, a prepared folder, and a config of the first."""

    files: Path
    folder: Path
    config: Path

    def cfg(self) -> Config:
        import_toolbox('mmdet')
        return Config.fromfile(str(self.config))


@pytest.fixture(scope='module')
def good(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp('good')
    for split in ('train', 'val'):
        planted.write_coco(root / 'files', images=2, split=split)
    return World(root / 'files', imported(root / 'files', root / 'folder').folder.path, root / 'config.py')


@pytest.fixture
def world(good: World, tmp_path: Path) -> World:
    shutil.copytree(good.files, tmp_path / 'files')
    shutil.copytree(good.folder, tmp_path / 'folder')
    path = tmp_path / 'config.py'
    path.write_text(''.join(f'{key} = {value!r}\n' for key, value in config_of(tmp_path).items()))
    return World(tmp_path / 'files', tmp_path / 'folder', path)


def config_of(root: Path) -> dict:
    def loader(split: str) -> dict:
        masks = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
        dataset = dict(
            type='CocoDataset',
            data_root=str(root / 'files'),
            ann_file=f'annotations/{split}.json',
            data_prefix=dict(img=split),
            metainfo=dict(classes=list(planted.CLASSES)),
            pipeline=masks if split == 'train' else [],
            test_mode=split != 'train',
        )
        return dict(batch_size=2, dataset=dataset)

    file = str(root / 'files' / 'annotations' / 'val.json')
    metric = dict(type='mmlightvit.CocoMetric', ann_file=file, metric=['bbox', 'segm'])
    return dict(
        default_scope='mmdet',
        work_dir=str(root / 'work'),
        train_dataloader=loader('train'),
        val_dataloader=loader('val'),
        test_dataloader=loader('val'),
        val_evaluator=metric,
        test_evaluator=metric,
    )


def of_pictures(pictures: list) -> Objects:
    return {
        picture.path.name: [
            (item.label, item.box[0], item.box[1], item.box[2] - item.box[0], item.box[3] - item.box[1], item.crowd)
            for item in picture.objects
        ]
        for picture in pictures
    }


def of_dataset(dataset: Any) -> Objects:
    """What a training learns from."""
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return {
        Path(info['img_path']).name: [
            (dataset.metainfo['classes'][item['bbox_label']], x1, y1, x2 - x1, y2 - y1, bool(item['ignore_flag']))
            for item in info['instances']
            for x1, y1, x2, y2 in [item['bbox']]
        ]
        for info in infos
    }


def of_truth(truth: Truth) -> Objects:
    assert truth.coco is not None
    files = {item['id']: Path(item['file_name']).name for item in truth.coco['images']}
    out: Objects = {name: [] for name in files.values()}
    for item in truth.coco['annotations']:
        out[files[item['image_id']]].append(
            (truth.classes[item['category_id'] - 1], *item['bbox'], bool(item['iscrowd']))
        )
    return out


def by_import(world: World) -> tuple[Objects | None, list[str]]:
    done = imported(world.files, world.folder.parent / 'again')
    return of_pictures(done.folder.pictures('val')), [f'{loss.what}: {loss.reason}' for loss in done.lost]


def by_check(world: World) -> tuple[Objects | None, list[str]]:
    return None, check_config(world.cfg()).problems


def by_check_of_a_folder(world: World) -> tuple[Objects | None, list[str]]:
    return None, check_folder(DatasetFolder.load(world.folder)).problems


def by_stats(world: World) -> tuple[Objects | None, list[str]]:
    folder = DatasetFolder.load(world.folder)
    counts = stats.count(folder)['splits']['val']
    objects = of_pictures(folder.pictures('val'))  # what `data show` draws
    listed = [item for items in objects.values() for item in items]
    assert counts['objects'] == len(listed) and counts['crowds'] == sum(item[-1] for item in listed)
    return objects, []


def by_train(world: World) -> tuple[Objects | None, list[str]]:
    cfg = world.cfg()
    checked = check_run(cfg, ('train', 'val'))
    with DefaultScope.overwrite_default_scope('mmdet'):
        train = of_dataset(DATASETS.build({**cfg.train_dataloader.dataset, 'pipeline': []}))
        val = of_dataset(DATASETS.build({**cfg.val_dataloader.dataset, 'pipeline': []}))
    assert in_order(train) == in_order(val)  # the splits differ in their pictures alone
    return val, checked.warnings


def by_test(world: World) -> tuple[Objects | None, list[str]]:
    """The metric of the run, and the scores of a report on the same predictions, are the same number."""
    cfg = world.cfg()
    checked = check_run(cfg, ('test',))
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        results = predictions(dataset, cfg, world.folder.parent / 'results.json')
    truth = of_data(str(world.config), 'test')
    ours = CocoScores(truth.coco, coco_results(read(world.folder.parent / 'results.json', truth), truth)[0])
    assert 0.3 < ours.metrics['AP'] < 1
    assert results['coco/bbox_mAP'] == pytest.approx(ours.metrics['AP'], abs=1e-3)
    return of_dataset(dataset), checked.warnings


def predictions(dataset: Any, cfg: Config, path: Path) -> dict[str, float]:
    """The metrics of boxes that are moved by a pixel and a half, which are written as well, with the ids of the run."""
    import torch

    metric = METRICS.build({**cfg.test_evaluator, 'metric': 'bbox'})
    writer = PredictionsFile(str(path), cfg.test_evaluator.ann_file)
    for part in (metric, writer):
        part.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        boxes = torch.tensor([item['bbox'] for item in info['instances']], dtype=torch.float32).reshape(-1, 4)
        found = dict(
            bboxes=boxes + torch.tensor([1.5, 0, 1.5, 0]),
            labels=torch.tensor([item['bbox_label'] for item in info['instances']], dtype=torch.long),
            scores=torch.linspace(0.9, 0.5, len(boxes)),
        )
        sample = dict(img_id=info['img_id'], ori_shape=(info['height'], info['width']), pred_instances=found)
        for part in (metric, writer):
            part.process({}, [sample])
    writer.evaluate(size=len(dataset))
    return metric.evaluate(size=len(dataset))


def by_report(world: World) -> tuple[Objects | None, list[str]]:
    """`report`, `val`, `compare` and `export --data` open a file, a folder or a config."""
    path = world.files / 'annotations' / 'val.json'
    shutil.copy(path, world.files / 'val' / 'val.json')  # beside its pictures
    try:
        truth = of_data(str(world.files / 'val' / 'val.json'), 'val')
    finally:
        (world.files / 'val' / 'val.json').unlink()
    of_its_config = of_data(str(world.config), 'val')
    assert in_order(of_truth(truth)) == in_order(of_truth(of_its_config))
    assert truth.task == of_its_config.task == 'instance'
    return of_truth(truth), list(truth.notes)


def by_report_of_a_folder(world: World) -> tuple[Objects | None, list[str]]:
    truth = of_data(str(world.folder), 'val')
    return of_truth(truth), list(truth.notes)


def by_coco_gt(world: World) -> tuple[Objects | None, list[str]]:
    path = world.files / 'annotations' / 'val.json'
    images, categories = _read_truth(path, planted.CLASSES)
    content = json.loads(path.read_bytes().decode('utf-8-sig'))
    assert images == {
        item['file_name'].removeprefix('.\\'): item['id'] for item in content['images'] if item['id'] != 999
    }
    assert categories == [
        item['id'] for name in planted.CLASSES for item in content['categories'] if item['name'] == name
    ]
    return None, []


COMMANDS = {
    'import': by_import,
    'check': by_check,
    'check of a folder': by_check_of_a_folder,
    'stats, show': by_stats,
    'train': by_train,
    'test': by_test,
    'report, val, compare, export --data': by_report,
    'report of a folder': by_report_of_a_folder,
    'predict --coco-gt': by_coco_gt,
}
#: These do not say what they leave out, since they show nothing that it would change.
SILENT = ('stats, show', 'predict --coco-gt')


@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize('name', TABLE)
def test_a_file_means_the_same_to_every_command(world: World, good: World, name: str, command: str) -> None:
    odd = TABLE[name]
    for folder in (world.files, world.folder):
        for split in ('train', 'val'):
            make_odd(folder / 'annotations' / f'{split}.json', name)
    try:
        objects, lines = COMMANDS[command](world)
    except UserError as error:
        assert odd.refused, error
        objects, lines = None, [str(error)]
    if odd.refused:
        assert any(odd.words in line for line in lines), lines
        return
    assert objects is None or in_order(objects) == meant(good.files / 'annotations' / 'val.json', odd)
    if not odd.words:
        assert lines == [] or 'report' in command, lines
    elif command not in SILENT:
        assert any(odd.words in line for line in lines), lines


@pytest.mark.parametrize(
    'change', [each('annotations', bbox=['1', '2', '3', '4']), each('annotations', iscrowd=1)], ids=['lost', 'crowds']
)
def test_a_set_in_which_nothing_is_left_to_learn_is_a_problem(
    world: World, change: Callable[[dict], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ('train', 'val'):
        path = world.files / 'annotations' / f'{split}.json'
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    out = world.folder.parent / 'again'
    for command in (['data', 'import', str(world.files), '--out', str(out)], ['check', str(out)]):
        assert main(command) == 1
        assert 'it has no object of the classes disk, bar' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:The draw is False:UserWarning')
def test_one_odd_file_through_every_command_whole(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # MMEngine formats the config for each of its dumps, which takes longer than the training here.
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **settings: (text, True))
    monkeypatch.chdir(world.folder.parent)
    for folder in (world.files, world.folder):
        for split in ('train', 'val'):
            for name in ('iscrowd null', 'size text', 'no area', 'a scrap of two points', 'ids text', 'unknown image'):
                make_odd(folder / 'annotations' / f'{split}.json', name)
            make_odd(folder / 'annotations' / f'{split}.json', 'byte-order mark')
    _, settings, _ = TASKS['detection']
    config, truth = str(world.folder / 'config.py'), str(world.folder / 'annotations' / 'val.json')
    options = ['--cfg-options', *COMMON, *settings]

    def run(*arguments: str, code: int = 0) -> str:
        forget()
        assert main(list(arguments)) == code, capsys.readouterr().err
        return capsys.readouterr().out

    assert '2 x there is no image 12345' in run('data', 'import', str(world.files), '--out', 'again')
    for command in (['check', config], ['data', 'check', str(world.folder)], ['data', 'check', config]):
        assert 'there is no image 12345' in run(*command, code=1)
    assert 'disk' in run('data', 'stats', str(world.folder))
    run('data', 'show', str(world.folder))
    run('train', config, '--work-dir', 'work', *options)
    checkpoint = str(next(Path('work').glob('*_1.pth')))
    run('test', config, checkpoint, '--work-dir', 'tested', '--out', 'results.json', *options)
    for model in ('work', 'results.json'):
        for data in (str(world.folder), config):
            assert 'AP50' in run('val', model, data)
    run('report', 'work', config, '--out', 'page')
    assert 'no image 12345' in (Path('page') / 'index.html').read_text()
    run('compare', 'results.json', 'results.json', config)
    images = str(world.files / 'val')
    run('predict', 'work', images, '--save', 'coco', '--coco-gt', truth, '--out', 'predicted')
    results = json.loads((Path('predicted') / 'coco.json').read_text())
    assert {item['image_id'] for item in results} <= {'key1', 'key2'}
    pytest.importorskip('onnxruntime')
    run('export', 'work', '--out', 'exported.onnx', '--data', str(world.folder))
