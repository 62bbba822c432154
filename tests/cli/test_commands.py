# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The console script: help, wrong usage, and how soon it answers."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import time

import pytest

from mmlightvit import cli
from mmlightvit.cli import arguments, options
from mmlightvit.durable import launch

HEAVY = {'torch', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg', 'numpy', 'cv2'}
#: Runs a command in this interpreter and prints the heavy packages that it has imported.
PROBE = """
import sys
from mmlightvit.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as left:
    code = left.code
print('IMPORTED', code, sorted(set(sys.modules) & {heavy}))
"""


def _probe(*command: str) -> tuple[str, str, list[str]]:
    ran = subprocess.run(
        [sys.executable, '-c', PROBE.format(heavy=HEAVY), *command], capture_output=True, text=True, check=True
    )
    *lines, last = ran.stdout.splitlines()
    _, code, imported = last.split(maxsplit=2)
    return '\n'.join(lines), ran.stderr, [code, imported]


def test_help_lists_every_command_on_a_screen_and_ends_with_two_examples(capsys):
    assert cli.main(['--help']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert [line.split()[0] for line in lines[lines.index('commands:') + 1 :] if line.startswith('  ')][
        : len(cli.COMMANDS)
    ] == list(cli.COMMANDS)
    assert all(line.startswith('  mmlightvit ') for line in lines[-2:])


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_each_command_has_a_parser_a_line_and_two_examples(name):
    parser = importlib.import_module(cli.COMMANDS[name].module).parser()
    assert parser.prog == f'mmlightvit {name}'
    shown = parser.format_help().rstrip().splitlines()
    assert len(shown) <= 60
    start = shown.index('examples:')
    assert len(shown) - start - 1 >= 2
    assert all(line.strip().startswith(f'mmlightvit {name}') for line in shown[start + 1 :])


@pytest.mark.parametrize(
    ('command', 'code', 'said'),
    [
        (['--help'], 0, ''),
        (['train', '--help'], 0, ''),
        (['train', 'missing.py'], 1, 'error: config not found: missing.py'),
        (['test', 'CONFIG', 'missing.pth'], 1, 'error: checkpoint not found: '),
        (['flops', 'README.md'], 1, 'error: README.md is no config: its name does not end in .py'),
        (['trian'], 2, "error: no command 'trian'; nearest: train"),
        (['train', 'CONFIG', '--workdir', 'x'], 2, 'nearest: --work-dir'),
        (['train', 'CONFIG', '--launcher', 'torch'], 2, 'nearest: pytorch'),
        (['train'], 2, 'error: the following arguments are required: CONFIG'),
    ],
)
def test_what_can_be_said_at_once_is_said_before_anything_heavy_is_imported(command, code, said, repo, monkeypatch):
    monkeypatch.chdir(repo)
    command = ['configs/lightvit_t_imagenet.py' if item == 'CONFIG' else item for item in command]
    _, err, (found, imported) = _probe(*command)
    assert (found, imported) == (str(code), '[]')
    assert said in err
    assert len(err.splitlines()) == (1 if said else 0)


def test_help_and_a_wrong_path_answer_within_half_a_second(repo):
    """The time of this interpreter's own start is left out; the fastest of some runs, as others may be at work."""

    def seconds(*command):
        taken = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=False, cwd=repo)
            taken.append(time.perf_counter() - start)
        return min(taken)

    bare = seconds('-c', 'pass')
    assert seconds('-m', 'mmlightvit', '--help') - bare < 0.3
    assert seconds('tools/train.py', 'missing.py') - bare < 0.5


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--cfg-options', 'a=1', 'c.py'], 'c.py is read as a setting; it goes in front: mmlightvit train c.py'),
        (['c.py', '--cfg-options', 'a'], "expected KEY=VALUE such as train_dataloader.batch_size=4, got 'a'"),
        (['c.py', '--cfg-options', 'size=(320,', '192)'], 'needs quotes, such as "size=(320, 192)"'),
    ],
)
def test_a_setting_out_of_form_is_answered_with_the_right_one(options, said, capsys):
    with pytest.raises(SystemExit) as left:
        cli.call('train', options)
    [line] = capsys.readouterr().err.splitlines()
    assert left.value.code == 2
    assert said in line


def test_a_tool_is_a_command_under_another_name(repo):
    shown = subprocess.run([sys.executable, repo / 'tools/train.py', '-h'], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith('usage: tools/train.py ')
    assert shown.stdout.rstrip().splitlines()[-1].startswith('  python tools/train.py configs/')


@pytest.mark.parametrize('name', ['predict', 'demo', 'report', 'val', 'compare', 'export', 'benchmark'])
def test_commands_that_load_a_model_have_its_arguments(name):
    from mmlightvit.load import load_model

    parser = importlib.import_module(cli.COMMANDS[name].module).parser()
    assert {action.dest for action in parser._actions} | set(parser._defaults) >= set(arguments.MODEL_OPTIONS)
    assert set(inspect.signature(load_model).parameters) - {'model'} == set(arguments.MODEL_OPTIONS)


def test_the_launchers_are_those_that_can_be_joined():
    parser = arguments.Parser('x')
    options.add_options(parser, options.RUN)
    for name in launch.LAUNCHERS:
        assert parser.parse_args(['x.py', '--launcher', name]).launcher == name
    assert re.search('{(.*)}', parser.format_usage())[1].split(',') == list(launch.LAUNCHERS)


def test_the_completion_of_the_docs_knows_commands_and_options(repo, tmp_path):
    text = (repo / 'docs/install.md').read_text()
    function = re.search(r'```bash\n(_mmlightvit\(\).*?)```', text, re.S)[1]
    script = tmp_path / 'try.sh'
    script.write_text(
        f'mmlightvit() {{ {sys.executable} -m mmlightvit "$@"; }}\n{function}\n'
        'COMP_WORDS=(mmlightvit tr) COMP_CWORD=1; _mmlightvit; echo "${COMPREPLY[@]}"\n'
        'COMP_WORDS=(mmlightvit train --res) COMP_CWORD=2; _mmlightvit; echo "${COMPREPLY[@]}"\n'
    )
    ran = subprocess.run(['bash', script], capture_output=True, text=True, check=True, cwd=repo)
    assert ran.stdout.split() == ['train', '--resume']
