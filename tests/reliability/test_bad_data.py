# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Runs over data with planted faults: mmengine's runner, the toolboxes' data sets, and a model that only looks."""

from __future__ import annotations

import json
import logging
import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from processes import run_forked

from mmlightvit.durable import launch
from mmlightvit.durable.data_guard import BadDataError

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')

GUARD = dict(type='mmlightvit.DataGuardHook', annotation_check='mmlightvit.data.check:check_annotations')


class Looker(BaseModel):
    """Keeps the path and the pixel sum of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[str, float]] = []
        self.samples: list[Any] = []

    def forward(self, inputs: list, data_samples: list, mode: str) -> Any:
        for image, sample in zip(inputs, data_samples):
            self.seen.append((Path(sample.img_path).name, float(image.double().sum())))
            self.samples.append(sample)
        return {'loss': self.weight * inputs[0].float().mean()} if mode == 'loss' else data_samples


def coco(root: Path, split: str = 'train', **settings: Any) -> dict:
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
    ]
    return dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file=f'annotations/{split}.json',
        data_prefix=dict(img=split),
        metainfo=dict(classes=planted.CLASSES),
        pipeline=pipeline,
        **settings,
    )


def folders(root: Path, split: str = 'train') -> dict:
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='RandomResizedCrop', scale=32),
        dict(type='PackInputs', meta_keys=('img_path',)),
    ]
    return dict(
        type='CustomDataset', data_root=str(root), data_prefix=split, classes=planted.CLASSES, pipeline=pipeline
    )


def labelled(root: Path, split: str = 'train') -> dict:
    return dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}'),
        metainfo=dict(classes=['background', *planted.CLASSES]),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='Resize', scale=(128, 32), keep_ratio=True),
            dict(type='PackSegInputs'),
        ],
    )


SCOPES = {'CocoDataset': 'mmdet', 'CustomDataset': 'mmpretrain', 'BaseSegDataset': 'mmseg'}


def runner_of(work_dir: Path, dataset: dict, split: str = 'train', workers: int = 0, **settings: Any) -> Runner:
    inner = dataset.get('dataset', dataset)
    loader = dict(
        dataset=dataset,
        batch_size=2 if split == 'train' else 1,
        num_workers=workers,
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    loops: dict = dict(
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
    )
    if split == 'test':
        loops = dict(test_dataloader=loader, test_cfg=dict(), test_evaluator=dict(type='DumpResults', out_file_path=''))
        loops['test_evaluator']['out_file_path'] = str(work_dir / 'results.pkl')
    loops.update({key: settings.pop(key) for key in list(settings) if key in loops})
    return Runner(
        model=Looker(),
        work_dir=str(work_dir),
        default_hooks=dict(checkpoint=None, data_guard={**GUARD, **settings}),
        default_scope=SCOPES[inner['type']],
        experiment_name=f'{work_dir.parent.name}-{work_dir.name}',
        visualizer=dict(type='Visualizer', name=f'{work_dir.parent.name}-{work_dir.name}'),
        log_level='INFO',
        cfg=ConfigDict(),
        **loops,
    )


@pytest.fixture(autouse=True)
def _clean_logging() -> Any:
    yield
    logging.shutdown()
    MMLogger._instance_dict.clear()
    DefaultScope._instance_dict.clear()


def guard_lines(work_dir: str | Path) -> list[str]:
    text = next(Path(work_dir).rglob('*.log')).read_text()
    return [line.split('data guard: ', 1)[1] for line in text.splitlines() if 'data guard: ' in line]


@pytest.mark.parametrize('workers', [0, 2])
def test_twelve_of_twelve_bad_images_are_named_once(tmp_path: Path, workers: int) -> None:
    planted.write_coco(tmp_path, images=30)
    names = {}
    for place, (plant, words) in enumerate(planted.BAD_IMAGES.values()):
        name = f'{2 * place + 1:03d}.jpg'
        plant(tmp_path / 'train' / name)
        names[name] = words
    runner = runner_of(tmp_path / 'work', coco(tmp_path), workers=workers, max_bad_share=0.5)
    runner.train()
    lines = guard_lines(runner.work_dir)
    for name, words in names.items():
        about = [line for line in lines if f'{name}:' in line]
        assert len(about) == 1, (name, about)  # in two epochs
        assert words in about[0]
    assert len(lines) == 13
    assert lines[-1] == ('train: of 30 samples, 12 are bad and replaced (40.00%), 0 are used with what is said above')
    # Each is replaced by the image after it, in both epochs alike.
    expected = [f'{index + (f"{index:03d}.jpg" in names):03d}.jpg' for index in range(30)]
    assert [name for name, _ in runner.model.seen] == expected * 2


def test_the_stock_runner_ends_at_the_first_of_them(tmp_path: Path) -> None:
    planted.write_coco(tmp_path, images=4)
    (tmp_path / 'train' / '001.jpg').write_bytes(b'')
    runner = runner_of(tmp_path / 'work', coco(tmp_path))
    runner._hooks = [hook for hook in runner._hooks if type(hook).__name__ != 'DataGuardHook']
    with pytest.raises(Exception, match=r'empty|imdecode'):
        runner.train()


def test_unusual_images_are_used(tmp_path: Path) -> None:
    kinds = [kind for kind in planted.ODD_IMAGES if kind != 'EXIF']
    planted.write_coco(tmp_path, images=len(kinds))
    for index, kind in enumerate(kinds):
        (tmp_path / 'train' / f'{index:03d}.jpg').write_bytes(planted.ODD_IMAGES[kind]())
    runner = runner_of(tmp_path / 'work', coco(tmp_path))
    runner.train()
    assert [name for name, _ in runner.model.seen] == [f'{index:03d}.jpg' for index in range(len(kinds))] * 2
    assert {sample.ori_shape for sample in runner.model.samples} == {(48, 64)}
    assert guard_lines(runner.work_dir) == []


def test_a_turned_photo_annotated_as_stored_is_used_as_stored(tmp_path: Path) -> None:
    planted.write_coco(tmp_path, images=2)
    image = tmp_path / 'train' / '001.jpg'
    image.write_bytes(planted.turned(planted.picture(2)))
    runner = runner_of(tmp_path / 'work', coco(tmp_path))
    runner.train()
    lines = guard_lines(runner.work_dir)
    assert 'EXIF orientation is not applied' in lines[0] and len(lines) == 2
    # The pixels are those of the same image without the tag.
    image.write_bytes(planted.encoded(planted.picture(2), 'JPEG'))
    again = runner_of(tmp_path / 'again', coco(tmp_path))
    again.train()
    assert again.model.seen == runner.model.seen


def test_an_image_annotated_as_displayed_is_turned(tmp_path: Path) -> None:
    path = planted.write_coco(tmp_path, images=2)
    (tmp_path / 'train' / '001.jpg').write_bytes(planted.turned(planted.picture(2)))
    content = json.loads(path.read_text())
    content['images'][1].update(height=64, width=48)
    content['annotations'] = [item for item in content['annotations'] if item['image_id'] == 100]
    path.write_text(json.dumps(content))
    runner = runner_of(tmp_path / 'work', coco(tmp_path))
    runner.train()
    assert runner.model.samples[1].ori_shape == (64, 48)
    assert guard_lines(runner.work_dir) == ['train: 1 of 2 images have no object']


@pytest.mark.parametrize(('width', 'height'), [(1, 1), (10000, 10), (10, 10000)])
def test_extreme_shapes_are_used(tmp_path: Path, width: int, height: int) -> None:
    planted.write_folders(tmp_path / 'folders', images=1, splits=('train',))
    planted.picture(1, height, width).save(tmp_path / 'folders' / 'train' / 'bar' / '000.jpg')
    runner = runner_of(tmp_path / 'work', folders(tmp_path / 'folders'))
    runner.train()
    assert len(runner.model.seen) == 4
    assert guard_lines(runner.work_dir) == []


def test_a_size_that_the_annotation_contradicts(tmp_path: Path) -> None:
    planted.write_coco(tmp_path, images=4)
    planted.picture(1, 30, 30).save(tmp_path / 'train' / '001.jpg')
    runner = runner_of(tmp_path / 'work', coco(tmp_path), max_bad_share=0.5)
    runner.train()
    assert 'it is 30 x 30 pixels, but its annotation says 64 x 48' in guard_lines(runner.work_dir)[0]


def test_objects_that_cannot_be_used_are_left_out_and_named(tmp_path: Path) -> None:
    path = planted.write_coco(tmp_path, images=6)
    content = json.loads(path.read_text())
    objects = content['annotations']
    objects[0]['segmentation'] = []
    objects[3]['segmentation']['size'] = [64, 48]
    objects[4]['segmentation'] = [[5, 5, 9, 5, 13, 5]]  # a line
    objects[6]['bbox'] = [70, 6, 20, 16]
    objects[8]['bbox'] = [4, 6, 0, 16]
    content['annotations'] = [item for item in objects if item['image_id'] != 105]
    path.write_text(json.dumps(content))
    runner = runner_of(tmp_path / 'work', coco(tmp_path))
    runner.train()
    valid = [len(sample.gt_instances.bboxes) for sample in runner.model.samples[:6]]
    assert valid == [1, 1, 1, 1, 1, 0]
    lines = guard_lines(runner.work_dir)
    for words in (
        '1 of 6 images have no object',
        '000.jpg: an object without a mask is left out',
        '001.jpg: an object whose mask is not 64 x 48 pixels is left out',
        '002.jpg: 1 of its masks have no area and are ignored',
        'annotation 7 of 003.jpg: its box [70, 6, 20, 16] is outside of its image of 64 x 48 pixels',
        'annotation 9 of 004.jpg: its box is empty: 0 x 16 pixels',
    ):
        assert sum(words in line for line in lines) == 1, (words, lines)


def test_too_many_bad_files_stop_the_run_with_their_list(tmp_path: Path) -> None:
    planted.write_folders(tmp_path, images=10, splits=('train',))
    for index in (1, 3, 5):
        (tmp_path / 'train' / 'disk' / f'{index:03d}.jpg').write_bytes(b'')
    runner = runner_of(tmp_path / 'work', folders(tmp_path), max_bad_share=0.1)
    with pytest.raises(BadDataError, match=r'3 of 20 samples are bad.*001\.jpg.*003\.jpg.*005\.jpg') as error:
        runner.train()
    assert '\n' not in str(error.value)


def test_the_list_is_one_line_out_of_a_worker_too(tmp_path: Path) -> None:
    planted.write_folders(tmp_path, images=10, splits=('train',))
    for path in (tmp_path / 'train' / 'disk').iterdir():
        path.write_bytes(b'')
    runner = runner_of(tmp_path / 'work', folders(tmp_path), workers=2)
    with pytest.raises(BadDataError) as error:
        runner.train()
    # The other worker may have met bad samples of its own by the time the limit is passed.
    assert re.match(r'train data: (\d|10) of 20 samples are bad', str(error.value))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('wrap', ['RepeatDataset', 'ConcatDataset'])
def test_data_sets_inside_wrappers_are_watched(tmp_path: Path, wrap: str) -> None:
    planted.write_folders(tmp_path, images=2, splits=('train',))
    (tmp_path / 'train' / 'disk' / '000.jpg').write_bytes(b'')
    inner = folders(tmp_path)
    runner = runner_of(tmp_path / 'work', inner, max_bad_share=0.5)
    wrapped = dict(type=wrap, dataset=inner, times=2) if wrap == 'RepeatDataset' else dict(type=wrap, datasets=[inner])
    runner._train_dataloader['dataset'] = ConfigDict(wrapped)
    runner.train()
    assert '000.jpg: the file is empty' in guard_lines(runner.work_dir)[0]


@pytest.mark.parametrize(
    ('fault', 'words'),
    [
        ('missing', 'its label image 001.png: the file is missing'),
        ('colour', 'has mode RGB, expected 8-bit class indices'),
        ('16 bits', 'has mode I;16, expected 8-bit class indices'),
        ('size', 'its label image is 30 x 30 pixels, the image 64 x 48'),
        ('range', 'its label image holds the value 3'),
    ],
)
def test_label_images_of_no_use_are_named(tmp_path: Path, fault: str, words: str) -> None:
    planted.write_labelled(tmp_path, images=4, splits=('train',))
    path = tmp_path / 'labels' / 'train' / '001.png'
    if fault == 'missing':
        path.unlink()
    elif fault == 'colour':
        planted.picture(1).save(path)
    elif fault == '16 bits':
        path.write_bytes(planted._sixteen_bits(colour=False))
    elif fault == 'size':
        planted.picture(1, 30, 30).convert('L').save(path)
    else:
        planted.Image.fromarray(np.full((48, 64), 3, np.uint8)).save(path)
    runner = runner_of(tmp_path / 'work', labelled(tmp_path), max_bad_share=0.5)
    runner.train()
    assert words in guard_lines(runner.work_dir)[0]
    assert [name for name, _ in runner.model.seen] == ['000.jpg', '002.jpg', '002.jpg', '003.jpg'] * 2


def test_a_label_image_of_a_turned_photo_says_how_it_was_labelled(tmp_path: Path) -> None:
    planted.write_labelled(tmp_path, images=2, splits=('train',))
    (tmp_path / 'images' / 'train' / '001.jpg').write_bytes(planted.turned(planted.picture(2)))
    runner = runner_of(tmp_path / 'work', labelled(tmp_path))
    runner.train()
    assert 'EXIF orientation is not applied' in guard_lines(runner.work_dir)[0]
    assert runner.model.samples[1].ori_shape == (48, 64)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_test_over_bad_images_gives_no_result(tmp_path: Path, workers: int) -> None:
    planted.write_coco(tmp_path, images=4, split='val')
    (tmp_path / 'val' / '002.jpg').write_text('not an image')
    runner = runner_of(tmp_path / 'work', coco(tmp_path, 'val', test_mode=True), split='test', workers=workers)
    with pytest.raises(BadDataError, match=r'^test data: \S*002\.jpg: it is not an image of a known format$'):
        runner.test()
    assert not (tmp_path / 'work' / 'results.pkl').exists()


def test_missing_test_images_are_all_named_before_the_first_is_used(tmp_path: Path) -> None:
    planted.write_coco(tmp_path, images=4, split='val')
    for index in (1, 3):
        (tmp_path / 'val' / f'{index:03d}.jpg').unlink()
    runner = runner_of(tmp_path / 'work', coco(tmp_path, 'val', test_mode=True), split='test')
    with pytest.raises(BadDataError, match=r'^test data: 2 files are missing or empty: \S*001\.jpg; \S*003\.jpg\.'):
        runner.test()
    assert runner.model.seen == []


def test_black_images_stand_in_where_that_is_allowed(tmp_path: Path) -> None:
    planted.write_coco(tmp_path, images=4, split='val')
    (tmp_path / 'val' / '002.jpg').unlink()
    dataset = coco(tmp_path, 'val', test_mode=True)
    runner = runner_of(tmp_path / 'work', dataset, split='test', allow_bad_test_images=True)
    runner.test()
    assert [name for name, _ in runner.model.seen] == ['000.jpg', '001.jpg', '002.jpg', '003.jpg']
    assert runner.model.seen[2][1] == 0
    assert runner.model.samples[2].ori_shape == (48, 64)
    assert '002.jpg: the file is missing; a black image stands in' in guard_lines(runner.work_dir)[0]


@pytest.mark.parametrize(
    ('escape', 'split'), [('../secret.jpg', 'train'), ('a/../../secret.jpg', 'test'), ('absolute', 'train')]
)
def test_paths_that_climb_out_of_the_image_folder_are_refused(tmp_path: Path, escape: str, split: str) -> None:
    path = planted.write_coco(tmp_path, images=4)
    planted.picture(1).save(tmp_path / 'secret.jpg')
    (tmp_path / 'train' / 'a').mkdir()
    content = json.loads(path.read_text())
    content['images'][2]['file_name'] = str(tmp_path / 'secret.jpg') if escape == 'absolute' else escape
    path.write_text(json.dumps(content))
    runner = runner_of(tmp_path / 'work', coco(tmp_path, test_mode=split == 'test'), split=split)
    with pytest.raises(BadDataError, match=r'secret\.jpg.* is outside of ') as error:
        runner.train() if split == 'train' else runner.test()
    assert 'image 102' in str(error.value) or split == 'test'
    assert runner.model.seen == []


def test_a_list_of_images_cannot_climb_out_either(tmp_path: Path) -> None:
    planted.write_folders(tmp_path, images=2, splits=('train',))
    planted.picture(1).save(tmp_path / 'secret.jpg')
    (tmp_path / 'train.txt').write_text('disk/000.jpg 0\n../secret.jpg 1\n')
    runner = runner_of(tmp_path / 'work', {**folders(tmp_path), 'ann_file': 'train.txt'})
    with pytest.raises(BadDataError, match=r'names \S*\.\./secret\.jpg, which is outside of'):
        runner.train()


def test_a_billion_pixels_do_not_take_the_memory(tmp_path: Path) -> None:
    planted.write_coco(tmp_path, images=4)
    (tmp_path / 'train' / '001.jpg').write_bytes(planted.billion_pixels())
    runner = runner_of(tmp_path / 'work', coco(tmp_path), max_bad_share=0.5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    runner.train()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 200  # decoded, it would be 3000 MB
    assert 'more pixels than max_pixels' in guard_lines(runner.work_dir)[0]


def test_max_pixels_is_the_limit(tmp_path: Path) -> None:
    planted.write_folders(tmp_path, images=2, splits=('train',))
    planted.picture(1, 40, 100).save(tmp_path / 'train' / 'disk' / '000.jpg')
    runner = runner_of(tmp_path / 'work', folders(tmp_path), max_bad_share=0.5, max_pixels=3999)
    runner.train()
    assert '000.jpg: its header claims 100 x 40 pixels, more than max_pixels=3,999' in guard_lines(runner.work_dir)[0]


def _one_rank(folder: Path) -> list[int]:
    launch.init_distributed('pytorch', dict(timeout=60))
    runner = runner_of(folder / 'work', coco(folder), max_bad_share=0.3)
    runner.train()
    guard = next(hook for hook in runner.hooks if type(hook).__name__ == 'DataGuardHook').guards[0]
    launch.leave_distributed()
    return guard.states.tolist()


def test_ranks_agree_on_what_is_bad(tmp_path: Path) -> None:
    """One bad file in the part of either rank; both know both, and the log has each once."""
    planted.write_coco(tmp_path, images=8)
    for index in (2, 5):
        (tmp_path / 'train' / f'{index:03d}.jpg').write_bytes(b'')
    assert run_forked(2, _one_rank, tmp_path) == [[0, 0, 2, 0, 0, 2, 0, 0]] * 2
    lines = guard_lines(tmp_path / 'work')
    assert sum('002.jpg' in line for line in lines) == 1
    assert sum('005.jpg' in line for line in lines) == 1
    assert 'of 8 samples, 2 are bad' in lines[-1]
