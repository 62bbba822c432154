# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The parts of the data guard; runs over bad data are in tests/reliability/test_bad_data.py."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from mmengine.dataset import BaseDataset
from torch.utils.data import DataLoader

from mmlightvit.durable.data_guard import BadDataError, DataGuardHook, DatasetGuard
from mmlightvit.durable.dataset_traits import innermost, roots
from mmlightvit.durable.images import BadSample, decode, escapes, fetch, read_header

pytest.importorskip('mmcv')


class Files(BaseDataset):
    """The images of a folder."""

    def load_data_list(self) -> list[dict]:
        return [dict(img_path=str(path)) for path in sorted(Path(self.data_prefix['img_path']).iterdir())]


def folder_of(root: Path, images: int = 6) -> Files:
    from mmcv.transforms import LoadImageFromFile

    folder = root / 'images'
    folder.mkdir()
    for index in range(images):
        planted.picture(index).save(folder / f'{index:03d}.jpg')
    return Files(data_root=str(root), data_prefix=dict(img_path='images'), pipeline=[LoadImageFromFile()])


def guard_of(dataset: Any, **settings: Any) -> DatasetGuard:
    given = dict(split='train', max_bad_share=0.5, max_pixels=10**6, stands_in=False)
    return DatasetGuard(dataset, **{**given, **settings})


@pytest.mark.parametrize(
    ('path', 'root', 'out'),
    [
        ('data/a.jpg', 'data', False),
        ('data/a/../b.jpg', 'data', False),
        ('data/../b.jpg', 'data', True),
        ('data/../database/b.jpg', 'data', True),
        ('database/b.jpg', 'data', True),
        ('/etc/passwd', 'data', True),
        ('/data/x/a.jpg', '/data', False),
        ('data/..a/b.jpg', 'data/', False),
        ('anywhere/../a.jpg', '', False),
        ('s3://bucket/train/a.jpg', 's3://bucket/train', False),
        ('s3://bucket/train/../val/a.jpg', 's3://bucket/train', True),
    ],
)
def test_climbing_out(path: str, root: str, out: bool) -> None:
    assert escapes(path, root) is out


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'data').symlink_to(tmp_path / 'elsewhere')
    assert not escapes(str(tmp_path / 'data' / 'a.jpg'), str(tmp_path / 'data'))


@pytest.mark.parametrize(('plant', 'words'), planted.BAD_IMAGES.values(), ids=planted.BAD_IMAGES)
def test_bad_images_have_a_reason(tmp_path: Path, plant: Any, words: str) -> None:
    path = tmp_path / 'a.jpg'
    path.write_bytes(planted.encoded(planted.picture(0), 'JPEG'))
    plant(path)
    with pytest.raises(BadSample, match=words):
        content = fetch(str(path))
        read_header(content)
        decode(content)


@pytest.mark.parametrize('write', planted.ODD_IMAGES.values(), ids=planted.ODD_IMAGES)
def test_unusual_images_become_eight_bit_colour(write: Any) -> None:
    image = decode(write())
    assert (image.dtype, image.shape[2]) == (np.uint8, 3)
    assert image.std() > 20


def test_cmyk_keeps_its_colours() -> None:
    picture = planted.picture(2)
    image = decode(planted.encoded(picture.convert('CMYK'), 'JPEG', quality=95))
    assert np.abs(image[..., ::-1].astype(int) - np.asarray(picture)).mean() < 4


def test_a_worker_error_keeps_its_last_line() -> None:
    from torch._utils import ExceptionWrapper

    try:
        raise BadDataError('train data: a.jpg: the file is empty')
    except BadDataError:
        wrapped = ExceptionWrapper(where='in DataLoader worker process 0')
    with pytest.raises(BadDataError) as error:
        wrapped.reraise()
    assert str(error.value) == 'train data: a.jpg: the file is empty'


def test_the_next_good_sample_takes_the_place(tmp_path: Path) -> None:
    dataset = folder_of(tmp_path)
    for index in (0, 1, 5):
        (tmp_path / 'images' / f'{index:03d}.jpg').write_bytes(b'')
    guard = guard_of(dataset)
    names = [Path(dataset[index]['img_path']).stem for index in range(6)]
    assert names == ['002', '002', '002', '003', '004', '002']
    assert guard.states.tolist() == [2, 2, 0, 0, 0, 2]
    assert guard.describe(1) == f'{tmp_path}/images/001.jpg: the file is empty'


class Labelled(Files):
    METAINFO = dict(classes=('one',))

    def load_data_list(self) -> list[dict]:
        label = str(Path(self.data_root) / 'label.png')
        return [dict(entry, seg_map_path=label) for entry in super().load_data_list()]


@pytest.mark.parametrize('kind', ['colours', 'more classes'])
def test_label_images_of_other_toolboxes_are_not_held_against_mmsegs_rules(tmp_path: Path, kind: str) -> None:
    """mmdet's panoptic labels are colours, and its stuff maps hold more values than there are things."""
    from mmcv.transforms import LoadAnnotations, LoadImageFromFile

    folder_of(tmp_path, 1)
    picture = planted.picture(0)
    (picture if kind == 'colours' else picture.convert('L')).save(tmp_path / 'label.png')
    loader = LoadAnnotations(with_bbox=False, with_label=False, with_seg=True, imdecode_backend='pillow')
    dataset = Labelled(
        data_root=str(tmp_path), data_prefix=dict(img_path='images'), pipeline=[LoadImageFromFile(), loader]
    )
    guard = guard_of(dataset)
    assert dataset[0]['gt_seg_map'].max() > 1
    assert guard.states.tolist() == [0]


def test_what_a_replacement_draws_does_not_depend_on_what_is_known(tmp_path: Path) -> None:
    """So that a resumed run, which knows of no bad file yet, repeats the uninterrupted one."""
    import cv2

    dataset = folder_of(tmp_path)

    def odd(results: dict) -> dict:
        results['drawn'] = np.random.random()
        if results['img_path'].endswith('000.jpg'):
            raise cv2.error('an augmentation that cannot be applied')
        return results

    dataset.pipeline.transforms.append(odd)
    guard_of(dataset)
    drawn = []
    for _ in range(2):
        np.random.seed(3)
        drawn.append(dataset[0]['drawn'])
    assert drawn[0] == drawn[1]


def test_other_errors_are_not_taken_for_bad_data(tmp_path: Path) -> None:
    dataset = folder_of(tmp_path)

    def broken(results: dict) -> dict:
        raise KeyError('a mistake in a transform')

    dataset.pipeline.transforms.append(broken)
    guard = guard_of(dataset)
    with pytest.raises(KeyError):
        dataset[0]
    assert not guard.states.any()


def test_a_pipeline_switched_in_training_is_watched_too(tmp_path: Path) -> None:
    from mmcv.transforms import LoadImageFromFile
    from mmengine.dataset import Compose

    dataset = folder_of(tmp_path)
    guard = guard_of(dataset)
    dataset[0]
    dataset.pipeline = Compose([LoadImageFromFile()])
    (tmp_path / 'images' / '000.jpg').write_bytes(b'')
    dataset[0]
    assert guard.states.tolist() == [2, 0, 0, 0, 0, 0]


def test_not_one_good_sample(tmp_path: Path) -> None:
    dataset = folder_of(tmp_path)
    for path in (tmp_path / 'images').iterdir():
        path.write_bytes(b'')
    guard_of(dataset, max_bad_share=1)
    with pytest.raises(BadDataError, match='not one of the 6 samples can be used'):
        dataset[0]


def test_worker_processes_share_what_they_find(tmp_path: Path) -> None:
    dataset = folder_of(tmp_path)
    (tmp_path / 'images' / '002.jpg').write_bytes(b'')
    guard = guard_of(dataset)
    loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=list, multiprocessing_context='fork')
    assert len(list(loader)) == 3
    assert guard.states.tolist() == [0, 0, 2, 0, 0, 0]


def test_a_guarded_data_set_can_be_pickled(tmp_path: Path) -> None:
    dataset = folder_of(tmp_path)
    guard_of(dataset)
    again = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(again[1]['img'], dataset[1]['img'])


def test_innermost_and_roots(tmp_path: Path) -> None:
    from mmengine.dataset import ConcatDataset, RepeatDataset

    dataset = folder_of(tmp_path)
    assert list(innermost(ConcatDataset([dataset, dataset]))) == [dataset, dataset]
    assert list(innermost(RepeatDataset(dataset, times=2))) == [dataset]
    assert roots(dataset) == (str(tmp_path / 'images'), '')


@pytest.mark.parametrize(
    'settings', [dict(max_bad_share=1.5), dict(max_bad_share=-0.1), dict(interval=0), dict(max_pixels=0)]
)
def test_settings_out_of_range(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        DataGuardHook(**settings)


@pytest.mark.slow  # a timing, which needs an idle machine
def test_the_cost_for_a_sample_is_small(tmp_path: Path) -> None:
    """The header is read before the pixels, which takes far less than decoding a photo of usual size."""
    dataset = folder_of(tmp_path)
    for index in range(6):
        planted.picture(index, 480, 640).save(tmp_path / 'images' / f'{index:03d}.jpg')

    def best_of(times: int) -> float:
        taken = []
        for _ in range(times):
            start = time.perf_counter()
            for index in range(6):
                dataset.prepare_data(index)
            taken.append(time.perf_counter() - start)
        return min(taken)

    plain = best_of(20)
    guard_of(dataset)
    assert best_of(20) < 1.5 * plain
