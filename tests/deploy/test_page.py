# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The page of an exported model finds in a browser what ONNX Runtime finds in Python, and asks nobody else."""

from __future__ import annotations

import base64
import json
import tarfile
from collections import Counter
from dataclasses import replace

import chromium
import numpy as np
import pytest
from PIL import Image

from mmlightvit.cli import main
from mmlightvit.deploy import page
from mmlightvit.deploy.runtime import load_exported
from mmlightvit.deploy.verify import EXACT, box_iou, compare
from mmlightvit.inference.model import Raw
from mmlightvit.inference.preprocess import prepare
from mmlightvit.model_folder.info import InputSpec
from mmlightvit.pictures.masks import Masks
from mmlightvit.pictures.read import as_picture

TASKS = ('classification', 'instance', 'segmentation')
#: Runs of the page: a picture from a file, what the network gets of it, what it gives, and what that means.
LOOK = """(async () => {
  const { Model } = await import('./model.js');
  const { prepare } = await import('./prepare.js');
  const { maskOf } = await import('./decode.js');
  window.model ??= await Model.open();
  const picture = await (%s);
  const coded = (array) => {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ''));
  };
  const prepared = prepare(picture, model.info.input);
  const out = {};
  for (const [name, { data, dims }] of Object.entries(await model.run(prepared))) out[name] = [coded(data), dims];
  const { objects, probs, labelMap } = await model.predict(picture);
  return {
    array: [coded(prepared.array), prepared.shape],
    size: prepared.size,
    out,
    probs: probs && [...probs],
    labelMap: labelMap && coded(labelMap),
    objects: objects && objects.map((object) => {
      const mask = maskOf(object);
      return { ...object, small: null, mask: mask && { ...mask, data: coded(mask.data) } };
    }),
  };
})()"""
#: A picture made in the page, so that no decoder stands between.
PICTURE = """(() => {
  const bytes = Uint8Array.from(atob('%s'), (c) => c.charCodeAt(0));
  return { data: new Uint8ClampedArray(bytes.buffer), height: %d, width: %d };
})()"""
STATUS = "document.getElementById('status').textContent"
FINISHED = "/\\(\\d+\\.\\d s\\)$/.test(document.getElementById('status').textContent)"


def in_page(pixels):
    rgba = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=2)
    return PICTURE % (base64.b64encode(rgba.tobytes()).decode(), *pixels.shape[:2])


def array(coded, dtype, shape):
    return np.frombuffer(base64.b64decode(coded), dtype).reshape(shape)


def raw(found, height, width):
    """What the page found as a form of a model gives it in Python."""
    if found.get('probs'):
        return Raw(probs=np.array(found['probs'], np.float32))
    if found.get('labelMap'):
        return Raw(label_map=array(found['labelMap'], np.uint16, (height, width)))
    objects = found['objects']
    masks = np.zeros((len(objects), height, width), bool)
    for whole, entry in zip(masks, objects):
        part = entry['mask']
        window = slice(part['top'], part['top'] + part['height']), slice(part['left'], part['left'] + part['width'])
        whole[window] = array(part['data'], np.uint8, (part['height'], part['width']))
    return Raw(
        boxes=np.array([entry['box'] for entry in objects]).reshape(-1, 4),
        scores=np.array([entry['score'] for entry in objects]),
        labels=np.array([entry['label'] for entry in objects]),
        masks=Masks.from_dense(masks),
    )


# -- writing it -------------------------------------------------------------------------------------------------------
def test_another_release_is_refused(tmp_path, capsys, exported, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = str(exported('classification').path)
    (tmp_path / 'dist').mkdir()
    for name in page.RUNTIME:
        (tmp_path / 'dist' / name).write_text('another')
    with tarfile.open('other.tgz', 'w:gz') as archive:
        archive.add('dist', 'package/dist')
    messages = {
        (): f'{page.ARCHIVE} is not here; `npm pack onnxruntime-web@{page.VERSION}` fetches it',
        ('--runtime', 'other.tgz'): 'other.tgz: ort.wasm.min.mjs is not the one of',
        ('--runtime', str(tmp_path)): 'ort.wasm.min.mjs is not the one of',
        ('--runtime', str(tmp_path / 'dist' / 'ort.wasm.min.mjs')): f'is not onnxruntime-web {page.VERSION}',
    }
    for options, message in messages.items():
        assert main(['page', model, *options]) == 1
        error = capsys.readouterr().err
        assert message in error and error.startswith('error: ') and error.count('\n') == 1
    assert not (tmp_path / 'outputs').exists()


def test_npm_that_fails_is_one_line(tmp_path, capsys, exported, monkeypatch):
    model = str(exported('classification').path)
    monkeypatch.setenv('PATH', str(tmp_path))
    assert main(['page', model, '--runtime', 'npm']) == 1
    assert capsys.readouterr().err == 'error: --runtime npm: npm is not installed\n'
    (tmp_path / 'npm').write_text('#!/bin/sh\necho first >&2\necho "no network" >&2\nexit 1\n')
    (tmp_path / 'npm').chmod(0o755)
    assert main(['page', model, '--runtime', 'npm']) == 1
    assert capsys.readouterr().err == 'error: --runtime npm: no network\n'


def test_what_is_no_whole_model_is_refused(tmp_path, capsys, exported):
    (tmp_path / 'model.xml').write_text('<net/>')
    assert main(['page', str(tmp_path / 'model.xml')]) == 1
    assert 'is no .onnx file' in capsys.readouterr().err
    opened = exported('classification').opened
    info = replace(opened.info, extra={'export': {'cut': 'features'}})
    path = tmp_path / 'part.onnx'
    path.write_bytes(b'')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, 'load_exported', lambda _: type(opened)(info, opened.engine))
        assert main(['page', str(path)]) == 1
    assert 'a page needs the whole' in capsys.readouterr().err


# -- in a browser -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def archive(repo):
    path = repo / 'build' / page.ARCHIVE
    if not path.is_file():
        pytest.skip(f'needs {path}, which `make test-page` fetches')
    return path


@pytest.fixture(scope='module')
def written(archive, exported, tmp_path_factory):
    """A function from a task to the folder of its page."""

    def get(task: str):
        folder = tmp_path_factory.mktemp('page')
        assert main(['page', str(exported(task).path), '--out', str(folder), '--runtime', str(archive)]) == 0
        return folder

    return get


@pytest.fixture
def opened(written, tmp_path):
    """A function from a task to a tab with its page, ready."""
    import contextlib

    with contextlib.ExitStack() as stack:

        def get(task: str, **size: int):
            address, asked = stack.enter_context(chromium.served(written(task)))
            tab = stack.enter_context(chromium.page(tmp_path / 'browser'))
            tab.open(address, **size)
            tab.wait(f"{STATUS} === 'Ready.'")
            return tab, address, asked

        yield get


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_the_browser_finds_what_python_finds(task, exported, opened, pictures, tmp_path):
    tab, address, asked = opened(task)
    model = load_exported(exported(task).path)
    for pixels in pictures:
        height, width = pixels.shape[:2]
        found = tab.evaluate(LOOK % in_page(pixels))
        prepared = prepare(pixels, model.input)
        np.testing.assert_array_equal(array(found['array'][0], np.float32, found['array'][1])[0], prepared.array)
        inputs = {'image': prepared.array[None]}
        if 'size' in model.engine.inputs:
            inputs['size'] = np.array(prepared.size, np.int64)
        for name, want in model.engine.run(inputs).items():
            got = array(found['out'][name][0], want.dtype, found['out'][name][1])
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * max(1, np.abs(want).max()), err_msg=name)
        compare(model.run([prepared])[0], raw(found, height, width), EXACT, 'in the browser')

        # And as a user does it, by the file chooser, with the model's thresholds.
        Image.fromarray(pixels).save(tmp_path / 'picture.png')
        tab.evaluate(f"{STATUS} = ''")
        tab.choose('#file', tmp_path / 'picture.png')
        tab.wait(FINISHED)
        cells = '[...row.cells].map((cell) => cell.innerText)'
        rows = tab.evaluate(f"[...document.querySelectorAll('#found tr')].map((row) => {cells})")
        result = model.predict(tmp_path / 'picture.png')
        if task == 'instance':
            assert Counter(row[0] for row in rows) == Counter(result.names)
            boxes = np.array([[float(value) for value in row[2].split(', ')] for row in rows])
            overlaps = box_iou(result.boxes, boxes)
            assert (overlaps.max(axis=1) > 0.99).all() and (overlaps.max(axis=0) > 0.99).all()
        elif task == 'classification':
            assert [row[0] for row in rows] == [name for _, name, _ in result.top(5)]
        else:
            shares = {result.classes[i]: (result.label_map == i).mean() for i in np.unique(result.label_map)}
            assert {row[0]: float(row[1].rstrip(' %')) for row in rows} == pytest.approx(
                {name: 100 * share for name, share in shares.items()}, abs=0.6
            )
    assert tab.errors == []
    own = [request for request in tab.requests if not request.startswith(('blob:', 'data:'))]
    assert own and all(request.startswith(address) for request in own)
    assert {request.removeprefix(address).partition('?')[0] for request in own} == {path.lstrip('/') for path in asked}


@pytest.mark.slow
def test_pictures_come_in_every_way(opened, pictures, tmp_path):
    """Pasted, dropped, from the camera, turned by EXIF; and none that is none."""
    tab, _, _ = opened('classification', width=390, height=844)
    given = """((type) => {
      const bytes = Uint8Array.from(atob('%s'), (c) => c.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], 'a.jpg', { type: 'image/jpeg' }));
      const event = type === 'paste' ? new ClipboardEvent(type, { clipboardData: transfer, bubbles: true })
        : new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true });
      document.body.dispatchEvent(event);
    })('%s')"""
    size = "document.getElementById('canvas').width / document.getElementById('canvas').height"
    path = tmp_path / 'turned.jpg'
    for number, kind in enumerate(('paste', 'drop')):
        exif = Image.Exif()
        exif[0x0112] = (1, 6)[number]
        Image.fromarray(pictures[number]).save(path, exif=exif, quality=95)
        tab.evaluate(f"{STATUS} = ''")
        tab.evaluate(given % (base64.b64encode(path.read_bytes()).decode(), kind))
        tab.wait(FINISHED)
        height, width = as_picture(path).pixels.shape[:2]
        assert tab.evaluate(size) == pytest.approx(width / height)
    assert tab.evaluate('document.documentElement.scrollWidth') <= 390

    (tmp_path / 'no.png').write_text('no picture')
    tab.choose('#file', tmp_path / 'no.png')
    assert 'no.png is no picture' in tab.wait(f"{STATUS}.includes('no picture') && {STATUS}")

    tab.evaluate("document.getElementById('camera').click()")
    tab.wait(f"!document.getElementById('video').hidden && {FINISHED}")
    seen = tab.evaluate(STATUS)
    tab.wait(f'{STATUS} !== {json.dumps(seen)}')  # it goes on by itself
    tab.evaluate("document.getElementById('camera').click()")
    assert tab.evaluate(
        "document.getElementById('video').hidden && document.getElementById('video').srcObject === null"
    )
    assert tab.errors == []


@pytest.mark.slow
def test_thresholds_and_keys(exported, opened, pictures, tmp_path):
    tab, _, _ = opened('instance')
    Image.fromarray(pictures[0]).save(tmp_path / 'picture.png')
    reached = []
    for _ in range(3):
        tab.press('Tab', 9)
        reached.append(tab.evaluate('document.activeElement.id'))
    assert reached == ['file', 'camera', 'side']
    tab.choose('#file', tmp_path / 'picture.png')
    tab.wait(FINISHED)
    result = load_exported(exported('instance').path).predict(pictures[0])
    rows = "document.querySelectorAll('#found tr').length"
    assert tab.evaluate(rows) == len(result)
    tab.evaluate("document.getElementById('thresholds').open = true; document.getElementById('class-3').focus()")
    tab.press('End', 35)
    assert tab.evaluate(rows) == len(result[result.labels != 3]) < len(result)
    tab.evaluate("document.getElementById('reset').click()")
    assert tab.evaluate(rows) == len(result)
    tab.evaluate("document.getElementById('all').focus()")
    tab.press('Home', 36)
    everything = load_exported(exported('instance').path).predict(pictures[0], score_thr=0.0)
    assert tab.evaluate(rows) == len(everything)
    tab.evaluate("document.getElementById('reset').click()")
    tab.evaluate(f"{STATUS} = ''; document.getElementById('side').value = '56'")
    tab.evaluate("document.getElementById('side').onchange()")
    tab.wait(FINISHED)
    smaller = load_exported(exported('instance').path).predict(pictures[0], size=56)
    assert tab.evaluate(rows) == len(smaller) != len(result)


@pytest.mark.slow
def test_nothing_can_be_sent_elsewhere(opened):
    tab, _, _ = opened('classification')
    refused = """new Promise((resolve) => {
      addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));
      fetch('https://elsewhere.invalid/').then(() => resolve('sent'), () => setTimeout(resolve, 2000, 'failed'));
    })"""
    assert tab.evaluate(refused) == 'connect-src'
    (worker,) = tab.workers
    assert tab.evaluate(refused, session=worker) == 'connect-src'


@pytest.mark.slow
def test_resizing_is_that_of_preprocessing(opened):
    tab, _, _ = opened('classification')
    random = np.random.default_rng(0)
    base = InputSpec((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    specs = [
        replace(base, resize={'short': 112, 'long': 160}, pad_multiple=32),
        replace(base, channels='bgr', resize={'short': 64}, crop=(56, 56), interpolation='bicubic'),
        replace(base, resize={'height': 50, 'width': 70}),
        replace(base, resize={'short': 33, 'multiple': 32}, pad_multiple=56),
        replace(base, crop=(31, 200)),
    ]
    run = """(async () => {
      const { prepare, withSide } = await import('./prepare.js');
      const { array, shape, size, scale } = prepare(%s, %d ? withSide(%s, %d) : %s);
      return { array: [...array], shape, size, scale };
    })()"""
    for size in ((100, 200), (97, 33), (7, 9), (1, 1)):
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        for spec in specs:
            for side in (0, 40):
                text = json.dumps({name: getattr(spec, name) for name in spec.__dataclass_fields__})
                found = tab.evaluate(run % (in_page(pixels), side, text, side, text))
                want = prepare(pixels, spec.with_size(side) if side else spec)
                got = np.array(found['array'], np.float32).reshape(found['shape'][1:])
                np.testing.assert_array_equal(got, want.array)
                assert (tuple(found['size']), tuple(found['scale'])) == (want.size, want.scale)
