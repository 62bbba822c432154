# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit serve``: the answers of the library over HTTP, whatever strangers send."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import socket
import struct
import threading
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import pytest
from PIL import Image
from served import Served, info, write_classifier, write_detector
from starlette.testclient import TestClient

from mmlightvit.cli import main
from mmlightvit.deploy.runtime import load_exported
from mmlightvit.deploy.serving import service as at_work
from mmlightvit.deploy.serving import uploads
from mmlightvit.deploy.serving.app import create_app
from mmlightvit.deploy.serving.uploads import Limits
from mmlightvit.inference.model import Model, Raw

PREDICT = '/v1/models/tiny/predict'


def picture(level: int = 180, size: tuple[int, int] = (60, 40), kind: str = 'PNG', **options: object) -> bytes:
    """A file."""
    file = io.BytesIO()
    Image.new('RGB', size, (level, level, 30)).save(file, kind, **options)
    return file.getvalue()


def form(*files: bytes, field: str = 'file', name: str = 'a.png', end: bytes = b'--\r\n') -> tuple[bytes, str]:
    """A body of multipart/form-data, and its content type."""
    head = f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
    parts = [b'--x\r\n' + head.encode() + file + b'\r\n' for file in files]
    return b''.join(parts) + b'--x' + end, 'multipart/form-data; boundary=x'


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp('detector') / 'tiny.onnx')


@pytest.fixture(scope='module')
def service(detector, tmp_path_factory):
    """One for all tests that leave it as it was."""
    classifier = write_classifier(tmp_path_factory.mktemp('classifier') / 'Some class.v2.onnx')
    with Served(tmp_path_factory.mktemp('service'), detector, classifier, '--max-upload-mb', '1') as started:
        yield started


def slow_upload(service: Served, body: bytes, part: int) -> socket.socket:
    """A connection on which the first part of a picture has been sent, after the service has begun to wait for it."""
    connection = socket.create_connection(('127.0.0.1', service.port), timeout=30)
    lines = ('Host: x', 'Content-Type: image/png', f'Content-Length: {len(body)}', 'Expect: 100-continue')
    connection.sendall('\r\n'.join([f'POST {PREDICT} HTTP/1.1', *lines, '', '']).encode())
    assert connection.recv(100).startswith(b'HTTP/1.1 100 ')
    connection.sendall(body[:part])
    return connection


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(('127.0.0.1', port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


# -- answers ----------------------------------------------------------------------------------------------------------
def test_eight_clients_get_what_the_library_gives(service, detector):
    pictures = [picture(80 + 20 * number, (50 + number, 70 - number), 'JPEG') for number in range(8)]
    model = load_exported(detector)
    expected = [json.loads(json.dumps(model.predict(content).to_dict())) for content in pictures]
    assert len({str(result) for result in expected}) == 8 and expected[7]['objects']

    def ask(client: int) -> list[bool]:
        answers = []
        for number in range(50):
            which = (client + number) % 8
            if number % 2:
                reply = service.post(PREDICT, pictures[which], 'image/jpeg')
            else:
                reply = service.post(PREDICT, *form(pictures[which]))
            wanted = {'model': 'tiny', 'weights_sha256': 'ab' * 32, 'results': [expected[which]]}
            answers.append(reply.status == 200 and reply.json == wanted)
        return answers

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for answers in pool.map(ask, range(8)) for answer in answers]
    assert len(answers) == 400 and all(answers)


def test_forms_of_the_answer(service, detector):
    bright, dark = picture(230), picture(100)
    assert [len(result['objects']) for result in service.post(PREDICT, *form(bright, dark)).json['results']] == [2, 1]
    coco = service.post(f'{PREDICT}?format=coco', *form(bright, dark)).json['results']
    assert [(entry['image_id'], entry['category_id']) for entry in coco] == [(1, 1), (1, 2), (2, 1)]
    drawn = service.post(f'{PREDICT}?format=picture', bright).body
    want = io.BytesIO()
    Image.fromarray(load_exported(detector).predict(bright).draw()).save(want, 'JPEG', quality=95)
    assert drawn == want.getvalue()
    assert service.post('/v1/models/some-class-v2/predict', bright).json['results'][0]['probs'][0]['class'] == 'cat'


def test_what_is_asked_is_done(service):
    def found(query: str) -> list[str]:
        results = service.post(f'{PREDICT}?{query}', picture(230)).json['results']
        return [entry['class'] for entry in results[0]['objects']]

    assert found('') == ['cat', 'dog']  # the threshold of a dog is its own
    assert found('score_thr=0.99') == []
    assert found('max_det=1') == ['cat']
    assert found('classes=dog') == ['dog']
    assert found('classes=dog&classes=cat') == found('classes=dog,cat') == ['cat', 'dog']


def test_what_it_says_of_itself(service):
    models = service.get('/v1/models').json['models']
    assert [model['name'] for model in models] == ['tiny', 'some-class-v2']
    assert models[0]['task'] == 'detection' and models[0]['classes'] == ['cat', 'dog']
    assert models[0]['input']['resize'] == {'short': 32, 'long': 64} and models[0]['sha256'] == 'ab' * 32
    described = service.get('/openapi.json').json['paths'][PREDICT.replace('tiny', '{name}')]['post']
    assert {entry['name'] for entry in described['parameters']} == {'name', 'score_thr', 'max_det', 'classes', 'format'}
    assert set(described['requestBody']['content']) == {'multipart/form-data', 'image/*'}
    for path in ('/docs', '/redoc', '/'):
        assert service.get(path).code == 'not_found'


def test_it_counts(service):
    def value(sample: str) -> float:
        found = re.search(rf'^{re.escape(sample)} (\S+)$', service.get('/metrics').body.decode(), re.MULTILINE)
        return float(found[1]) if found else 0

    samples = (
        'mmlightvit_requests_total{route="/v1/models/{name}/predict",status="400"}',
        'mmlightvit_errors_total{code="not_a_picture"}',
        'mmlightvit_pictures_total{model="tiny"}',
        'mmlightvit_request_seconds_count{route="/v1/models/{name}/predict"}',
        'mmlightvit_request_seconds_bucket{route="/v1/models/{name}/predict",le="+Inf"}',
    )
    before = [value(sample) for sample in samples]
    service.post(PREDICT, b'no picture')
    service.post(PREDICT, *form(picture(), picture()))
    assert [value(sample) - old for sample, old in zip(samples, before)] == [1, 1, 2, 2, 2]


# -- strangers --------------------------------------------------------------------------------------------------------
def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims so many pixels."""
    chunks = {b'IHDR': struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0), b'IDAT': zlib.compress(bytes(64))}
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
        for name, data in chunks.items()
    )


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('a.png', picture())
    return file.getvalue()


def animated(kind: str) -> bytes:
    return picture(kind=kind, save_all=True, append_images=[Image.new('RGB', (60, 40), (0, 200, 0))])


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
EPS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 40\n%%EndComments\n(/etc/passwd) run\n%%EOF\n'
HOSTILE = {
    'nothing': (b'', 'image/png', 400, 'not_a_picture'),
    'text': (b'hello', 'image/png', 400, 'not_a_picture'),
    'truncated': (picture(size=(300, 300), kind='JPEG')[:900], 'image/jpeg', 400, 'not_a_picture'),
    'bomb': (png_of(60_000, 60_000), 'image/png', 413, 'too_large'),
    'long': (png_of(80_000_000, 1), 'image/png', 413, 'too_large'),
    'svg': (SVG, 'image/svg+xml', 400, 'not_a_picture'),
    'eps': (EPS, 'image/eps', 400, 'not_a_picture'),
    'zip': (zipped(), 'image/png', 400, 'not_a_picture'),
    'gif': (animated('GIF'), 'image/gif', 400, 'not_a_picture'),
    'apng': (animated('PNG'), 'image/png', 400, 'not_a_picture'),
    'large': (bytes(3_000_000), 'image/png', 413, 'too_large'),
    'wrong type': (picture(), 'application/json', 415, 'unsupported_type'),
    'no type': (picture(), '', 415, 'unsupported_type'),
    '17 files': (*form(*[picture()] * 17), 422, 'bad_parameter'),
    'no file': (*form(), 422, 'bad_parameter'),
    'second broken': (*form(picture(), b'no picture'), 400, 'not_a_picture'),
    'other field': (*form(picture(), field='image'), 422, 'bad_parameter'),
    'no boundary': (form(picture())[0], 'multipart/form-data', 400, 'bad_request'),
    'cut form': (*form(picture(), picture(), end=b''), 400, 'bad_request'),
    'broken form': (b'--x\r\nContent-Disposition', 'multipart/form-data; boundary=x', 400, 'bad_request'),
    'other form': (b'file=a', 'application/x-www-form-urlencoded', 415, 'unsupported_type'),
}


@pytest.mark.parametrize('case', HOSTILE)
def test_hostile_uploads_are_refused(case, service):
    body, content_type, status, code = HOSTILE[case]
    reply = service.post(PREDICT, body, content_type)
    assert (reply.status, reply.code) == (status, code)
    assert service.post(PREDICT, picture()).status == 200


def test_hostile_names_are_names(service):
    for name in ('../../etc/passwd', 'a\\..\\b.png', 'x' * 3000, '%00.png', 'http://127.0.0.1:9/a.png'):
        assert service.post(PREDICT, *form(picture(), name=name)).status == 200
    for path in ('/v1/models/../../etc/passwd/predict', '/v1/models/%2e%2e%2fx/predict', '/v1/models/TINY/predict'):
        assert service.post(path, picture()).code == 'not_found'
    for query in (
        'score_thr=2',
        'score_thr=nan',
        'max_det=0',
        'max_det=x',
        'classes=bird',
        'format=xml',
        'url=http://x',
    ):
        assert service.post(f'{PREDICT}?{query}', picture()).code == 'bad_parameter', query
    assert service.post(f'{PREDICT}?format=picture', *form(picture(), picture())).code == 'bad_parameter'
    for query in ('format=coco', 'score_thr=0.5', 'max_det=1', 'classes=cat'):
        assert service.post(f'/v1/models/some-class-v2/predict?{query}', picture()).code == 'bad_parameter', query
    assert service.send('DELETE', PREDICT, None, {}).code == 'method_not_allowed'


def test_a_body_without_a_length_is_stopped_on_its_way(service):
    sent = 0

    def chunks():
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield bytes(100_000)

    reply = service.post(PREDICT, chunks())
    assert (reply.status, reply.code) == (413, 'too_large')
    assert service.post(PREDICT, picture()).status == 200
    assert service.wait_for(lambda: re.search(r'predict 413, 1\d{6} bytes', service.log))


def test_a_slow_client_does_not_hold_others_up(service):
    body = picture(200)
    slow = [slow_upload(service, body, 10) for _ in range(40)]
    for level in (120, 200, 250):
        assert service.post(PREDICT, picture(level)).status == 200
    assert service.get('/healthz').json == {'status': 'ok'}
    for connection in slow:
        connection.sendall(body[10:])
        assert connection.recv(100).startswith(b'HTTP/1.1 200 OK')
        connection.close()


def test_the_log_has_a_line_for_a_request_and_no_more(service):
    path = '/v1/models/a%0A2026-01-01%20forged/predict'
    service.post(f'{path}?token=secret', picture())
    (line,) = service.wait_for(lambda: [line for line in service.log.splitlines() if 'forged' in line])
    assert re.fullmatch(rf'\S+ \S+ POST {path} 422, 0 bytes, \d+ ms', line)
    assert 'secret' not in service.log


# -- the process ------------------------------------------------------------------------------------------------------
def test_a_signal_lets_what_is_under_way_end(detector, tmp_path):
    body = picture(200)
    with Served(tmp_path, detector) as service:
        noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
        large = io.BytesIO()
        Image.fromarray(noise).save(large, 'PNG')
        assert service.post(PREDICT, *form(large.getvalue())).status == 200
        slow = slow_upload(service, body, 10)
        service.process.send_signal(signal.SIGTERM)
        service.wait_for(lambda: refuses(service.port))
        slow.sendall(body[10:])
        with slow, slow.makefile('rb') as reply:
            content = reply.read()
        assert content.startswith(b'HTTP/1.1 200 OK') and b'"cat"' in content
        assert service.process.wait(30) == 143
        assert 'Traceback' not in service.log
        # Nobody was spoken to, nothing was written, and nothing else was opened.
        assert 'SPOKE' not in service.log and 'WROTE' not in service.log
        assert re.findall(r'BOUND (.*)', service.log) == ["('127.0.0.1', 0)"]


def test_ctrl_c_is_a_signal_too(detector, tmp_path):
    with Served(tmp_path, detector) as service:
        assert service.stop(signal.SIGINT) == 130
        assert 'Traceback' not in service.log


@pytest.mark.slow
def test_a_client_that_never_ends_is_not_waited_for(detector, tmp_path):
    with Served(tmp_path, detector) as service:
        slow = slow_upload(service, picture(), 10)
        start = time.monotonic()
        assert service.stop() == 143
        assert 10 < time.monotonic() - start < 15.5
        slow.close()


@pytest.mark.slow
def test_a_connection_on_which_nothing_begins_is_closed(service):
    with socket.create_connection(('127.0.0.1', service.port), timeout=30) as connection:
        connection.sendall(b'POST / HTTP/1.1\r\nHost: x\r\nX-Slow: ')
        assert connection.recv(10) == b''


def test_a_token_is_asked_for(detector, tmp_path):
    (tmp_path / 'token').write_text('s3cret\n')
    with Served(tmp_path, detector, '--token-file', tmp_path / 'token', '--host', '0.0.0.0') as service:
        for given in ('', 'Bearer', 'Bearer s3cre', 'Bearer s3crets', 'Basic s3cret', 'Bearer \u00e4'):
            for path in ('/v1/models', '/metrics', '/openapi.json', '/nothing'):
                assert service.get(path, Authorization=given).code == 'unauthorized'
            assert service.post(PREDICT, picture(), Authorization=given).status == 401
        assert service.post(PREDICT, picture(), Authorization='Bearer s3cret').status == 200
        assert service.get('/v1/models', authorization='bearer s3cret').status == 200
        assert 'warning' not in service.log and 's3cre' not in service.log


def test_a_failure_is_in_the_log_and_not_in_the_answer(tmp_path):
    with Served(tmp_path, write_detector(tmp_path / 'tiny.onnx', square=True), '--host', '0.0.0.0') as service:
        assert service.post(PREDICT, picture(size=(40, 40))).status == 200
        reply = service.post(PREDICT, picture(size=(50, 40)))
        assert (reply.status, reply.code) == (500, 'internal')
        assert str(tmp_path) not in reply.body.decode() and 'Traceback' not in reply.body.decode()
        service.wait_for(lambda: 'Traceback' in service.log)  # after the answer
        assert 'tiny.onnx cannot be run' in service.log
        assert 'warning: 0.0.0.0 can be reached by others' in service.log
        assert service.post(PREDICT, picture(size=(40, 40))).status == 200
        assert service.get('/healthz').status == 200


# -- within this process ----------------------------------------------------------------------------------------------
class Waiting(Model):
    """Finds nothing, once it is let go."""

    def __init__(self, spec: object = None) -> None:
        super().__init__(info('detection', **({'input': spec} if spec else {})))
        self.go = threading.Event()

    def run(self, pictures):
        self.go.wait(30)
        return [Raw(boxes=np.zeros((0, 4)), scores=np.zeros(0), labels=np.zeros(0, int)) for _ in pictures]


def scenario(app, steps) -> None:
    """Run ``steps(client)`` with the application started."""

    async def run() -> None:
        transport = httpx2.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url='http://x') as it:
            await steps(it)

    asyncio.run(run())


async def until(condition) -> None:
    for _ in range(1000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError('it did not happen')


def test_a_full_queue_refuses():
    model = Waiting()
    app = create_app(lambda: {'tiny': model}, Limits(queue=3))

    async def steps(client):
        async def ready() -> bool:
            return (await client.get('/healthz')).status_code == 200

        def ask():
            return asyncio.create_task(client.post(PREDICT, content=picture(), headers={'content-type': 'image/png'}))

        await until(ready)
        waiting = [ask() for _ in range(3 + at_work._THREADS)]
        await asyncio.sleep(0.2)
        refused = await ask()
        assert (refused.status_code, refused.headers['retry-after']) == (429, '1')
        assert refused.json()['error']['code'] == 'busy' and not any(task.done() for task in waiting)
        assert (await client.get('/healthz')).status_code == 200
        model.go.set()
        assert [(await task).status_code for task in waiting] == [200] * 5
        assert (await ask()).status_code == 200

    scenario(app, steps)


def test_all_bodies_together_have_a_limit():
    model = Waiting()
    model.go.set()
    app = create_app(lambda: {'tiny': model}, Limits(upload_bytes=1000, queue=2))

    async def steps(client):
        more = asyncio.Event()

        async def slow():
            yield bytes(900)
            await more.wait()

        async def ready() -> bool:
            return (await client.get('/healthz')).status_code == 200

        await until(ready)
        headers = {'content-type': 'image/png'}
        held = [asyncio.create_task(client.post(PREDICT, content=slow(), headers=headers)) for _ in range(2)]
        await asyncio.sleep(0.1)
        assert (await client.post(PREDICT, content=bytes(300), headers=headers)).status_code == 429
        more.set()
        assert [(await task).status_code for task in held] == [400, 400]
        assert (await client.post(PREDICT, content=picture(), headers=headers)).status_code == 200

    scenario(app, steps)


def test_a_body_has_to_arrive_in_time(monkeypatch):
    monkeypatch.setattr(at_work, '_BODY_SECONDS', 0.2)
    model = Waiting()

    async def never():
        yield b'a'
        await asyncio.sleep(30)

    async def steps(client):
        async def ready() -> bool:
            return (await client.get('/healthz')).status_code == 200

        await until(ready)
        reply = await client.post(PREDICT, content=never(), headers={'content-type': 'image/png'})
        assert (reply.status_code, reply.json()['error']['code']) == (408, 'timeout')

    scenario(create_app(lambda: {'tiny': model}, Limits()), steps)


def test_it_is_ready_when_the_models_are():
    loaded = threading.Event()

    def load():
        loaded.wait(30)
        return {'tiny': Waiting()}

    with TestClient(create_app(load, Limits())) as client:
        for reply in (client.get('/healthz'), client.get('/v1/models'), client.post(PREDICT)):
            assert (reply.status_code, reply.json()['error']['code']) == (503, 'loading')
        loaded.set()
        for _ in range(500):
            if client.get('/healthz').status_code == 200:
                break
            time.sleep(0.01)
        assert client.get('/healthz').json() == {'status': 'ok'}


def test_pixels_are_counted_before_they_are_decoded():
    model = Waiting()
    model.go.set()
    with TestClient(create_app(lambda: {'tiny': model}, Limits(pixels=2000))) as client:
        headers = {'content-type': 'image/png'}
        while client.get('/healthz').status_code != 200:
            time.sleep(0.01)
        assert client.post(PREDICT, content=picture(size=(50, 40)), headers=headers).status_code == 200
        assert client.post(PREDICT, content=picture(size=(51, 40)), headers=headers).status_code == 413


@pytest.mark.parametrize(
    ('resize', 'crop', 'size', 'taken'),
    [
        ({'short': 32, 'long': 64}, None, (20_000, 2), True),
        ({'short': 32}, None, (2000, 2), True),
        ({'short': 1000}, None, (20_000, 2), False),  # 10,000,000 x 1000 for the network
        ({'short': 1000}, (224, 224), (20_000, 2), False),
        ({'short': 256}, (224, 224), (400, 300), True),
        (None, None, (3000, 2000), False),
        (None, None, (2000, 2000), True),
    ],
)
def test_what_a_picture_is_enlarged_to_has_a_limit(resize, crop, size, taken):
    spec = info('detection').input.__class__((0.0,) * 3, (1.0,) * 3, resize=resize, crop=crop)
    found = uploads.pictures_of([picture(size=size)], spec, 90_000_000)
    if taken:
        assert next(found).pixels.shape[:2] == size[::-1]
    else:
        with pytest.raises(uploads.Refusal, match='are too many for this model') as refused:
            next(found)
        assert refused.value.status == 413


def test_a_photograph_with_a_preview_is_one_picture():
    file = io.BytesIO()
    Image.new('RGB', (60, 40), 'red').save(file, 'MPO', save_all=True, append_images=[Image.new('RGB', (6, 4))])
    (found,) = uploads.pictures_of([file.getvalue()], info('detection').input, 10_000)
    assert found.pixels.shape == (40, 60, 3)


# -- the command ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['model.pth'], 'export it first: mmlightvit export model.pth'),
        (['lightvit_t_imagenet'], 'export it first: mmlightvit export lightvit_t_imagenet'),
        (['program.pt2'], 'export it first: mmlightvit export program.pt2'),
        (['nothing.onnx'], 'no file nothing.onnx'),
        (['tiny.onnx', 'tiny.xml'], 'tiny.xml has the same name as tiny.onnx'),
        (['\u00e4.onnx'], 'has no letter of a-z or digit in its name'),
        (['text.onnx'], 'text.onnx cannot be opened'),
        (['cut.onnx'], 'cut.onnx was exported with --cut features, so it predicts nothing'),
        (['tiny.onnx', '--queue', '0'], '--queue: expected 1 to'),
        (['tiny.onnx', '--max-pixels', '90000000'], '--max-pixels: expected 1 to 89478485'),
        (['tiny.onnx', '--token-file', 'missing'], 'missing cannot be read'),
        (['tiny.onnx', '--token-file', 'empty'], 'empty is empty'),
        (['tiny.onnx', '--host', '192.0.2.1'], 'cannot listen at 192.0.2.1, port 0'),
    ],
)
def test_mistakes_are_one_line(arguments, message, detector, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for file in ('model.pth', 'program.pt2', 'tiny.xml', '\u00e4.onnx', 'empty'):
        (tmp_path / file).touch()
    (tmp_path / 'text.onnx').write_text('no graph')
    (tmp_path / 'tiny.onnx').write_bytes(detector.read_bytes())
    write_detector(tmp_path / 'cut.onnx', info('detection', extra={'export': {'cut': 'features'}}))
    assert main(['serve', *arguments, '--port', '0']) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith('http://')]
    assert len(lines) == 1 and lines[0].startswith('error: ') and message in lines[0]
