# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A page that runs an exported model in the browser: files for any web server, which only hands them out.

``static/`` is the page. Beside it go the model, what it says of itself, and ONNX Runtime Web, which is not in the
package: its release is pinned here by the digest of each file.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import replace
from importlib import resources
from pathlib import Path

from mmlightvit.deploy.runtime import load_exported
from mmlightvit.errors import UserError
from mmlightvit.model_folder.info import FILE, ModelInfo
from mmlightvit.pictures.colours import colour_of

PACKAGE = 'onnxruntime-web'
VERSION = '1.30.0'
#: What the page takes of the package's ``dist`` folder, and the SHA-256 of each.
RUNTIME = {
    'ort.wasm.min.mjs': '219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b',
    'ort-wasm-simd-threaded.mjs': 'e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b',
    'ort-wasm-simd-threaded.wasm': '3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2',
}
#: What ``npm pack`` calls the package.
ARCHIVE = f'{PACKAGE}-{VERSION}.tgz'
_HOW = f'`npm pack {PACKAGE}@{VERSION}` fetches it'


def page_info(model: Path) -> ModelInfo:
    """The information on a page's model, with a colour and a threshold for each class.

    Raises:
        UserError: It is no file that a page can run.
    """
    if model.suffix != '.onnx' or not model.is_file():
        raise UserError(f'{model} is no .onnx file; `mmlightvit export` writes one')
    info = load_exported(model).info
    if info.extra.get('export', {}).get('cut') != 'end2end':
        raise UserError(f'{model} is a part of a model; a page needs the whole, `mmlightvit export --cut end2end`')
    per_class = {name: float(value) for name, value in zip(info.classes, info.threshold_of_classes())}
    palette = [colour_of(place, info.palette) for place in range(len(info.classes))]
    return replace(info, palette=palette, thresholds={**info.thresholds, 'per_class': per_class})


def read_runtime(path: Path) -> dict[str, bytes]:
    """The files of ONNX Runtime Web.

    Args:
        path: The archive of the npm package, or the folder of an installed one.

    Raises:
        UserError: It is not there, or another release.
    """
    if not path.exists():
        raise UserError(f'{path} is not here; {_HOW}, and --runtime names it')
    try:
        files = _from_folder(path) if path.is_dir() else _from_archive(path)
    except (OSError, tarfile.TarError, KeyError) as error:
        raise UserError(f'{path} is not {PACKAGE} {VERSION} ({error}); {_HOW}') from None
    for name, digest in RUNTIME.items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise UserError(f'{path}: {name} is not the one of {PACKAGE} {VERSION}; {_HOW}')
    return files


def _from_folder(path: Path) -> dict[str, bytes]:
    folder = path / 'dist' if (path / 'dist').is_dir() else path
    return {name: (folder / name).read_bytes() for name in RUNTIME}


def _from_archive(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        members = {name: archive.extractfile(f'package/dist/{name}') for name in RUNTIME}
        return {name: member.read() for name, member in members.items() if member is not None}


def fetch_runtime() -> dict[str, bytes]:
    """The same, by npm.

    Raises:
        UserError: npm is not installed, or does not get it.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(
                ['npm', 'pack', f'{PACKAGE}@{VERSION}'], cwd=folder, check=True, capture_output=True, text=True
            )
        except FileNotFoundError:
            raise UserError('--runtime npm: npm is not installed') from None
        except subprocess.CalledProcessError as error:
            raise UserError(f'--runtime npm: {(error.stderr.strip().splitlines() or ["npm failed"])[-1]}') from None
        return read_runtime(Path(folder) / ARCHIVE)


def write_page(folder: Path, model: Path, info: ModelInfo, runtime: dict[str, bytes]) -> None:
    """Write the page.

    Args:
        folder: Where; it is there.
        model: The exported file.
        info: Of :func:`page_info`.
        runtime: Of :func:`read_runtime`.
    """
    with resources.as_file(resources.files(__name__) / 'static') as static:
        shutil.copytree(static, folder, dirs_exist_ok=True)
    (folder / 'ort').mkdir(exist_ok=True)
    for name, content in runtime.items():
        (folder / 'ort' / name).write_bytes(content)
    (folder / FILE).write_text(info.to_json(), encoding='utf-8')
    shutil.copyfile(model, folder / 'model.onnx')
