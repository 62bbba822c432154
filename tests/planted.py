# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Small data sets in the layouts of the three tasks, and faults to plant in them."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ('disk', 'bar')
#: The splits have pictures of their own, as no picture may stand in two.
_START = {'val': 200, 'test': 400}


def picture(index: int, height: int = 48, width: int = 64) -> Image.Image:
    """A smooth picture; each index gives another one."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((index + 3) * x / 40 + shift) * np.cos(y / (9 + index % 5)) for shift in (0, 1, 2)]
    return Image.fromarray(np.uint8(128 + 100 * np.stack(waves, -1)))


def scene(index: int, height: int = 48, width: int = 64) -> Image.Image:
    """A picture of random patches, so different from those of other numbers that no hash takes them for one."""
    patches = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def write_coco(root: Path, images: int = 12, split: str = 'train') -> Path:
    """``root/SPLIT/*.jpg`` and ``root/annotations/SPLIT.json``; two objects an image: a polygon and run lengths."""
    folder = root / split
    folder.mkdir(parents=True)
    (root / 'annotations').mkdir(exist_ok=True)
    content: dict = {
        'images': [],
        'annotations': [],
        'categories': [{'id': 7 + place, 'name': name} for place, name in enumerate(CLASSES)],
    }
    for index in range(images):
        name = f'{index:03d}.jpg'
        picture(index + _START.get(split, 0)).save(folder / name, quality=95)
        content['images'].append({'id': 100 + index, 'file_name': name, 'height': 48, 'width': 64})
        x, y, w, h = 4 + index % 6, 6, 20, 16
        content['annotations'].append(
            annotation(2 * index + 1, 100 + index, 7, [x, y, w, h], [[x, y, x + w, y, x + w, y + h, x, y + h]])
        )
        # Column by column: columns 40 to 49, rows 10 to 29 of 48.
        runs = [40 * 48 + 10] + [20, 28] * 9 + [20]
        runs.append(48 * 64 - sum(runs))
        content['annotations'].append(
            annotation(2 * index + 2, 100 + index, 8, [40, 10, 10, 20], {'size': [48, 64], 'counts': runs})
        )
    path = root / 'annotations' / f'{split}.json'
    path.write_text(json.dumps(content))
    return path


def annotation(key: int, image: int, category: int, box: list, mask: object) -> dict:
    return {
        'id': key,
        'image_id': image,
        'category_id': category,
        'bbox': box,
        'area': box[2] * box[3],
        'iscrowd': 0,
        'segmentation': mask,
    }


def write_folders(root: Path, images: int = 6, splits: tuple[str, ...] = ('train', 'val')) -> None:
    """``root/SPLIT/CLASS/*.jpg``."""
    for split in splits:
        for place, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(images):
                picture(index + 50 * place + _START.get(split, 0)).save(folder / f'{index:03d}.jpg', quality=95)


def write_labelled(root: Path, images: int = 6, splits: tuple[str, ...] = ('train', 'val')) -> None:
    """``root/images/SPLIT/*.jpg`` and ``root/labels/SPLIT/*.png`` with the values 0, 1, 2 and 255."""
    for split in splits:
        (root / 'images' / split).mkdir(parents=True)
        (root / 'labels' / split).mkdir(parents=True)
        for index in range(images):
            picture(index + _START.get(split, 0)).save(root / 'images' / split / f'{index:03d}.jpg', quality=95)
            labels = np.zeros((48, 64), np.uint8)
            labels[8:24, 8:30] = 1
            labels[20:40, 30 + index : 50] = 2
            labels[0] = 255
            Image.fromarray(labels).save(root / 'labels' / split / f'{index:03d}.png')


def billion_pixels() -> bytes:
    """A PNG of some bytes whose header claims 40000 x 25000 pixels of three bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = struct.pack('>IIBBBBB', 40000, 25000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(3 * 40000 + 1))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')


def _half(form: str) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        content = encoded(picture(1, 96, 128), form)
        path.write_bytes(content[: len(content) // 2])

    return plant


def _flip_in_png(path: Path) -> None:
    content = bytearray(encoded(picture(1), 'PNG'))
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


#: Twelve ways in which an image file is of no use, each with the words that have to name it.
BAD_IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    'missing': (Path.unlink, 'missing'),
    'empty': (lambda path: path.write_bytes(b''), 'empty'),
    'text': (lambda path: path.write_text('../elsewhere/000.jpg'), 'not an image'),
    'page': (lambda path: path.write_text('<html>404 Not Found</html>'), 'not an image'),
    'zeros': (lambda path: path.write_bytes(bytes(4096)), 'not an image'),
    'start only': (lambda path: path.write_bytes(encoded(picture(1), 'JPEG')[:20]), 'not an image'),
    'half a JPEG': (_half('JPEG'), 'cut off'),
    'half a PNG': (_half('PNG'), 'cut off'),
    'flipped bit': (_flip_in_png, 'broken'),
    'folder': (_folder, 'cannot be read'),
    'billion pixels': (lambda path: path.write_bytes(billion_pixels()), 'more'),
    'header cut off': (lambda path: path.write_bytes(encoded(picture(1), 'JPEG')[:400]), 'header'),
}


def _sixteen_bits(colour: bool) -> bytes:
    import cv2

    values = np.asarray(picture(2)).astype(np.uint16) * 257
    return cv2.imencode('.png', values if colour else values[..., 0])[1].tobytes()


def turned(image: Image.Image, orientation: int = 6) -> bytes:
    """A JPEG that EXIF says to turn for display."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, 'JPEG', exif=exif)


#: Unusual images that are to be used as they are.
ODD_IMAGES: dict[str, Callable[[], bytes]] = {
    'grey': lambda: encoded(picture(2).convert('L'), 'JPEG'),
    'palette': lambda: encoded(picture(2).convert('P'), 'PNG'),
    'transparent': lambda: encoded(picture(2).convert('RGBA'), 'PNG'),
    'one bit': lambda: encoded(picture(2).convert('1'), 'PNG'),
    'CMYK': lambda: encoded(picture(2).convert('CMYK'), 'JPEG'),
    '16-bit grey': lambda: _sixteen_bits(colour=False),
    '16-bit colour': lambda: _sixteen_bits(colour=True),
    'progressive': lambda: encoded(picture(2), 'JPEG', progressive=True),
    'EXIF': lambda: turned(picture(2)),
}
