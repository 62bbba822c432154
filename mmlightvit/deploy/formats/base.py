# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The parts of a format of exported files, and what the formats share."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from mmlightvit.errors import UserError

if TYPE_CHECKING:
    from mmlightvit.deploy.export_modules import ExportModule
    from mmlightvit.model_folder.info import ModelInfo


class Engine(NamedTuple):
    """An opened file.

    Attributes:
        metadata: The text under our key; None where there is none.
        run: Input arrays by name -> output arrays by name.
        inputs: Names.
    """

    metadata: str | None
    run: Callable[[Mapping[str, NDArray]], dict[str, NDArray]]
    inputs: Sequence[str]


class ExportFormat(NamedTuple):
    """A format of exported files.

    Attributes:
        name: As ``--format`` takes it.
        ending: Of its files.
        package: The package that runs them.
        extra: The extra of this package that installs it.
        trace: A part of a model, and height and width or None for any -> its graph.
        write: Graph, what the model says of itself, and path -> the file.
        open: Path, device and threads, the last two or None -> the engine.
        quantise: The graph of a written file with 8-bit weights; None where there is no such thing.
        needs_torch: Whether running takes torch.
    """

    name: str
    ending: str
    package: str
    extra: str
    trace: Callable[[ExportModule, tuple[int, int] | None], Any]
    write: Callable[[Any, ModelInfo, Path], None]
    open: Callable[[Path, str | None, int | None], Engine]
    quantise: Callable[[Path], Any] | None = None
    needs_torch: bool = False


def package(name: str, extra: str) -> Any:
    """A package that an extra installs.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise UserError(f'this file needs {name}: pip install "mmlightvit[{extra}]"') from None


def reason(error: BaseException) -> str:
    """The line of an error that says what is wrong, without the places that OpenVINO puts in front."""
    places = ('Exception from ', "Check '", 'While validating ')
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if not line.startswith(places)), lines[0])


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Without the exporter's remarks, which are about its own insides."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(previous)
