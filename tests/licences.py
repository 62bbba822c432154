# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What a distribution's metadata say about its licence, as SPDX names, and the requirements with their closure."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from unittest import mock

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: Classifiers and free texts, which are older than SPDX names in metadata.
NAMES = {
    'Apache-2.0': ('Apache Software License', 'Apache License', 'Apache 2.0', 'Apache License 2.0'),
    'MIT': ('MIT License', 'The MIT License'),
    'BSD-3-Clause': ('3-Clause BSD License', 'BSD 3-Clause License'),
    'BSD-2-Clause': ('FreeBSD',),
    'BSD': ('BSD License',),  # which of them is not said; all are permissive
    'MPL-2.0': ('Mozilla Public License 2.0 (MPL 2.0)',),
    'PSF-2.0': ('Python Software Foundation License', 'PSFL'),
    'ISC': ('ISC License (ISCL)',),
}
#: Permissive ones; and MPL-2.0, which asks that its own files stay open where they are changed, and nothing of others.
ALLOWED = {
    *('0BSD', 'Apache-2.0', 'BSD', 'BSD-2-Clause', 'BSD-3-Clause', 'CC0-1.0', 'CNRI-Python', 'HPND', 'ISC'),
    *('LicenseRef-Apache-2.0', 'MIT', 'MIT-0', 'MIT-CMU', 'MPL-2.0', 'PSF-2.0', 'Python-2.0', 'Unlicense', 'Zlib'),
}
_SPDX = {text: name for name, texts in NAMES.items() for text in (*texts, name)}
_NO_LICENCE = {'OSI Approved', 'DFSG approved'}


def stated(expression: str | None, classifiers: Iterable[str], text: str | None) -> str:
    """The licence as an SPDX expression; '' where nothing that is known is said.

    Args:
        expression: ``License-Expression``.
        classifiers: The last parts of the classifiers that begin with ``License``.
        text: ``License``.
    """
    if expression:
        return expression
    named = [_SPDX.get(item, item) for item in classifiers if item not in _NO_LICENCE]
    if named:
        return ' AND '.join(dict.fromkeys(named))
    first = (text or '').strip().splitlines()[:1]
    return _SPDX.get(first[0].removeprefix('OSI Approved :: '), first[0]) if first else ''


def is_allowed(expression: str) -> bool:
    """Whether one of its alternatives asks for nothing that is not in :data:`ALLOWED`."""
    plain = re.sub(r' WITH [\w.-]+', '', expression)
    # Inside of parentheses an alternative would only be one of a part; then all that is named has to be allowed.
    alternatives = [plain] if '(' in plain else plain.split(' OR ')
    return bool(plain) and any(
        {word for word in re.split(r' AND | OR |[()]', part) if word} <= ALLOWED for part in alternatives
    )


def of(package: Distribution) -> str:
    """The licence that a distribution states."""
    metadata: Any = package.metadata
    listed = [item.split('::') for item in metadata.get_all('Classifier') or () if item.startswith('License')]
    return stated(metadata.get('License-Expression'), [parts[-1].strip() for parts in listed], metadata.get('License'))


def requirements(setup: Path) -> dict[str, list[str]]:
    """The requirements that setup.py names, by extra, and those of requirements/toolboxes.txt; '' has the package's."""
    found: dict[str, Any] = {}
    with mock.patch('setuptools.setup', found.update):
        runpy.run_path(str(setup))
    extras = {name: lines for name, lines in found['extras_require'].items() if name != 'all'}
    lines = (setup.parent / 'requirements' / 'toolboxes.txt').read_text().splitlines()
    toolboxes = [line for line in lines if not line.startswith('#')]
    return {'': found['install_requires'], **extras, 'toolboxes.txt': toolboxes}


def closure(lines: Iterable[str]) -> Iterator[Distribution]:
    """The installed distributions behind requirements, with all that these require."""
    todo: list[tuple[str, tuple[str, ...]]] = [(line, ()) for line in lines]
    done: set[tuple[str, str]] = set()
    seen: set[str] = set()
    while todo:
        line, extras = todo.pop()
        wanted = Requirement(line)
        name = canonicalize_name(wanted.name)
        if wanted.marker and not any(wanted.marker.evaluate({'extra': extra}) for extra in ('', *extras)):
            continue
        if (name, ','.join(sorted(wanted.extras))) in done:
            continue
        done.add((name, ','.join(sorted(wanted.extras))))
        try:
            package = distribution(wanted.name)
        except PackageNotFoundError:
            continue
        todo += [(other, tuple(wanted.extras)) for other in package.requires or ()]
        if name not in seen:
            seen.add(name)
            yield package
