# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The lines of docs/install.md in an empty environment, with no compiler on the path: it trains and predicts."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import docs_worlds
import pytest

PINS = 'requirements/toolboxes.txt'
#: pip check, whose exit code is 1 because of imaug.
CHECK = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'pip', 'check'])"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_by_pip_alone(repo, run, wheel, tmp_path, monkeypatch):
    page = (repo / 'docs/install.md').read_text()
    (block,) = re.findall(r'^## By pip alone\n.*?```bash\n(.*?)```', page, re.DOTALL | re.MULTILINE)
    venv, *lines = [words for line in block.splitlines() if (words := shlex.split(line, comments=True))]
    assert venv[:3] == ['python3', '-m', 'venv']
    run(sys.executable, '-m', 'venv', tmp_path / 'empty', cwd=tmp_path)
    programs = tmp_path / 'empty/bin'
    site = run(programs / 'python', '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))', cwd=tmp_path)
    names = {'mmlightvit[train]': f'{wheel}[train]', PINS: str(Path(site.strip(), 'mmlightvit/.mim', PINS))}
    assert len(lines) == 3 and {word for words in lines for word in words} >= set(names)

    def call(program: str, *words: str) -> str:
        return run(programs / program, *words, cwd=tmp_path, timeout=1500, PATH=str(programs))

    for program, *words in lines:
        call(program, *(names.get(word, word) for word in words))
    installed = {line.partition('==')[0] for line in call('pip', 'freeze').splitlines()}
    assert {name for name in installed if 'opencv' in name} == {'opencv-python'}
    complaints = run(programs / 'python', '-c', CHECK, cwd=tmp_path).splitlines()
    assert complaints and all(line.startswith('imaug 0.4.3 ') for line in complaints)

    monkeypatch.chdir(tmp_path)
    docs_worlds.pets(tmp_path)
    quick = ['--from', 'none', '--epochs', '1', '--batch', '2', '--size', '64', '--workers', '0']
    call('mmlightvit', 'train', 'pets', *quick)
    call('mmlightvit', 'predict', 'work_dirs/pets', 'photos', '--out', 'predicted')
    assert (tmp_path / 'predicted/predictions.json').is_file()
    assert len(list((tmp_path / 'predicted').rglob('*.jpg'))) == 6
