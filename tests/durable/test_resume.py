# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A resumed run repeats the uninterrupted one; data depend on seed and position alone."""

import errno
import functools
import itertools
import os
import pickle
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.optim import OptimWrapperDict
from torch.utils.data import BatchSampler, DataLoader

from mmlightvit.durable import resume
from mmlightvit.durable.find import LAST_CHECKPOINT
from mmlightvit.durable.nonfinite import OptimWrapper
from mmlightvit.durable.safe_loading.read import read_checkpoint
from mmlightvit.durable.samplers import Draw, DrawSampler, ResumableBatchSampler, SeededDataset, seed_all
from mmlightvit.durable.seal import atomic_save, read_seal
from mmlightvit.errors import AllRanksError

sys.path.insert(0, str(Path(__file__).parents[1] / 'reliability'))

import forks
import runs


class _Random:
    """Each sample is what the three global generators give."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.tensor([index, random.random(), np.random.rand(), float(torch.rand(()))])


def _loader(workers=0, endless=False, skip=0, sampler='DefaultSampler', batch_size=3, seed=1):
    dataset = SeededDataset(_Random(), seed)
    draws = DrawSampler(dict(type=sampler, shuffle=True), dataset, seed)
    batches = ResumableBatchSampler(draws, batch_size, endless=endless)
    batches.skip(skip)
    return DataLoader(dataset, batch_sampler=batches, num_workers=workers)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_batch_depends_on_its_position_alone(workers):
    whole = list(_loader())
    assert len(whole) == 4
    for skip in (0, 1, 3, 4):
        rest = list(_loader(workers, skip=skip))
        assert len(rest) == 4 - skip
        assert all(torch.equal(one, other) for one, other in zip(rest, whole[skip:], strict=True))


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
def test_endless_batches_go_over_the_passes(sampler):
    whole = list(itertools.islice(_loader(endless=True, sampler=sampler), 12))
    rest = list(itertools.islice(_loader(endless=True, sampler=sampler, skip=7), 5))
    assert all(torch.equal(one, other) for one, other in zip(rest, whole[7:], strict=True))
    # No augmentation comes twice, though each sample does.
    assert len({tuple(row[1:].tolist()) for batch in whole for row in batch}) == sum(map(len, whole))


def test_the_order_is_the_stock_samplers():
    dataset = _Random()
    draws = DrawSampler(dict(type='DefaultSampler', shuffle=True), dataset, 1)
    draws.set_epoch(3)
    stock = DefaultSampler(dataset, shuffle=True, seed=1)
    stock.set_epoch(3)
    assert list(ResumableBatchSampler(draws, 3)) == list(BatchSampler(stock, 3, drop_last=False))
    draws = DrawSampler(dict(type='InfiniteSampler', shuffle=True), dataset, 1)
    endless = iter(ResumableBatchSampler(draws, 4, endless=True))
    stock_endless = iter(BatchSampler(InfiniteSampler(dataset, shuffle=True, seed=1), 4, drop_last=False))
    assert [next(endless) for _ in range(9)] == [next(stock_endless) for _ in range(9)]


def test_epoch_position_and_seed_change_the_sample():
    dataset = SeededDataset(_Random(), 1)
    samples = [SeededDataset(_Random(), 2)[Draw(4, 0, 0)]]
    samples += [dataset[Draw(4, epoch, position)] for epoch, position in ((0, 0), (0, 1), (1, 0))]
    values = {tuple(sample[1:].tolist()) for sample in samples}
    assert len(values) == 4
    assert torch.equal(dataset[Draw(4, 1, 0)], samples[-1])


def test_a_draw_travels_to_workers():
    draw = pickle.loads(pickle.dumps(Draw(5, 2, 9)))
    assert (draw, draw.epoch, draw.position) == (5, 2, 9)


def test_the_seeded_data_set_passes_everything_on():
    inner = _Random()
    dataset = pickle.loads(pickle.dumps(SeededDataset(inner, 0)))
    dataset.pipeline = ['switched']
    assert dataset.dataset.pipeline == dataset.pipeline == ['switched']
    assert len(dataset) == 10
    with pytest.raises(AttributeError):
        _ = dataset.absent


def test_seeding_reaches_all_generators():
    def draw():
        return random.random(), np.random.rand(), float(torch.rand(()))

    seed_all('sample', 1, 2)
    first = draw()
    seed_all('sample', 1, 3)
    other = draw()
    seed_all('sample', 1, 2)
    assert draw() == first
    assert all(one != two for one, two in zip(first, other))


def test_a_sample_and_an_iteration_of_the_same_numbers_differ():
    sample = SeededDataset(_Random(), 1)[Draw(4, 2, 3)]
    seed_all('iteration', 1, 2, 3)
    assert not torch.equal(_Random()[4][1:], sample[1:])


def test_an_endless_loader_without_a_batch_says_so():
    class Empty(_Random):
        def __len__(self):
            return 2

    draws = DrawSampler(dict(type='DefaultSampler'), Empty(), 0)
    with pytest.raises(ValueError, match='2 samples'):
        next(iter(ResumableBatchSampler(draws, 3, drop_last=True, endless=True)))


# -- whole runs, in forked processes ----------------------------------------------------------------------------------


def _run(directory, by_epoch, stock=False, **changes):
    directory.mkdir(exist_ok=True)

    def work():
        runner = runs.train(runs.config(directory, by_epoch, **changes), stock)
        (directory / 'fingerprint').write_text(runs.fingerprint(runner))

    code = forks.run(work, directory / 'out')
    result = directory / 'fingerprint'
    return code, result.read_text() if result.exists() else (directory / 'out').read_text()[-3000:]


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A function to the work directory of a whole run, which is made once, and its fingerprint; nobody writes there."""

    @functools.cache
    def get(by_epoch, **changes):
        directory = tmp_path_factory.mktemp('finished') / 'run'
        code, whole = _run(directory, by_epoch, **changes)
        assert code == 0, whole
        return directory, whole

    return get


@pytest.fixture
def one_epoch(finished, tmp_path):
    """A copy of the work directory of a run of one epoch."""
    directory, _ = finished(True, train_cfg__max_epochs=1, log_level='INFO')
    return shutil.copytree(directory, tmp_path / 'run', symlinks=True)


def _interrupted(at, number, **changes):
    return dict(
        custom_hooks=[dict(type='EMAHook', momentum=0.1), dict(type=runs.KillAt, at=at, number=int(number))], **changes
    )


@pytest.mark.parametrize(('by_epoch', 'number', 'workers'), [(True, 15, 2), (False, 9, 0), (True, 2, 0)])
def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path, finished, by_epoch, number, workers):
    directory, whole = finished(by_epoch)
    code, _ = _run(tmp_path / 'cut', by_epoch, **_interrupted(7, number, workers=workers))
    assert code == (-9 if number == 9 else 128 + number)
    # A moved work directory is as good.
    (tmp_path / 'cut').rename(tmp_path / 'moved')
    code, resumed = _run(tmp_path / 'moved', by_epoch, workers=workers, resume=True)
    assert (code, resumed) == (0, whole)
    names = {path.name for path in (tmp_path / 'moved').glob('*.pth')}
    assert not any(name.startswith('interrupted') for name in names)
    assert names == {path.name for path in directory.glob('*.pth')}


def test_a_damaged_newest_checkpoint_is_skipped_aloud(tmp_path, finished):
    directory, whole = finished(True)
    shutil.copytree(directory, tmp_path / 'run', symlinks=True)
    began = read_seal(tmp_path / 'run' / 'epoch_2.pth').run
    (tmp_path / 'run' / 'fingerprint').unlink()
    with open(tmp_path / 'run' / 'epoch_3.pth', 'r+b') as file:
        file.seek(5000)
        file.write(b'rotten')
    code, resumed = _run(tmp_path / 'run', True, resume=True, log_level='WARNING')
    assert (code, resumed) == (0, whole)
    output = (tmp_path / 'run' / 'out').read_text()
    assert 'Skipped for resuming' in output
    assert 'epoch_3.pth is damaged' in output
    assert 'epoch_2.pth, the newest intact checkpoint' in output
    assert read_seal(tmp_path / 'run' / 'epoch_3.pth').run == began > 0
    # From a file of one's choice the run begins anew, so that what it saves is the newest.
    changes = dict(load_from=str(tmp_path / 'run' / 'epoch_2.pth'), model__type=_NeverInitialised)
    code, resumed = _run(tmp_path / 'run', True, resume=True, **changes)
    assert (code, resumed) == (0, whole)
    assert read_seal(tmp_path / 'run' / 'epoch_3.pth').run > began


class _NeverInitialised(runs.Classifier):
    def init_weights(self):
        raise AssertionError('the weights come from the checkpoint')


def test_another_batch_size_or_data_set_is_refused(one_epoch):
    for change, words in (
        (dict(train_dataloader__batch_size=4), 'batch_size 3 -> 4'),
        (dict(train_dataloader__dataset__samples=15), 'samples 14 -> 15'),
    ):
        code, _ = _run(one_epoch, True, resume=True, **change)
        assert code == 1
        assert words in (one_epoch / 'out').read_text()


def test_a_checkpoint_that_one_rank_cannot_read_is_an_answer_to_all(tmp_path, monkeypatch):
    def refuse(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(resume, 'verify', refuse)
    path = tmp_path / 'epoch_1.pth'
    path.touch()
    choice = resume.choose_checkpoint(resume.ResumeRequest(str(path), True), str(tmp_path), str(tmp_path))
    assert choice.path is None
    assert f'{tmp_path}/epoch_1.pth cannot be read: Input/output error' in choice.problem


def test_the_choice_of_a_checkpoint(tmp_path):
    def choose(checkpoint=None):
        return resume.choose_checkpoint(resume.ResumeRequest(checkpoint, True), str(tmp_path), str(tmp_path / 'kept'))

    assert choose().path is None
    assert choose().problem is None
    assert 'starts from the beginning' in choose().messages[0]
    assert choose('s3://bucket/epoch_1.pth').path == 's3://bucket/epoch_1.pth'
    assert 'does not exist' in choose(str(tmp_path / 'absent.pth')).problem
    (tmp_path / LAST_CHECKPOINT).write_text('s3://bucket/epoch_2.pth')
    assert choose().path == 's3://bucket/epoch_2.pth'
    (tmp_path / LAST_CHECKPOINT).unlink()
    (tmp_path / 'kept').mkdir()
    (tmp_path / 'kept' / 'epoch_1.pth').write_bytes(b'rotten')
    assert 'no intact checkpoint' in choose().problem
    atomic_save({'meta': {}}, tmp_path / 'kept' / 'epoch_0.pth', 1, resumable=True)
    choice = choose()
    assert choice.path == str(tmp_path / 'kept' / 'epoch_0.pth')
    # A file without a seal stands behind all sealed ones, so it is not skipped for the choice.
    assert [message for message in choice.messages if 'epoch_0.pth, the newest intact checkpoint' in message]


SHAPE = dict(world_size=2, batch_size=4, accumulative_counts=1, samples=40, batches=5)


@pytest.mark.parametrize(
    ('grouping', 'by_epoch', 'iteration', 'expected'),
    [
        (None, True, 7, 'batches hold the same images'),
        (None, False, 7, 'batches hold the same images'),
        ('Grouping', True, 10, 'epochs hold the same images as before, in other batches'),
        ('Grouping', True, 7, None),
        ('Grouping', False, 10, None),
    ],
)
def test_other_processes_are_accepted_where_their_images_are_the_same(grouping, by_epoch, iteration, expected):
    meta = dict(epoch=iteration // 5, iter=iteration, shape_of_run=SHAPE)
    now = dict(SHAPE, world_size=1, batch_size=8)
    if expected is None:
        with pytest.raises(AllRanksError, match=r'Grouping groups the images.*Resume with 2 processes'):
            resume.require_same_run(meta, now, by_epoch=by_epoch, grouping_sampler=grouping)
    else:
        told = resume.require_same_run(meta, now, by_epoch=by_epoch, grouping_sampler=grouping)
        assert expected in told
        assert 'world_size 2 -> 1; batch_size 4 -> 8' in told


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(batch_size=8), 'batch_size 4 -> 8. Iterations .* = 8 and 40 samples'),
        (dict(samples=44, batches=6), 'samples 40 -> 44; batches 5 -> 6'),
        (dict(batch_size=2, accumulative_counts=2, batches=10), 'accumulative_counts 1 -> 2'),
    ],
)
def test_another_run_is_refused(change, words):
    meta = dict(epoch=1, iter=5, shape_of_run=SHAPE)
    assert resume.require_same_run(meta, dict(SHAPE), by_epoch=True) is None
    with pytest.raises(AllRanksError, match=words):
        resume.require_same_run(meta, dict(SHAPE, **change), by_epoch=True)


def test_another_model_is_refused_before_all_else():
    weight, other = torch.zeros(3, 4), torch.zeros(2, 4)
    detector, classifier = {'backbone.w': weight, 'roi_head.w': weight}, {'backbone.w': weight, 'head.w': weight}
    resume.require_same_model('x', {f'module.{key}': value for key, value in detector.items()}, detector)
    for saved, now, words in (
        (detector, classifier, 'x is a checkpoint of another model .*: its parts are backbone, roi_head; those of the '
                               'config are backbone, head. .* load_from'),
        ({**detector, 'roi_head.w': other}, detector, r'roi_head\.w \[2, 4\], not \[3, 4\]\.'),
    ):  # fmt: skip
        with pytest.raises(AllRanksError, match=words):
            resume.require_same_model('x', saved, now)
    resume.require_same_model('x', detector | {'backbone.of_an_earlier_version': other}, detector)


class _OtherModel(runs.Classifier):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.neck = torch.nn.Linear(1, 1)


def test_a_run_of_another_model_is_refused(one_epoch):
    """Though the batch size is another one too."""
    change = dict(train_dataloader__batch_size=4, model__type=_OtherModel)
    (one_epoch / 'out').unlink()
    code, _ = _run(one_epoch, True, resume=True, **change)
    output = (one_epoch / 'out').read_text()
    assert code == 1 and 'is a checkpoint of another model' in output and 'batch_size' not in output


def test_the_shape_of_a_run_is_a_file_format(one_epoch):
    meta = read_checkpoint(one_epoch / 'epoch_1.pth')['meta']
    assert meta['shape_of_run'] == dict(world_size=1, batch_size=3, accumulative_counts=1, samples=14, batches=5)
    assert meta['began'] == read_seal(one_epoch / 'epoch_1.pth').run
    assert 'written by another program' in resume.require_same_run({}, meta['shape_of_run'], by_epoch=True)


def test_each_class_in_anothers_place_is_logged_once(one_epoch):
    lines = [line for line in (one_epoch / 'out').read_text().splitlines() if 'takes the place of' in line]
    assert sorted(line.split(' - ')[-1] for line in lines) == [
        f'mmlightvit.{name} takes the place of mmengine.{module}.{name}.'
        for name, module in (
            ('CheckpointHook', 'hooks.checkpoint_hook'),
            ('EpochBasedTrainLoop', 'runner.loops'),
            ('OptimWrapper', 'optim.optimizer.optimizer_wrapper'),
        )
    ]


def test_a_run_without_the_checkpoint_hook_trains(tmp_path):
    code, result = _run(tmp_path / 'run', True, default_hooks__checkpoint=None, train_cfg__max_epochs=1)
    assert code == 0, result
    assert list((tmp_path / 'run').glob('*.pth')) == []


class _TwoOptimizers:
    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        pass

    def __call__(self, model):
        optimizers = [torch.optim.Adam(part.parameters(), lr=0.01) for part in (model.backbone, model.head)]
        one, other = [OptimWrapper(optimizer=optimizer) for optimizer in optimizers]
        return OptimWrapperDict(one=one, other=other)


class _SteppedInTurn(runs.Classifier):
    def train_step(self, data, optim_wrapper):
        losses = self(**self.data_preprocessor(data, True), mode='loss')
        losses['loss'].backward()
        for wrapper in optim_wrapper.values():
            wrapper.step()
            wrapper.zero_grad()
        return losses


def test_several_optimizers_are_saved_and_resumed(tmp_path):
    several = dict(model__type=_SteppedInTurn, optim_wrapper__constructor=_TwoOptimizers)
    code, whole = _run(tmp_path / 'whole', True, **several)
    assert code == 0, whole
    _run(tmp_path / 'cut', True, **_interrupted(7, 15, **several))
    code, resumed = _run(tmp_path / 'cut', True, resume=True, **several)
    assert (code, resumed) == (0, whole)


def test_settings_that_the_checkpoint_overrules_are_named(one_epoch):
    same = dict(resume=True, train_cfg__max_epochs=1, log_level='WARNING')
    words = 'settings of its checkpoint'
    code, _ = _run(one_epoch, True, **same)
    assert code == 0
    assert words not in (one_epoch / 'out').read_text()
    changes = dict(param_scheduler__1__end=9, optim_wrapper__optimizer__lr=0.5, optim_wrapper__optimizer__eps=1e-4)
    code, _ = _run(one_epoch, True, **same, **changes)
    assert code == 0
    (line,) = [line for line in (one_epoch / 'out').read_text().splitlines() if words in line]
    for part in ('optimizer.lr: 0.01, not 0.5', 'eps: 1e-08, not 0.0001', '1.end: 3, not 9', 'load_from=FILE'):
        assert part in line


def test_more_epochs_need_a_schedule_that_reaches_them(tmp_path, finished):
    run = shutil.copytree(finished(True)[0], tmp_path / 'run', symlinks=True)
    code, _ = _run(run, True, resume=True, train_cfg__max_epochs=5, param_scheduler__1__end=5)
    assert code == 1
    output = (run / 'out').read_text()
    assert (
        'cannot resume to 5 epochs: the checkpoint goes on with its own CosineAnnealingLR, which ends after 3' in output
    )
    assert 'train_cfg.max_epochs=3, or start a new run' in output
