# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What a user's words lead to, and videos."""

from __future__ import annotations

import http.server
import io
import sys
import threading
from pathlib import Path, PurePath

import numpy as np
import pytest
from inference.results import picture
from PIL import Image

from mmlightvit.errors import UserError
from mmlightvit.inference import sources
from mmlightvit.pictures.read import PictureError


def write(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed=seed)).save(path)
    return path


def film(path: Path, frames: int = 12, size: tuple[int, int] = (48, 64)) -> Path:
    cv2 = pytest.importorskip('cv2')
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), 12.5, size[::-1])
    for index in range(frames):
        writer.write(np.full((*size, 3), (0, 0, 20 * index), np.uint8))  # red in OpenCV's order
    writer.release()
    return path


def names(found) -> list[str]:
    return [Path(entry.name).name for entry in found]


@pytest.fixture
def folder(tmp_path):
    for name in ('b.jpg', 'a.png', 'sub/c.webp', 'sub/b.jpg', '.hidden.jpg'):
        write(tmp_path / name)
    (tmp_path / 'notes.txt.md').write_text('')
    return tmp_path


def test_folders(folder):
    assert names(sources.find([str(folder)])) == ['a.png', 'b.jpg']
    deep = sources.find([str(folder)], recursive=True)
    assert [str(entry.place) for entry in deep] == ['a', 'b', 'sub/b', 'sub/c']
    (folder / 'empty').mkdir()
    with pytest.raises(UserError, match=r'empty: the folder has no pictures or videos .* --recursive'):
        sources.find([str(folder / 'empty')])


def test_globs(folder):
    found = sources.find([str(folder / '**' / '*.jpg')])
    assert [str(entry.place) for entry in found] == ['b', 'sub/b']
    with pytest.raises(UserError, match='no file fits'):
        sources.find([str(folder / '*.bmp')])
    bracket = write(folder / 'x[1].png')
    assert names(sources.find([str(bracket)])) == ['x[1].png']


def test_lists(folder):
    listing = folder / 'list.txt'
    listing.write_text(f'\ufeffa.png\n\nsub/c.webp\n{folder / "b.jpg"}\n../{folder.name}/sub/b.jpg\n', encoding='utf-8')
    found = sources.find([str(listing)])
    assert names(found) == ['a.png', 'c.webp', 'b.jpg', 'b.jpg']
    # Places lie inside of the output folder, wherever a list leads, and differ.
    assert [str(entry.place) for entry in found] == ['a', 'sub/c', 'b_jpg', 'b_jpg-2']
    listing.write_text('\n')
    with pytest.raises(UserError, match='the list is empty'):
        sources.find([str(listing)])


def test_equal_stems_do_not_overwrite_each_other(folder):
    write(folder / 'a.jpg')
    places = [str(entry.place) for entry in sources.find([str(folder)])]
    assert places == ['a_jpg', 'a_png', 'b']


def test_missing_files_are_found_out_when_read():
    (entry,) = sources.find(['missing.jpg'])
    (error,) = entry.read()
    assert isinstance(error, PictureError)
    assert str(error) == 'missing.jpg: the file is missing'


def test_videos(tmp_path):
    path = film(tmp_path / 'red.mp4')
    (entry,) = sources.find([str(path)])
    assert entry.is_video
    frames = list(entry.read(every=5))
    assert [frame.frame for frame in frames] == [0, 5, 10]
    assert frames[0].rate == pytest.approx(2.5)
    assert frames[0].of == 3
    for frame in frames:
        red, green, blue = frame.pixels.reshape(-1, 3).mean(axis=0)
        assert red == pytest.approx(20 * frame.frame, abs=12)
        assert max(green, blue) < 12


@pytest.mark.parametrize('content', [b'', b'no film', 'half'])
def test_broken_videos_are_named(tmp_path, content, capfd):
    path = tmp_path / 'film.mp4'
    if content == 'half':
        whole = film(tmp_path / 'whole.mp4').read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.write_bytes(content)
    (entry,) = sources.find([str(path)])
    *_, error = entry.read()
    assert isinstance(error, PictureError)
    assert str(error).startswith(f'{path}: ')


def test_a_missing_camera_is_named(capfd):
    pytest.importorskip('cv2')
    (entry,) = sources.find(['97'])
    (error,) = entry.read()
    assert str(error) == 'camera 97: there is no such camera'


@pytest.fixture
def camera(tmp_path, monkeypatch):
    """Stands for every camera and stream: reads a local film, and can be unplugged; its connections, in turn."""
    cv2 = pytest.importorskip('cv2')
    path, real = film(tmp_path / 'camera.mp4'), cv2.VideoCapture
    connections: list = []

    def open_camera(source, *_):
        assert source in (0, 'rtsp://camera/1')
        connections.append(real(str(path) if path.exists() else str(tmp_path / 'unplugged')))
        return connections[-1]

    monkeypatch.setattr(cv2, 'VideoCapture', open_camera)
    monkeypatch.setattr(sources, '_WAITS', (0.0, 0.0, 0.0))
    return path, connections


@pytest.mark.parametrize('name', ['0', 'rtsp://camera/1'])
def test_a_camera_that_breaks_off_is_opened_again(camera, name):
    path, connections = camera
    frames = sources.find([name])[0].read(every=2)
    taken = [next(frames) for _ in range(9)]  # the film has 6 such frames
    assert [frame.frame for frame in taken] == list(range(0, 18, 2))
    assert taken[6].pixels.mean() == pytest.approx(taken[0].pixels.mean(), abs=2)
    assert len(connections) == 2
    path.unlink()
    *rest, error = frames
    assert [frame.frame for frame in rest] == [18, 20, 22]
    called = 'camera 0' if name == '0' else name
    assert str(error) == f'{called}: it gives no more frames: it was unplugged, or the connection broke off'
    assert len(connections) == 5
    assert not any(connection.isOpened() for connection in connections)


def test_standard_input(monkeypatch):
    content = io.BytesIO()
    Image.fromarray(picture()).save(content, 'PNG')
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(content.getvalue())))
    (entry,) = sources.find(['-'])
    (found,) = entry.read()
    np.testing.assert_array_equal(found.pixels, picture())
    assert entry.place == PurePath('stdin')


@pytest.fixture
def server(tmp_path):
    write(tmp_path / 'a b.png')

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{running.server_port}'
        running.shutdown()


def test_addresses(server, monkeypatch):
    monkeypatch.delenv('MMLIGHTVIT_OFFLINE', raising=False)
    (found,) = sources.find([f'{server}/a%20b.png?x=1'])[0].read()
    np.testing.assert_array_equal(found.pixels, picture())
    (error,) = sources.find([f'{server}/missing.png'])[0].read()
    assert 'the address cannot be had' in str(error)
    assert '404' in str(error) or 'Not Found' in str(error)
    monkeypatch.setattr(sources, '_MAX_BYTES', 100)
    (error,) = sources.find([f'{server}/a%20b.png'])[0].read()
    assert 'larger than' in str(error)
    with pytest.raises(UserError, match='expected http'):
        sources.find(['ftp://a/b.png'])


def test_no_address_is_opened_offline(server, monkeypatch):
    monkeypatch.setenv('MMLIGHTVIT_OFFLINE', '1')
    (error,) = sources.find([f'{server}/a%20b.png'])[0].read()
    assert 'MMLIGHTVIT_OFFLINE' in str(error)


def test_a_dead_address_is_named(monkeypatch):
    monkeypatch.delenv('MMLIGHTVIT_OFFLINE', raising=False)
    (error,) = sources.find(['http://127.0.0.1:9/a.png'])[0].read()
    assert str(error).startswith('http://127.0.0.1:9/a.png: the address cannot be had (')
