# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Checkpoints: whole or not there, checked, the old ones removed last."""

import errno
import os
import random
import resource
import signal

import pytest
import torch

from mmlightvit.durable import seal
from mmlightvit.durable.checkpoint_hook import CheckpointHook
from mmlightvit.durable.find import checkpoint_dir, find_newest, remove_strays
from mmlightvit.durable.safe_loading.atomic import TEMPORARY_SUFFIX
from mmlightvit.durable.safe_loading.read import read_checkpoint
from mmlightvit.durable.seal import DamagedCheckpoint, atomic_save, read_seal, verify
from mmlightvit.errors import UserError


def _content(value: float = 1.0) -> dict:
    return dict(meta=dict(iter=7), state_dict=dict(weight=torch.full((300, 10), value)), optimizer={})


def test_a_sealed_checkpoint_is_read_by_torch_and_verifies(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    atomic_save(_content(), path, iteration=7, epoch=1, resumable=True, run=5)
    assert verify(path)[:4] == (5, 7, 1, True)
    for checkpoint in (torch.load(path, weights_only=True), read_checkpoint(path)):
        assert torch.equal(checkpoint['state_dict']['weight'], torch.ones(300, 10))
    assert [entry.name for entry in tmp_path.iterdir()] == ['epoch_1.pth']


@pytest.mark.parametrize('sealed', [True, False])
def test_flipped_bits_and_truncations_are_noticed(tmp_path, sealed):
    path = tmp_path / 'epoch_1.pth'
    if sealed:
        atomic_save(_content(), path, resumable=True)
    else:
        torch.save(_content(), path)
    whole = path.read_bytes()
    rng = random.Random(0)
    unnoticed = []
    places = [rng.randrange(len(whole) * 8) for _ in range(64)]
    if not sealed:  # MMEngine's own files: the bytes of their tensors at least
        start = whole.index(torch.ones(10).numpy().tobytes())
        places = [start * 8 + place % (12000 * 8) for place in places]
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            verify(path)
        except DamagedCheckpoint:
            continue
        unnoticed.append(place)
    for share in range(10):
        path.write_bytes(whole[: len(whole) * share // 10])
        with pytest.raises(DamagedCheckpoint):
            verify(path)
    assert unnoticed == []
    path.write_bytes(whole)
    verify(path)


def test_every_byte_of_the_seal_and_the_archives_end_is_protected(tmp_path):
    path = tmp_path / 'iter_1.pth'
    atomic_save(_content(), path, resumable=True)
    whole = path.read_bytes()
    for place in range(len(whole) - 200, len(whole)):
        for bit in (1, 4):  # of a digit, the first makes another digit
            damaged = bytearray(whole)
            damaged[place] ^= bit
            path.write_bytes(damaged)
            with pytest.raises(DamagedCheckpoint):
                verify(path)


def test_the_newest_intact_checkpoint_is_found_and_the_others_are_named(tmp_path):
    for iteration, name in ((10, 'epoch_1.pth'), (20, 'epoch_2.pth'), (25, 'interrupted_iter_25.pth')):
        atomic_save(_content(), tmp_path / name, iteration, iteration // 10, resumable=True)
    atomic_save(_content(), tmp_path / 'best_acc_epoch_3.pth', 30, 3)
    # An older file with a newer date, as copying makes them.
    os.utime(tmp_path / 'epoch_1.pth', (2e9, 2e9))
    assert find_newest(tmp_path) == (tmp_path / 'interrupted_iter_25.pth', [])
    with open(tmp_path / 'interrupted_iter_25.pth', 'r+b') as file:
        file.seek(900)
        file.write(b'rotten')
    with open(tmp_path / 'epoch_2.pth', 'r+b') as file:
        file.truncate(1000)
    found = find_newest(tmp_path)
    assert found.path == tmp_path / 'epoch_1.pth'
    assert len(found.skipped) == 2
    assert any('epoch_2.pth' in sentence for sentence in found.skipped)
    assert any('interrupted_iter_25.pth' in sentence and 'checksum' in sentence for sentence in found.skipped)


def test_an_older_run_in_the_directory_does_not_count(tmp_path):
    atomic_save(_content(), tmp_path / 'epoch_12.pth', 1200, 12, resumable=True, run=1_700_000_000_000)
    atomic_save(_content(), tmp_path / 'epoch_1.pth', 100, 1, resumable=True, run=1_800_000_000_000)
    atomic_save(_content(), tmp_path / 'epoch_2.pth', 200, 2, resumable=True, run=1_800_000_000_000)
    torch.save(_content(), tmp_path / 'epoch_20.pth')
    assert find_newest(tmp_path) == (tmp_path / 'epoch_2.pth', [])


def test_checkpoints_of_stock_mmengine_are_found(tmp_path):
    for number in (9, 10):
        torch.save(_content(), tmp_path / f'epoch_{number}.pth')
    assert find_newest(tmp_path) == (tmp_path / 'epoch_10.pth', [])
    assert read_seal(tmp_path / 'epoch_10.pth') is None


def test_a_limit_on_the_file_size_leaves_the_old_checkpoint_and_no_stray(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    atomic_save(_content(1.0), path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(UserError, match='ulimit') as caught:
            atomic_save(_content(2.0), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(path) in str(caught.value)
    assert '--resume' in str(caught.value)
    verify(path)
    assert read_checkpoint(path)['state_dict']['weight'][0, 0] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ['epoch_1.pth']


@pytest.mark.parametrize(
    ('number', 'words'),
    [(errno.ENOSPC, 'disk is full'), (errno.EDQUOT, 'quota'), (errno.EROFS, 'read-only'), (errno.EIO, 'error')],
)
def test_what_the_operating_system_refuses_is_said(tmp_path, monkeypatch, number, words):
    path = tmp_path / 'epoch_1.pth'
    atomic_save(_content(1.0), path)

    def refuse(self, data):
        self.error = OSError(number, os.strerror(number))
        raise self.error

    monkeypatch.setattr(seal._SealingFile, '_emit', refuse)
    with pytest.raises(UserError, match=words):
        atomic_save(_content(2.0), path)
    monkeypatch.undo()
    verify(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ['epoch_1.pth']


def test_strays_are_removed(tmp_path):
    atomic_save(_content(), tmp_path / 'epoch_1.pth')
    stray = tmp_path / f'.epoch_2.pth.abc{TEMPORARY_SUFFIX}'
    stray.write_bytes(b'half')
    assert remove_strays(tmp_path) == [stray]
    assert [entry.name for entry in tmp_path.iterdir()] == ['epoch_1.pth']


@pytest.mark.parametrize(
    ('hooks', 'expected'),
    [
        (None, '/runs/one'),
        (dict(checkpoint=None), '/runs/one'),
        (dict(checkpoint=dict(interval=1)), '/runs/one'),
        (dict(checkpoint=dict(out_dir='/disk')), '/disk/one'),
        (dict(checkpoint=dict(out_dir='/runs/one')), '/runs/one'),
        (dict(checkpoint=CheckpointHook()), '/runs/one'),
        (dict(checkpoint=CheckpointHook(out_dir='/disk')), '/disk/one'),
    ],
)
def test_where_checkpoints_are(hooks, expected):
    assert checkpoint_dir('/runs/one/', hooks) == expected
