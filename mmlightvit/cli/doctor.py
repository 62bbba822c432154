# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit doctor`` and tools/misc/check_env.py: what is installed, and in plain words what is wrong with it.

:func:`gather` looks, :func:`diagnose` judges; the second is a pure function of the first's findings.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

from mmlightvit import operators
from mmlightvit.cli.arguments import Parser
from mmlightvit.toolboxes import TOOLBOXES

OLDEST_TORCH = Version('2.1')
FIRST_TORCH_TOO_NEW = Version('2.14')

# Import name -> (maintained distribution, original distribution).
PAIRS = {
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    **{name: (toolbox.distribution, toolbox.original) for name, toolbox in TOOLBOXES.items()},
}
OPENCV = ('opencv-python', 'opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')
# Imported in this order, each in the same child process: the operators need torch's libraries loaded.
PROBED = (
    'numpy',
    'torch',
    'torchvision',
    'cv2',
    'mmengine',
    'mmcv',
    'mmcv.ops',
    *(f'{name}.models' for name in TOOLBOXES),
)

_ROOT = Path(__file__).resolve().parents[2]
_PROBE = """
import importlib, json, sys
sys.path.append(sys.argv[1])
import mmlightvit.operators.installed
for name in sys.argv[2:]:
    print(json.dumps([name, 'started']), flush=True)
    try:
        importlib.import_module(name)
    except BaseException as error:
        print(json.dumps([name, type(error).__name__ + ': ' + str(error)]), flush=True)
    else:
        print(json.dumps([name, None]), flush=True)
try:
    import torch
    print(json.dumps(['gpus', torch.cuda.device_count()]), flush=True)
    print(json.dumps(['operators', mmlightvit.operators.describe()]), flush=True)
except Exception:
    pass  # reported above, by name
"""


def parser() -> argparse.ArgumentParser:
    """Its arguments: none."""
    return Parser(
        'doctor',
        'Say what is installed and what is wrong with it; exit code 1 if something is.',
        ['', '> environment.txt'],
    )


def run(args: argparse.Namespace) -> int:
    """Print the versions and the diagnosis; 1 if something is wrong."""
    print('Importing everything once takes about 20 s ...', file=sys.stderr)
    found = gather()
    rows = version_table(found)
    width = max(len(name) for name, _ in rows)
    for name, version in rows:
        print(f'{name:<{width}}  {version}')
    diagnosis = diagnose(found)
    for note in diagnosis.notes:
        print(f'note: {note}')
    for problem in diagnosis.problems:
        print(f'problem: {problem}')
    print('Something has to be mended.' if diagnosis.problems else 'The environment is in order.')
    return 1 if diagnosis.problems else 0


class Findings(NamedTuple):
    """The environment.

    Attributes:
        versions: Version of each installed distribution, by its canonical name.
        import_errors: Message of each probed module that cannot be imported.
        gpus: GPUs that torch sees.
        operators: Whose operators mmcv has, and for which devices; None if they cannot be used.
    """

    versions: Mapping[str, str]
    import_errors: Mapping[str, str]
    gpus: int = 0
    operators: str | None = None


class Diagnosis(NamedTuple):
    """Problems, and notes that are merely worth knowing; a sentence each."""

    problems: list[str]
    notes: list[str]


def gather() -> Findings:
    """Look at this interpreter's environment. Imports happen in a child process, which may crash."""
    versions = {}
    for distribution in distributions():
        name = distribution.metadata['Name']
        if name:
            versions[re.sub(r'[-_.]+', '-', name).lower()] = distribution.version
    modules = [name for name in PROBED if _distribution_of(name.split('.')[0], versions)]
    child = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', _PROBE, str(_ROOT), *modules],
        capture_output=True,
        text=True,
        check=False,
    )
    errors: dict[str, str] = {}
    gpus, described = 0, None
    for line in child.stdout.splitlines():
        if not line.startswith('["'):
            continue  # something that a package prints on import
        name, result = json.loads(line)
        if name == 'gpus':
            gpus = result
        elif name == 'operators':
            described = result
        elif result is None:
            errors.pop(name, None)
        else:
            errors[name] = result if result != 'started' else f'the interpreter crashed (exit code {child.returncode})'
    return Findings(versions, errors, gpus, described)


def _distribution_of(module: str, versions: Mapping[str, str]) -> str | None:
    if module == 'cv2':
        return next((name for name in OPENCV if name in versions), None)
    candidates: Sequence[str] = PAIRS.get(module, (module,))
    return next((name for name in candidates if name in versions), None)


def _version(found: Findings, name: str) -> Version | None:
    try:
        return Version(found.versions[name])
    except (KeyError, InvalidVersion):
        return None


def diagnose(found: Findings) -> Diagnosis:
    """Say what is wrong with an environment, the cause before its consequences."""
    problems: list[str] = []
    notes: list[str] = []
    versions = found.versions
    errors = dict(found.import_errors)

    both = [
        (maintained, original) for maintained, original in PAIRS.values() if {maintained, original} <= set(versions)
    ]
    for maintained, original in both:
        problems.append(
            f'Both {maintained} and {original} are installed; they write to the same folder. '
            f'Remove both (pip uninstall -y {maintained} {original}), then install one again.'
        )
    for name in ('mmcv-lite', 'mmcv-full'):
        if name in versions:
            what = 'has no compiled operators' if name == 'mmcv-lite' else 'is from before OpenMMLab 2.0'
            problems.append(f'{name} is installed; it {what}. Remove it and install onedl-mmcv (docs/install.md).')

    torch = _version(found, 'torch')
    if torch is None:
        problems.append('PyTorch is not installed: pip install "mmlightvit[train]"')
    elif torch.release >= FIRST_TORCH_TOO_NEW.release and (found.operators or '').startswith('compiled'):
        problems.append(
            f"PyTorch {torch} is too new: mmcv's operators compile with versions below {FIRST_TORCH_TOO_NEW}. "
            'Install an older one, pip install "mmlightvit[train]", then rebuild mmcv.'
        )
    elif torch < OLDEST_TORCH:
        problems.append(f'PyTorch {torch} is too old: {OLDEST_TORCH} or later is needed.')
    if 'torch' in errors:
        problems.append(f'PyTorch cannot be imported: {errors["torch"]}')

    problems += _numpy_and_opencv(found, torch)

    for module in ('mmengine', 'mmcv'):
        distribution = _distribution_of(module, versions)
        if distribution is None:
            problems.append(f'{PAIRS[module][0]} is not installed: see docs/install.md.')
        elif module in errors:
            problems.append(f'{distribution} cannot be imported: {errors[module]}')
    broken_operators = 'mmcv.ops' in errors and 'mmcv' not in errors and 'torch' not in errors
    if broken_operators:
        problems.append(operators.cause_of(errors['mmcv.ops'], versions))
    elif found.gpus and 'CPU only' in (found.operators or ''):
        notes.append(
            f"{found.gpus} GPU(s) visible, but mmcv's operators were compiled without CUDA, so detection cannot run "
            f'there. Have nvcc at hand and rebuild: FORCE_CUDA=1 {operators.compile_command(versions)}'
        )

    installed = [name for name in TOOLBOXES if _distribution_of(name, versions)]
    for name, toolbox in TOOLBOXES.items():
        if name not in installed:
            notes.append(f'{PAIRS[name][0]} is not installed: {toolbox.task} configs cannot be used.')
        elif f'{name}.models' in errors and not (problems and (broken_operators or both)):
            problems.append(f'{_distribution_of(name, versions)} cannot be imported: {errors[f"{name}.models"]}')
    if not installed:
        problems.append(
            f'No toolbox is installed; at least one of {", ".join(PAIRS[name][0] for name in TOOLBOXES)} is needed '
            '(docs/install.md).'
        )
    return Diagnosis(problems, notes)


def _numpy_and_opencv(found: Findings, torch: Version | None) -> list[str]:
    problems = []
    numpy = _version(found, 'numpy')
    if numpy is not None and torch is not None and numpy.major >= 2 and torch < Version('2.3'):
        problems.append(f'PyTorch {torch} was built for NumPy 1, and NumPy {numpy} is installed: pip install "numpy<2"')
    if 'numpy' in found.import_errors:
        problems.append(f'NumPy cannot be imported: {found.import_errors["numpy"]}')
    opencv = {name: found.versions[name] for name in OPENCV if name in found.versions}
    if len(set(opencv.values())) > 1:
        listed = ', '.join(f'{name} {version}' for name, version in opencv.items())
        problems.append(
            f'OpenCV is installed in different versions that write to the same folder ({listed}); keep one.'
        )
    error = found.import_errors.get('cv2')
    if error is not None:
        hint = '; install libgl1, or opencv-python-headless in place of opencv-python' if 'libGL' in error else ''
        problems.append(f'OpenCV cannot be imported: {error}{hint}')
    return problems


def version_table(found: Findings) -> list[tuple[str, str]]:
    """Rows of name and version to print."""
    rows = [('Python', platform.python_version())]
    for name in ('torch', 'torchvision', 'numpy', *OPENCV, 'setuptools'):
        if name in found.versions:
            rows.append((name, found.versions[name]))
    for maintained, original in PAIRS.values():
        present = [name for name in (maintained, original) if name in found.versions]
        rows += [(name, found.versions[name]) for name in present] or [(maintained, 'not installed')]
    rows.append(('GPUs visible', str(found.gpus)))
    rows.append(('mmcv operators', found.operators or 'not usable'))
    return rows
