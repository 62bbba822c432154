# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A file is the old or the new one, never a part."""

from __future__ import annotations

import errno
import os

import pytest

from mmlightvit.durable.safe_loading.atomic import atomic_write


def test_writes_and_replaces(tmp_path):
    file = tmp_path / 'file'
    for content in (b'first', b'second'):
        atomic_write(file, lambda out, content=content: out.write(content))
        assert file.read_bytes() == content
    assert os.listdir(tmp_path) == ['file']
    plain = tmp_path / 'plain'
    plain.touch()
    assert file.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / 'file').write_bytes(b'old')

    def write(out):
        out.write(b'new')
        raise error

    with pytest.raises(type(error)):
        atomic_write(tmp_path / 'file', write)
    assert (tmp_path / 'file').read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['file']


def test_content_and_rename_are_synced_in_this_order(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda fd: (steps.append('directory' if is_directory(fd) else 'file'), fsync(fd)))
    monkeypatch.setattr(os, 'replace', lambda *paths: (steps.append('rename'), replace(*paths)))
    atomic_write(tmp_path / 'file', lambda out: out.write(b'x'))
    assert steps == ['file', 'rename', 'directory']


def is_directory(descriptor: int) -> bool:
    return os.path.isdir(f'/proc/self/fd/{descriptor}')


@pytest.mark.parametrize('number', [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_directories_is_written_to(tmp_path, monkeypatch, number):
    def refuse(descriptor):
        if is_directory(descriptor):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, 'fsync', refuse)
    atomic_write(tmp_path / 'file', lambda out: out.write(b'x'))
    assert (tmp_path / 'file').read_bytes() == b'x'
