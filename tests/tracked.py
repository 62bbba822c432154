# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The files of the project, without those that a user has put beside them."""

from __future__ import annotations

import subprocess
from pathlib import Path


def files(root: Path, folder: str, ending: str = '.py') -> list[Path]:
    """Files below a folder, sorted: those that git tracks, or all of them where there is no repository."""
    found = sorted((root / folder).rglob(f'*{ending}'))
    if not (root / '.git').exists():
        return found
    listed = subprocess.run(['git', 'ls-files', '-z', folder], cwd=root, capture_output=True, text=True, check=True)
    tracked = set(listed.stdout.split('\0'))
    return [path for path in found if path.relative_to(root).as_posix() in tracked]
