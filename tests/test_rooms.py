# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Imports between the rooms of the package point one way; lazy ones inside of functions count as well."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

#: The rooms from the ground up, as docs/design.md draws them: a room imports only what stands on lower floors.
FLOORS = (
    ('errors', 'version', 'tasks', 'published', 'moved'),
    ('operators',),
    ('toolboxes',),
    ('registry',),
    ('models', 'durable'),
    ('checkpoint', 'pictures', 'config_paths', 'examples'),
    ('model_folder', 'data', 'timm_models'),
    ('inference',),
    ('deploy', 'explain'),
    ('load', 'cost'),
    ('evaluation',),
    ('cli',),
    ('__init__', '__main__'),
)
#: Rooms that can be lifted out, and all that they may know.
ALONE = {
    'operators': {'errors'},
    'durable': {'errors', 'registry'},
    'models': {'errors', 'registry', 'published'},
    'pictures': {'errors', 'tasks', 'durable'},
}
#: Files whose texts name modules: tables of what is imported when it is asked for, lists of the rooms of a part or a
#: class, and loggers, which have the name of the room that they are heard of.
NAMED_BY_TEXT = {
    'mmlightvit/registry.py',
    'mmlightvit/moved.py',
    'mmlightvit/__init__.py',
    'mmlightvit/cli/__init__.py',
    'mmlightvit/checkpoint/load.py',
    'mmlightvit/model_folder/parts.py',
    'mmlightvit/deploy/serving/service.py',
    'mmlightvit/cli/serve.py',
}


def _imports(path: Path, package: str) -> set[str]:
    """The modules of the package that a file imports."""
    found = set()
    parents = path.with_suffix('').parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = '.'.join([*parents[: len(parents) - node.level], *([node.module] if node.module else [])])
            origin = start if node.level else str(node.module)
            found.add(origin)
            found.update(f'{origin}.{alias.name}' for alias in node.names)
    return {name for name in found if name.startswith(f'{package}.')}


@pytest.fixture(scope='module')
def imports(repo) -> dict[str, set[tuple[str, str]]]:
    """By room, the rooms that it imports and the file that does."""
    graph: dict[str, set[tuple[str, str]]] = {}
    files = [path for path in sorted((repo / 'mmlightvit').rglob('*.py')) if '.mim' not in path.parts]  # resources
    rooms = {Path(path.relative_to(repo).parts[1]).stem for path in files}
    for path in files:
        relative = path.relative_to(repo)
        room = Path(relative.parts[1]).stem
        targets = {name.split('.')[1] for name in _imports(relative, 'mmlightvit')} & rooms - {room}
        graph.setdefault(room, set()).update((target, str(relative)) for target in targets)
    return graph


@pytest.fixture(autouse=True)
def _in_the_repository(repo, monkeypatch):
    monkeypatch.chdir(repo)


def test_each_room_imports_what_stands_below_it(imports):
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    assert set(floor) == set(imports)
    wrong = [
        f'{file} imports {target}'
        for room, targets in imports.items()
        for target, file in sorted(targets)
        if floor[target] >= floor[room] or target not in ALONE.get(room, floor)
    ]
    assert wrong == []


def test_the_design_draws_these_floors(repo):
    text = (repo / 'docs/design.md').read_text()
    drawing = text.partition('## Which way imports point')[2].split('```')[1]
    drawn = [tuple(line.split()) for line in drawing.strip().splitlines()]
    assert drawn[::-1] == [tuple(room for room in floor if not room.startswith('_')) for floor in FLOORS[:-1]]


def test_no_text_hides_an_import(repo):
    """Modules are named by text in tables alone, and each that a table names is there."""
    naming = {}
    for path in {*(repo / 'mmlightvit').rglob('*.py')} - {*(repo / 'mmlightvit/.mim').rglob('*.py')}:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and re.fullmatch(r'mmlightvit(\.[a-z_]+)+', str(node.value)):
                naming.setdefault(str(path.relative_to(repo)), set()).add(node.value)
    own = {file: {name for name in names if not _is_of_room(name, file)} for file, names in naming.items()}
    assert {file for file, names in own.items() if names} <= NAMED_BY_TEXT
    rows = naming['mmlightvit/registry.py'] | naming['mmlightvit/cli/__init__.py']
    assert all(importlib.util.find_spec(name) for name in rows)


def _is_of_room(name: str, file: str) -> bool:
    return name.split('.')[1] == Path(file).with_suffix('').parts[1]


def test_the_rule_sees_lazy_and_relative_imports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = Path('mmlightvit/durable/one.py')
    file.parent.mkdir(parents=True)
    file.write_text('def f():\n    from mmlightvit import data\nimport mmlightvit.cli.run\nfrom ..models import x\n')
    assert _imports(file, 'mmlightvit') >= {'mmlightvit.data', 'mmlightvit.cli.run', 'mmlightvit.models.x'}


UNTOUCHED = """
import sys
import mmengine.config, mmengine.hub, mmengine.infer, mmengine.runner
from mmengine.model import weight_init

def state():
    found = {}
    for name, module in sorted(sys.modules.items()):
        if name.split('.')[0] != 'mmengine':
            continue
        for key, value in vars(module).items():
            if callable(value):
                found[name, key] = id(value)
            if isinstance(value, type) and value.__module__.startswith('mmengine'):
                found.update({(name, key, inner): id(held) for inner, held in vars(value).items() if callable(held)})
            if isinstance(value, dict) and not key.startswith('__'):
                found[name, key] = repr(sorted(map(str, value.items())))
    loader = mmengine.runner.checkpoint.CheckpointLoader
    found['schemes'] = repr(loader._schemes)
    found['static'] = id(vars(mmengine.config.Config)['_get_cfg_path'])
    return found

before = state()
import mmlightvit.registry
import mmlightvit.models.backbones
from mmengine.registry import MODELS
arch = dict(embed_dims=[8], num_heads=[1], num_blocks=[1], ffn_ratios=[2], num_global_tokens=2)
MODELS.build(dict(type='mmlightvit.LightViT', arch=arch, out_indices=(0,))).init_weights()
after = state()
print(sorted(key for key in before if before[key] != after[key]))
import mmlightvit.checkpoint.install
after = state()
print(len([key for key in before if before[key] != after[key]]) > 0)
"""


def test_importing_models_and_registry_changes_nothing_in_mmengine():
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', UNTOUCHED], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ['[]', 'True']
