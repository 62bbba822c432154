# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""No requirement, with what it brings, is copyleft or of an unknown licence; docs/licences.md says what they are."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import licences
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: Distributions whose metadata do not say it, and why they may stay.
EXCEPTIONS = {
    'onedl-mmengine': 'the metadata say "All rights reserved"; the LICENSE inside is Apache-2.0, which a test reads',
    'nvidia-*': "torch's builds for CUDA bring NVIDIA's libraries, under its own terms; builds for the CPU have none",
    'docutils': 'GPL is the licence of its mode for Emacs alone, which the wheel does not carry',
    'cuda-toolkit': "a list of NVIDIA's libraries without a file of its own; see nvidia-*",
}


@pytest.mark.parametrize(
    ('expression', 'classifiers', 'text', 'expected'),
    [
        ('MIT', [], None, True),
        ('Apache-2.0 OR GPL-2.0-only', [], None, True),
        ('BSD-2-Clause AND Apache-2.0 WITH LLVM-exception', [], None, True),
        ('GPL-3.0-only', [], None, False),
        ('MIT AND LGPL-2.1-or-later', [], None, False),
        ('(MIT OR GPL-2.0-only) AND BSD-3-Clause', [], None, False),
        ('AGPL-3.0-or-later', ['MIT License'], 'MIT', False),
        (None, ['MIT License'], 'anything', True),
        (None, ['OSI Approved', 'BSD License'], None, True),
        (None, ['MIT License', 'GNU General Public License v3 (GPLv3)'], None, False),
        (None, ['GNU Lesser General Public License v2 (LGPLv2)'], None, False),
        (None, ['OSI Approved'], 'GPL', False),
        (None, [], 'Apache 2.0', True),
        (None, [], 'Copyright (c) Somebody. All rights reserved.', False),
        (None, [], 'UNKNOWN', False),
        (None, [], None, False),
    ],
)
def test_licences_are_judged(expression, classifiers, text, expected):
    assert licences.is_allowed(licences.stated(expression, classifiers, text)) is expected


def test_everything_required_has_an_allowed_licence(repo):
    lines = [line for extra in licences.requirements(repo / 'setup.py').values() for line in extra]
    packages = {canonicalize_name(item.metadata['Name']): item for item in licences.closure(lines)}
    assert len(packages) > 20  # the closure was followed
    wrong = {
        name: licences.of(package)
        for name, package in packages.items()
        if not licences.is_allowed(licences.of(package)) and not any(fnmatch(name, known) for known in EXCEPTIONS)
    }
    assert wrong == {}


def test_the_exception_is_apache():
    try:
        package = distribution('onedl-mmengine')
    except PackageNotFoundError:
        pytest.skip('onedl-mmengine is not installed; its metadata are the exception')
    assert not licences.is_allowed(licences.of(package))  # once they say it, the exception goes
    (file,) = (file for file in package.files or () if file.name == 'LICENSE')
    assert 'Apache License\n' in file.read_text()


def listed(page: Path) -> dict[str, str]:
    """Packages and licences of the table."""
    rows = re.findall(r'^\| ([\w, -]+) \| [^|]* \| ([\w., -]+) \|$', page.read_text(), re.MULTILINE)
    return {name: licence for names, licence in rows for name in names.split(', ')}


def test_the_table_names_every_requirement(repo):
    table = listed(repo / 'docs' / 'licences.md')
    lines = [line for extra in licences.requirements(repo / 'setup.py').values() for line in extra]
    assert {canonicalize_name(Requirement(line).name) for line in lines} <= set(table)
    for name, licence in table.items():
        try:
            said = licences.of(distribution(name))
        except PackageNotFoundError:
            continue  # of an extra that is not installed here
        if name not in EXCEPTIONS:
            # Releases of one package state it more or less exactly: BSD, BSD-3-Clause.
            assert said.removeprefix('LicenseRef-').partition('-')[0] == licence.partition('-')[0], name
