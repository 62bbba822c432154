# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""mmcv's operators where mmcv came without compiled ones: torchvision's and torch's, in the place of ``mmcv._ext``.

Importing this module changes nothing and is light; :func:`install` makes the operators available, as every door of this
package to a toolbox does, and importing :mod:`mmlightvit.operators.installed` does for other programs.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from mmlightvit.errors import UserError

EXTENSION = 'mmcv._ext'
_REBUILD = 'pip install --no-build-isolation --force-reinstall --no-deps --no-cache-dir'
#: The line for the top of a program that imports a toolbox itself.
LINE = 'import mmlightvit.operators.installed'


class StandIn(MetaPathFinder, Loader):
    """The finder of ``mmcv._ext`` that is asked last, so a compiled one always comes first."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """A spec for the one module that it stands in for."""
        return ModuleSpec(fullname, self, origin=__name__) if fullname == EXTENSION else None

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its operators; every other name of mmcv's becomes a function that says what to install."""
        _check_torchvision()
        from mmlightvit.operators import kernels

        vars(module).update({name: getattr(kernels, name) for name in kernels.OPERATORS}, __getattr__=_missing)


def install() -> None:
    """Make torchvision's operators stand in for mmcv's, if mmcv has none. Calling it again changes nothing.

    Raises:
        UserError: A module of a toolbox was imported before and holds a fall-back in an operator's place.
    """
    if any(isinstance(finder, StandIn) for finder in sys.meta_path):
        return
    fallback = next(_fallbacks(), None)
    if fallback is not None and not _is_compiled():
        raise UserError(
            f'{fallback} was left without an operator of mmcv, since its module was imported too early; '
            f'put the line "{LINE}" at the top of the program, before the first import of mmcv or a toolbox '
            '(docs/configs.md#operators)'
        )
    sys.meta_path.append(StandIn())


def check() -> None:
    """mmcv's operators can be imported: a toolbox would go on without them in silence and fail much later.

    Raises:
        UserError: mmcv's compiled module is broken or belongs to another version, or torchvision lacks its operators.
        ModuleNotFoundError: mmcv is not installed.
    """
    importlib.import_module('mmcv')
    try:
        importlib.import_module('mmcv.ops')
    except (ImportError, AssertionError, OSError) as error:
        raise UserError(cause_of(f'{type(error).__name__}: {error}')) from error


def cause_of(error: str, versions: Mapping[str, str] | None = None) -> str:
    """A sentence on why mmcv's operators cannot be imported, and what to do about it.

    Args:
        error: The exception, with the name of its type before the message.
        versions: Versions of the distributions; those that are installed otherwise.
    """
    versions = _versions() if versions is None else versions
    name, _, message = error.partition(': ')
    if name == UserError.__name__:
        return message
    if name == AssertionError.__name__:
        problem = f"mmcv's compiled operators are of another version than mmcv: {message}"
    elif 'undefined symbol' in message or '.so' in message or 'DLL' in message:
        torch = versions.get('torch', '?')
        problem = f"mmcv's operators were compiled for another PyTorch than the installed {torch} ({message})"
    else:
        problem = f"mmcv's operators cannot be loaded: {message}"
    command = compile_command(versions)
    plain = command.replace('--no-build-isolation ', '')
    return f"{problem}. Rebuild them: {command}; or have torchvision's in their place: {plain}"


def compile_command(versions: Mapping[str, str] | None = None) -> str:
    """The command that compiles mmcv's operators for the installed mmcv."""
    versions = _versions() if versions is None else versions
    distribution = next((name for name in ('onedl-mmcv', 'mmcv') if name in versions), 'onedl-mmcv')
    return f'{_REBUILD} {distribution}=={versions.get(distribution, "")}'.rstrip('=')


def describe() -> str:
    """Whose operators mmcv has, and for which devices; imports mmcv's."""
    from mmcv.ops import get_compiler_version, get_compiling_cuda_version

    cuda = get_compiling_cuda_version()
    devices = 'CPU only' if cuda == 'not available' else f'CUDA {cuda}'
    extension = sys.modules[EXTENSION]
    if not isinstance(getattr(extension.__spec__, 'loader', None), StandIn):
        return f'compiled ({get_compiler_version()}), {devices}'
    from mmlightvit.operators.kernels import OPERATORS

    families = dict.fromkeys(name.split('_forward')[0].split('_backward')[0] for name in OPERATORS)
    names = ', '.join(name for name in families if not name.startswith('get_'))
    return f'{get_compiler_version()}, {devices}: {names}'


def _versions() -> dict[str, str]:
    found = {}
    for name in ('torch', 'onedl-mmcv', 'mmcv'):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _is_compiled() -> bool:
    """Whether mmcv has a compiled module, be it sound or not; mmcv is imported already."""
    return EXTENSION in sys.modules or PathFinder.find_spec(EXTENSION, sys.modules['mmcv'].__path__) is not None


def _fallbacks() -> Iterator[str]:
    """Names in imported modules of toolboxes that ``try`` an import of ``mmcv.ops`` and hold None or a stub instead."""
    for module in [*sys.modules.values()]:
        name, file = getattr(module, '__name__', ''), getattr(module, '__file__', None) or ''
        package = name.partition('.')[0]
        if not package.startswith('mm') or package in ('mmcv', 'mmengine', 'mmlightvit') or not file.endswith('.py'):
            continue
        text = Path(file).read_text(encoding='utf-8')
        if 'mmcv.ops' not in text:
            continue
        for node in ast.walk(ast.Module([node for node in ast.parse(text).body if isinstance(node, ast.Try)], [])):
            if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('mmcv.ops'):
                for alias in node.names:
                    bound = vars(module).get(alias.asname or alias.name, module)
                    if bound is None or getattr(bound, '__module__', None) == name:
                        yield f'{name}.{alias.asname or alias.name}'


def _check_torchvision() -> None:
    import torch

    reinstall = 'install the torchvision of this PyTorch, by the command of https://pytorch.org/get-started/locally'
    try:
        import torchvision
    except (ImportError, RuntimeError, OSError) as error:
        raise UserError(
            f'mmcv has no compiled operators and torchvision, whose operators stand in, cannot be imported ({error}); '
            + reinstall
        ) from error
    who = f'torchvision {torchvision.__version__}, whose operators stand in for those mmcv lacks,'
    if not torchvision.extension._has_ops():
        raise UserError(f'{who} has no operators that PyTorch {torch.__version__} can load; {reinstall}')
    if torch.cuda.is_available() and torch.ops.torchvision._cuda_version() == -1:
        raise UserError(f'{who} is a build for the CPU beside a PyTorch for CUDA {torch.version.cuda}; {reinstall}')


def _missing(name: str) -> Callable[..., Any]:
    """A function in the place of an operator that neither torchvision nor torch has."""
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise UserError(missing_message(name))

    return missing


def missing_message(operator: str) -> str:
    """A line on an operator that is not there: its name, the code outside mmcv that asked, and what to install."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get('__name__', '').partition('.')[0] in ('mmcv', 'mmlightvit', 'torch'):
        frame = frame.f_back
    asker = f'{frame.f_globals.get("__name__", "?")}, line {frame.f_lineno}'
    return (
        f"{operator} of mmcv, called by {asker}, is not among the operators that stand in for mmcv's compiled ones; "
        f'compile them: {compile_command()} (docs/install.md)'
    )
