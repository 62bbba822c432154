# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What the Dockerfiles name is there: files, extras, commands and options. Docker itself is not needed."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import licences
import pytest

from mmlightvit.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / 'docker').glob('*.Dockerfile'))


def instructions(file: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their words, comments left out and lines joined."""
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.startswith('#')]
    joined = re.sub(r'\\\n\s*', '', '\n'.join(lines)).splitlines()
    return [(name, words) for name, _, words in (line.partition(' ') for line in joined)]


def words_of(file: Path, name: str) -> list[str]:
    return [words for instruction, words in instructions(file) if instruction == name]


def test_there_are_two():
    assert [file.name for file in FILES] == ['runtime.Dockerfile', 'train.Dockerfile']
    for file in FILES:
        known = {'ARG', 'CMD', 'COPY', 'ENTRYPOINT', 'ENV', 'EXPOSE', 'FROM', 'HEALTHCHECK', 'RUN', 'USER', 'WORKDIR'}
        assert {name for name, _ in instructions(file)} <= known
        assert words_of(file, 'USER') == ['10001']


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_the_files_that_are_copied_are_there(file):
    stages = {words.split(' AS ')[1] for words in words_of(file, 'FROM') if ' AS ' in words}
    copied = words_of(file, 'COPY')
    assert copied
    for words in copied:
        option, *others = words.split()
        if option.startswith('--from='):
            assert option.removeprefix('--from=') in stages
        else:
            assert (ROOT / option).exists() and others
    sources = {words.split()[0]: words.split()[1] for words in copied}
    for path in re.findall(r'-r (\S+)', ' '.join(words_of(file, 'RUN'))):
        (prefix,) = (name for name, target in sources.items() if path.startswith(f'{target}/') and name != '.')
        assert (ROOT / path.replace(sources[prefix], prefix)).is_file()


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_the_extras_are_there(file):
    extras = licences.requirements(ROOT / 'setup.py')
    (named,) = re.findall(r'\[([a-z,]+)\]"', ' '.join(words_of(file, 'RUN')))
    assert set(named.split(',')) <= set(extras)


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_the_command_and_its_examples_can_be_parsed(file):
    (entry,), (default,) = (words_of(file, name) for name in ('ENTRYPOINT', 'CMD'))
    start = json.loads(entry)
    examples = re.findall(r'mmlightvit-\w+ (.*)', file.read_text())
    arguments = [word.split() for word in examples if not word.startswith('.')] + [json.loads(default)]
    assert start[0] == 'mmlightvit' and len(arguments) > 1
    for words in arguments:
        name, *options = [*start[1:], *words]
        if name != '--help':
            importlib.import_module(COMMANDS[name].module).parser().parse_args(options)


def test_what_is_sent_to_docker_is_what_the_package_is_built_from():
    rules = [line for line in (ROOT / '.dockerignore').read_text().splitlines() if line and not line.startswith('#')]
    assert rules[0] == '*'
    sent = {rule[1:] for rule in rules if rule.startswith('!')}
    assert all((ROOT / name).exists() for name in sent)
    setup = (ROOT / 'setup.py').read_text()
    read = set(re.findall(r"ROOT / '([\w.-]+)'", setup)) | {'configs', 'tools', 'model-index.yml', 'pyproject.toml'}
    assert read <= sent
    left_out = [rule for rule in rules if not rule.startswith('!')]
    for name in ('.git', '.venv', 'work_dirs', 'data'):
        assert name not in sent and any(fnmatch(name, rule) for rule in left_out)


@pytest.mark.parametrize(('status', 'healthy'), [(200, True), (503, False), (None, False)])
def test_the_health_check(status, healthy):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == '/healthz' else 404)
            self.end_headers()

        def log_message(self, *words):
            pass

    (check,) = words_of(ROOT / 'docker/runtime.Dockerfile', 'HEALTHCHECK')
    _, option, code = json.loads(re.search(r'CMD (\[.*\])', check)[1])
    with ThreadingHTTPServer(('127.0.0.1', 0), Answer) as server:
        if status is not None:
            Thread(target=server.serve_forever, daemon=True).start()
        else:
            server.server_close()
        changed = code.replace(':8000/', f':{server.server_port}/')
        assert changed != code
        done = subprocess.run([sys.executable, option, changed], capture_output=True, check=False, timeout=60)
        if status is not None:
            server.shutdown()
    assert (done.returncode == 0) == healthy
