# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Decoding against OpenCV, which training reads with; odd inputs give pixels or one line with their name."""

from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from mmlightvit.pictures import read
from mmlightvit.pictures.read import PictureError, as_picture, decode, displayed_size, read_label_map

RNG = np.random.RandomState(0)
#: Smooth, so that compression keeps it.
PIXELS = np.asarray(
    Image.fromarray(RNG.randint(0, 256, (6, 8, 3), dtype=np.uint8)).resize((80, 60), Image.Resampling.BICUBIC)
)


def encoded(image: Image.Image, kind: str, **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def kinds() -> dict[str, bytes]:
    colour = Image.fromarray(PIXELS)
    alpha = Image.fromarray(np.dstack([PIXELS, RNG.randint(0, 256, (60, 80), dtype=np.uint8)]))
    deep = Image.fromarray(RNG.randint(0, 65536, (60, 80)).astype(np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        'jpeg': encoded(colour, 'JPEG', quality=85),
        'progressive': encoded(colour, 'JPEG', progressive=True),
        'jpeg turned': encoded(colour, 'JPEG', exif=turned),
        'png turned': encoded(colour, 'PNG', exif=turned),
        'webp turned': encoded(colour, 'WEBP', exif=turned, lossless=True),
        'tiff turned': encoded(colour, 'TIFF', tiffinfo={0x0112: 6}),
        'grey jpeg': encoded(colour.convert('L'), 'JPEG'),
        'grey png': encoded(colour.convert('L'), 'PNG'),
        'black and white': encoded(colour.convert('1'), 'PNG'),
        'palette': encoded(colour.convert('P'), 'PNG'),
        'transparent palette': encoded(colour.convert('P'), 'PNG', transparency=3),
        'alpha': encoded(alpha, 'PNG'),
        'grey with alpha': encoded(alpha.convert('LA'), 'PNG'),
        '16-bit png': encoded(deep, 'PNG'),
        '16-bit tiff': encoded(deep, 'TIFF'),
        'tiff with alpha': encoded(alpha, 'TIFF'),
        'cmyk tiff': encoded(colour.convert('CMYK'), 'TIFF'),
        'cmyk': encoded(colour.convert('CMYK'), 'JPEG', quality=95),
        'gif': encoded(colour.convert('P'), 'GIF'),
        'bmp': encoded(colour, 'BMP'),
        'ppm': encoded(colour, 'PPM'),
        'one pixel': encoded(colour.crop((0, 0, 1, 1)), 'PNG'),
        'long': encoded(colour.resize((10000, 10)), 'PNG'),
    }


KINDS = kinds()


@pytest.mark.parametrize('kind', KINDS)
def test_pixels_are_those_of_training(kind):
    cv2 = pytest.importorskip('cv2')
    if kind == 'webp turned' and int(cv2.__version__.partition('.')[0]) < 5:
        pytest.skip('OpenCV before 5 does not turn WebP pictures')
    expected = cv2.imdecode(np.frombuffer(KINDS[kind], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    pixels, exif = decode(KINDS[kind], kind)
    np.testing.assert_array_equal(pixels, expected)
    assert exif == (6 if 'turned' in kind else None)


@pytest.mark.parametrize('kind', KINDS)
def test_the_displayed_size_is_that_of_the_pixels(kind):
    assert displayed_size(io.BytesIO(KINDS[kind])) == decode(KINDS[kind], kind)[0].shape[:2]
    assert displayed_size(io.BytesIO(b'no picture')) is None


def test_label_images(tmp_path):
    values = RNG.randint(0, 3, (6, 8), dtype=np.uint8)
    palette = Image.fromarray(values).convert('P')
    for name, image in (('grey', Image.fromarray(values)), ('deep', Image.fromarray(values.astype(np.uint16)))):
        image.save(tmp_path / f'{name}.png')
        np.testing.assert_array_equal(read_label_map(tmp_path / f'{name}.png'), values)
    palette.convert('RGB').save(tmp_path / 'colours.png')
    with pytest.raises(PictureError, match='has colours'):
        read_label_map(tmp_path / 'colours.png')
    with pytest.raises(PictureError, match='No such file'):
        read_label_map(tmp_path / 'none.png')


def test_three_channels_of_16_bits():
    cv2 = pytest.importorskip('cv2')
    deep = RNG.randint(0, 65536, (6, 8, 3)).astype(np.uint16)
    for ending in ('.png', '.tiff'):
        pixels, _ = decode(cv2.imencode(ending, deep)[1].tobytes(), 'deep')
        np.testing.assert_array_equal(pixels, deep[..., ::-1] >> 8)


def test_bands_beside_the_colours():
    """As training reads them; OpenCV takes a fourth band of a TIFF for what covers the picture."""
    cv2 = pytest.importorskip('cv2')
    deep = RNG.randint(0, 65536, (6, 8, 4)).astype(np.uint16)
    content = cv2.imencode('.tiff', deep)[1].tobytes()
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decode(content, 'deep')[0], expected)
    five = bytearray(encoded(Image.fromarray(PIXELS), 'TIFF'))
    place = five.index(b'\x15\x01\x03\x00') + 8  # SamplesPerPixel, a short
    assert five[place] == 3
    five[place] = 5
    with pytest.raises(PictureError, match='five: it is not an image of a known format'):
        decode(bytes(five), 'five')


def test_every_form_gives_the_same_pixels(tmp_path):
    torch = pytest.importorskip('torch')
    path = tmp_path / 'mit Leerzeichen' / 'Grüße 图.png'
    path.parent.mkdir()
    Image.fromarray(PIXELS).save(path)
    chw = torch.from_numpy(PIXELS.transpose(2, 0, 1).copy())
    forms = [path, str(path), path.read_bytes(), Image.open(path), PIXELS, PIXELS[..., ::-1], chw, chw.float() / 255]
    for form, channels in zip(forms, ['rgb'] * 5 + ['bgr'] + ['rgb'] * 2):
        picture = as_picture(form, channels)
        np.testing.assert_array_equal(picture.pixels, PIXELS)
    assert as_picture(path).path == as_picture(Image.open(path)).path == str(path)
    assert as_picture(PIXELS).path is None
    grey = as_picture(PIXELS[..., 0]).pixels
    np.testing.assert_array_equal(grey, PIXELS[..., :1].repeat(3, 2))
    with_alpha = np.dstack([PIXELS, PIXELS[..., 0]])
    np.testing.assert_array_equal(as_picture(with_alpha).pixels, PIXELS)
    np.testing.assert_array_equal(as_picture(with_alpha, 'bgr').pixels, PIXELS[..., ::-1])


def test_a_picture_does_not_change_with_the_array():
    array = PIXELS.copy()
    picture = as_picture(array)
    array[:] = 0
    np.testing.assert_array_equal(picture.pixels, PIXELS)


@pytest.mark.parametrize(
    ('name', 'content', 'reason'),
    [
        ('missing.jpg', None, 'the file is missing'),
        ('empty.jpg', b'', 'the file is empty'),
        ('text.jpg', b'no picture at all', 'it is not an image of a known format'),
        ('cut.jpg', KINDS['jpeg'][:900], 'the file is broken or cut off'),
        ('cut.png', KINDS['grey png'][:900], 'the file is broken or cut off'),
        ('head.png', KINDS['grey png'][:20], 'not an image|header cannot be read'),
        ('float.tiff', encoded(Image.fromarray(RNG.rand(4, 5).astype(np.float32)), 'TIFF'), '32 bits'),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PictureError, match=reason) as caught:
        as_picture(path)
    assert str(caught.value).startswith(str(path))
    assert '\n' not in str(caught.value)


def test_the_limit_on_pixels_holds_where_opencv_is_there(monkeypatch):
    """A small file of many pixels: what Pillow refuses for its size, nobody decodes."""
    cv2 = pytest.importorskip('cv2')
    monkeypatch.setattr(read, '_by_opencv', lambda content: pytest.fail('it was decoded'))
    for side in (9500, 20_000):  # Pillow warns of the first and refuses the second
        header = b'IHDR' + side.to_bytes(4, 'big') * 2 + bytes([8, 0, 0, 0, 0])
        small = encoded(Image.new('L', (4, 4)), 'PNG')
        content = small[:12] + header + zlib.crc32(header).to_bytes(4, 'big') + small[33:]
        with pytest.raises(PictureError, match=r'more (pixels )?than'):
            decode(content, 'large')
    deep = bytearray(cv2.imencode('.tiff', np.zeros((4, 5, 3), np.uint16), [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1])
    start = int.from_bytes(deep[4:8], 'little')
    for place in range(start + 2, start + 26, 12):  # the first two tags are the width and the height
        assert int.from_bytes(deep[place : place + 2], 'little') in (256, 257)
        deep[place + 8 : place + 10] = (9500).to_bytes(2, 'little')
    with pytest.raises(PictureError, match='9500 x 9500 pixels, more than'):
        decode(bytes(deep), 'deep')
    with pytest.raises(PictureError, match='not an image of a known format'):
        decode(b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 20000 +X 20000\n', 'hdr')


def test_cmyk_takes_a_few_bytes_a_pixel():
    content = encoded(Image.new('CMYK', (1500, 1000), (10, 20, 30, 40)), 'JPEG')
    decode(content, 'warm')
    tracemalloc.start()
    pixels, _ = decode(content, 'cmyk')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * pixels.size / 3  # the result has 3, and 32 bits of all would be 28 more


def test_a_folder_and_empty_bytes_are_refused(tmp_path):
    with pytest.raises(PictureError, match='cannot be read'):
        as_picture(tmp_path)
    with pytest.raises(PictureError, match='no bytes'):
        as_picture(b'')


@pytest.mark.parametrize(
    ('array', 'error', 'reason'),
    [
        (PIXELS.astype(np.float32), TypeError, 'float32: expected uint8'),
        (PIXELS[None], ValueError, r'\(1, 60, 80, 3\)'),
        (PIXELS[:, :, :2], ValueError, r'\(60, 80, 2\)'),
        (PIXELS[:0], ValueError, r'\(0, 80, 3\)'),
        (17, TypeError, 'got int'),
    ],
)
def test_other_things_are_refused(array, error, reason):
    with pytest.raises(error, match=reason):
        as_picture(array)
    with pytest.raises(ValueError, match='channels'):
        as_picture(PIXELS, 'brg')


def test_normalised_tensors_are_refused():
    torch = pytest.importorskip('torch')
    with pytest.raises(ValueError, match='not normalised'):
        as_picture(torch.randn(3, 4, 5))
    with pytest.raises(ValueError, match=r'expected \(3, H, W\)'):
        as_picture(torch.zeros(1, 3, 4, 5))


def test_nothing_of_it_needs_torch(repo):
    code = (
        'import sys; from mmlightvit.inference import preprocess; from mmlightvit.pictures import masks, read; '
        'print([name for name in ("torch", "mmengine", "cv2") if name in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=repo, check=True)
    assert done.stdout.strip() == '[]'


@pytest.mark.parametrize('kind', ['AVIF', 'JPEG', 'PNG', 'TIFF', 'WEBP'])
def test_a_file_with_a_wrong_byte_is_a_picture_or_an_error_of_ours(kind):
    content, refused = encoded(Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)), kind), 0
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow's, of what it can make up for
        for place in range(min(len(content), 400)):
            try:
                decode(content[:place] + b'\xff' + content[place + 1 :], 'a')
            except PictureError:
                refused += 1
    assert refused > 5
