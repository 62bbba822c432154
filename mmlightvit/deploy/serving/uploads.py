# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Pictures that strangers send: nothing of them is believed, nothing touches the disk, and each has limits."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import FormParser, parse_options_header

from mmlightvit.durable.images import MAX_PIXELS, BadSample, TooManyPixels, read_header
from mmlightvit.inference.preprocess import target_sizes
from mmlightvit.model_folder.info import InputSpec
from mmlightvit.pictures.read import Picture, PictureError, as_picture

#: Files of a form.
MOST_FILES = 16
#: Formats of still pictures. Pillow knows more; some start other programs (EPS).
_FORMATS = ('AVIF', 'BMP', 'JPEG', 'JPEG2000', 'PNG', 'PPM', 'TIFF', 'WEBP')
#: JPEG's. Label maps need memory in proportion to the sides as well as to the pixels.
_MOST_SIDE = 65_535
#: Pixels for a network whose input has no largest size of its own.
_MOST_INPUT = 1 << 22


class Refusal(Exception):
    """A request is answered by an error.

    Args:
        status: Of HTTP.
        code: For programs.
        message: For the client.
        headers: Of the answer.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


@dataclass(frozen=True)
class Limits:
    """What a service takes.

    Attributes:
        upload_bytes: Of the body of a request.
        pixels: Of a picture.
        queue: Requests that wait for a model; all bodies together have at most ``queue * upload_bytes``.
    """

    upload_bytes: int = 20_000_000
    pixels: int = MAX_PIXELS
    queue: int = 32


def files_of(content: bytes, content_type: str) -> list[bytes]:
    """The files in the body of a request: of a form, those of its field ``file``; otherwise the body.

    Raises:
        Refusal: The form is broken, or holds something else.
    """
    kind, options = parse_options_header(content_type)
    if kind != b'multipart/form-data':
        return [content]
    found: list[bytes] = []
    ends: list[bool] = []
    expected = f"form: expected 1 to {MOST_FILES} files in the field 'file', and no other"

    def on_file(file: Any) -> None:
        if file.field_name != b'file' or len(found) == MOST_FILES:
            raise Refusal(422, 'bad_parameter', expected)
        found.append(file.file_object.getvalue())

    def on_field(field: Any) -> None:
        raise Refusal(422, 'bad_parameter', expected)

    try:
        parser = FormParser(
            'multipart/form-data',
            on_field,
            on_file,
            on_end=lambda: ends.append(True),
            boundary=options.get(b'boundary'),
            config={'MAX_MEMORY_FILE_SIZE': len(content) + 1},
        )
        parser.write(content)
    except FormParserError as error:
        raise Refusal(400, 'bad_request', f'the form cannot be read: {error}') from None
    if not ends:
        raise Refusal(400, 'bad_request', 'the form is cut off')
    if not found:
        raise Refusal(422, 'bad_parameter', expected)
    return found


def pictures_of(files: Sequence[bytes], spec: InputSpec, most_pixels: int) -> Iterator[Picture]:
    """The files as pictures for a model, each decoded when it is its turn.

    Raises:
        Refusal: One is no picture, or too large.
    """
    for number, content in enumerate(files, 1):
        try:
            picture = _read(content, spec, most_pixels)
        except TooManyPixels as error:
            raise Refusal(413, 'too_large', f'file {number}: {error}') from None
        except (BadSample, PictureError) as error:
            reason = error.reason if isinstance(error, PictureError) else error
            raise Refusal(400, 'not_a_picture', f'file {number}: {reason}') from None
        yield picture


def _read(content: bytes, spec: InputSpec, most_pixels: int) -> Picture:
    if not content:
        raise BadSample('there are no bytes')
    Image.init()
    formats = tuple(name for name in _FORMATS if name in Image.OPEN)
    header = read_header(content, most_pixels, formats)
    height, width = [header.size, *target_sizes(*header.size, spec.resize)][-1]
    bounded = spec.crop is not None or bool({'long', 'height'} & set(spec.resize or ()))
    if max(header.size) > _MOST_SIDE or height * width > (MAX_PIXELS if bounded else _MOST_INPUT):
        raise TooManyPixels(f'its {header.width} x {header.height} pixels are too many for this model')
    with Image.open(io.BytesIO(content), formats=formats) as image:
        # MPO: a photograph of a telephone, with a preview beside it.
        if getattr(image, 'is_animated', False) and image.format != 'MPO':
            raise BadSample('it has several frames')
        return as_picture(image)
