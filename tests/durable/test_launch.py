# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Starting processes: what is refused, what torchrun is told, and that its exit code comes back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmlightvit.cli import dist_launch as dist_script
from mmlightvit.durable import launch
from mmlightvit.errors import AllRanksError, UserError

ROOT = Path(__file__).resolve().parents[2]
TOOL = Path('tools/train.py')


def _plan(processes, *, gpus=0, cores=8, **environment):
    return launch.plan_launch(TOOL, ['c.py'], processes, gpus=gpus, cores=cores, environment=environment)


@pytest.mark.parametrize('visible', [1, 7])
def test_fewer_gpus_than_asked_are_refused(visible, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3')
    with pytest.raises(UserError, match=rf'8 GPUs asked for, {visible} visible .*CUDA_VISIBLE_DEVICES=3'):
        _plan(8, gpus=visible)


@pytest.mark.parametrize('visible', [0, 8, 9])
def test_enough_gpus_or_none_are_not(visible):
    assert '--nproc_per_node=8' in _plan(8, gpus=visible).command


@pytest.mark.parametrize(('processes', 'cores'), [(1, 8), (2, 8), (3, 8), (8, 8), (16, 8), (2, 2)])
def test_cpu_threads_fit_the_cores(processes, cores):
    threads = int(_plan(processes, cores=cores).environment['OMP_NUM_THREADS'])
    assert threads == max(1, cores // processes)
    assert processes * threads <= max(cores, processes)
    assert _plan(processes, OMP_NUM_THREADS='5').environment['OMP_NUM_THREADS'] == '5'


def test_one_machine_takes_a_free_port_and_several_agree_on_one():
    def option(plan, name):
        return next(item.split('=')[1] for item in plan.command if item.startswith(f'--{name}='))

    alone = _plan(2)
    assert option(alone, 'nnodes') == '1'
    assert option(alone, 'master_port') != str(launch.DEFAULT_PORT)
    assert option(_plan(2, PORT='12345'), 'master_port') == '12345'
    second = _plan(2, NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1')
    found = {name: option(second, name) for name in ('nnodes', 'node_rank', 'master_addr', 'master_port')}
    assert found == dict(nnodes='2', node_rank='1', master_addr='10.0.0.1', master_port='29500')
    with pytest.raises(UserError, match='MASTER_ADDR'):
        _plan(2, NNODES='2')


def test_the_tool_gets_its_arguments_and_the_launcher():
    command = _plan(2).command
    assert command[:3] == [sys.executable, '-m', 'torch.distributed.run']
    assert command[-3:] == [str(TOOL), 'c.py', '--launcher=pytorch']


def test_one_failing_rank_fails_the_job(tmp_path):
    script = tmp_path / 'tool.py'
    script.write_text("import os, sys\nsys.exit(3 if os.environ['RANK'] == '1' else 0)\n")
    plan = launch.plan_launch(script, [], 2, gpus=0, cores=2, environment={})
    ran = subprocess.run(plan.command, env={**os.environ, **plan.environment}, capture_output=True, check=False)
    assert ran.returncode == 1
    assert b'exitcode  : 3' in ran.stderr


@pytest.mark.parametrize(
    ('end', 'code', 'said'),
    [
        ("sys.exit('error: said by the process')", 1, ['error: said by the process']),
        (
            'os.kill(os.getpid(), 9)',
            137,
            ['error: process 1 was ended by SIGKILL, as the system does where memory runs out'],
        ),
    ],
)
def test_a_failing_process_is_told_once_without_torchruns_pages(end, code, said, tmp_path, repo):
    script = tmp_path / 'tool.py'
    script.write_text(f"import os, sys\nif os.environ['RANK'] == '1':\n    {end}\n")
    plan = launch.plan_launch(script, [], 2, gpus=0, cores=2, environment={})
    start = (
        f'import sys; from mmlightvit.cli.dist_launch import run_torchrun; sys.exit(run_torchrun({plan.command[3:]}))'
    )
    ran = subprocess.run([sys.executable, '-c', start], capture_output=True, text=True, check=False, cwd=repo)
    assert (ran.returncode, ran.stderr.splitlines()) == (code, said)


def _call_dist_script(monkeypatch, capsys, *arguments, gpus):
    what, *arguments = arguments
    monkeypatch.setattr(sys, 'argv', ['dist', str(ROOT / 'tools' / f'{what}.py'), *arguments])
    monkeypatch.setattr('torch.cuda.device_count', lambda: gpus)
    started = []
    monkeypatch.setattr(dist_script, 'run_torchrun', started.append)
    with pytest.raises(SystemExit) as left:
        dist_script.main()
    return left.value.code, capsys.readouterr().err, started


@pytest.mark.parametrize(
    ('arguments', 'gpus', 'said'),
    [
        (('train', 'CONFIG', '8'), 2, '8 GPUs asked for, 2 visible'),
        (('train', 'CONFIG'), 0, 'expected a number of GPUs'),
        (('train', 'CONFIG', '0'), 0, 'expected a number of GPUs'),
        (('test', 'CONFIG', '2'), 0, 'expected a number of GPUs'),
        (('train', 'missing.py', '2'), 0, 'config not found: missing.py'),
        (('test', 'CONFIG', 'missing.pth', '2'), 0, 'missing.pth'),
        (('train', 'CONFIG', '2', '--data-root', '/missing'), 2, '/missing'),
    ],
)
def test_dist_scripts_refuse_in_one_line_before_anything_starts(
    arguments, gpus, said, repo, tmp_path, monkeypatch, capsys
):
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    config = str(repo / 'configs/mask_rcnn_lightvit_t_1x.py')
    arguments = [config if item == 'CONFIG' else item for item in arguments]
    code, err, started = _call_dist_script(monkeypatch, capsys, *arguments, gpus=gpus)
    assert (code, started) == (1, [])
    [line] = err.splitlines()
    assert line.startswith('error: ')
    assert said in line


def test_dist_train_hands_over_to_torchrun(repo, tmp_path, monkeypatch, capsys):
    pytest.importorskip('mmdet')
    import tiny_data

    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(os, 'environ', dict(os.environ))
    tiny_data.write_coco(tmp_path / 'data', images=1)
    config = str(repo / 'configs/mask_rcnn_lightvit_t_1x.py')
    options = ['--data-root', str(tmp_path / 'data'), '--work-dir', str(tmp_path / 'run')]
    options += ['--cfg-options', 'model.backbone.init_cfg=None']
    _, err, started = _call_dist_script(monkeypatch, capsys, 'train', config, '2', *options, gpus=0)
    assert 'no GPU is visible: 2 CPU processes' in err
    [command] = started
    assert command[-2 - 1 - len(options) :] == [str(repo / 'tools/train.py'), config, *options, '--launcher=pytorch']


@pytest.mark.parametrize('name', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test'])
def test_scripts_are_strict_executable_and_parse(name, repo):
    path = repo / 'tools' / f'{name}.sh'
    assert os.access(path, os.X_OK)
    assert 'set -euo pipefail' in path.read_text()
    subprocess.run(['bash', '-n', path], check=True)


@pytest.mark.parametrize(
    ('name', 'arguments', 'expected'),
    [
        ('slurm_train', ['part', 'job', 'c.py', 'wd', '--amp'], ['train.py', 'c.py', '--work-dir=wd', '--amp']),
        ('slurm_test', ['part', 'job', 'c.py', 'x.pth', '--tta'], ['test.py', 'c.py', 'x.pth', '--tta']),
    ],
)
def test_slurm_scripts_call_srun(name, arguments, expected, repo, tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
    srun.chmod(0o755)
    environment = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'GPUS': '16', 'SRUN_ARGS': '-q debug'}
    ran = subprocess.run(
        [repo / 'tools' / f'{name}.sh', *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 7  # srun's own
    told = ran.stdout.splitlines()
    assert {'--ntasks=16', '--ntasks-per-node=8', '--gres=gpu:8', '--kill-on-bad-exit=1', '--launcher=slurm'} <= set(
        told
    )
    assert told[told.index('-q') + 1] == 'debug'
    tool = next(index for index, item in enumerate(told) if item.endswith('.py') and '/tools/' in item)
    assert told[tool].endswith(expected[0])
    assert [item for item in told[tool + 1 :] if item != '--launcher=slurm'] == expected[1:]
    environment['PATH'] = f'{Path(sys.executable).parent}:/usr/bin:/bin'
    without = subprocess.run(
        [repo / 'tools' / f'{name}.sh', *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert without.returncode == 1
    [line] = without.stderr.splitlines()
    assert line.startswith('error: srun is not found') and 'tools/dist_' in line
    short = subprocess.run([repo / 'tools' / f'{name}.sh', 'part'], capture_output=True, text=True, check=False)
    assert short.returncode == 2
    assert 'usage:' in short.stderr


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_a_launcher_without_its_variables_is_explained(launcher, monkeypatch):
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=f'--launcher {launcher} needs'):
        launch.init_distributed(launcher)


def test_only_the_first_process_of_a_machine_reports(monkeypatch):
    monkeypatch.setattr(launch, '_PEERS_EXIT_DELAY_S', 0)
    monkeypatch.setenv('LOCAL_RANK', '0')
    with pytest.raises(UserError, match='words'), launch.reported_once('pytorch'):
        raise UserError('words')
    monkeypatch.setenv('LOCAL_RANK', '1')
    with pytest.raises(SystemExit) as left, launch.reported_once('pytorch'):
        raise UserError('words')
    assert left.value.code == 1


def test_an_error_of_one_process_is_reported_by_it(monkeypatch):
    monkeypatch.setattr(launch, '_PEERS_EXIT_DELAY_S', 0)
    monkeypatch.setenv('LOCAL_RANK', '1')
    with pytest.raises(UserError, match='words'), launch.reported_once('pytorch', AllRanksError):
        raise UserError('words')
    with pytest.raises(SystemExit), launch.reported_once('pytorch', AllRanksError):
        raise AllRanksError('words')


def test_mpi_on_gpus_exports_what_mmengine_leaves_out(monkeypatch):
    """MMEngine's runner reads LOCAL_RANK, which its start for MPI does not set."""
    given = dict(OMPI_COMM_WORLD_RANK='3', OMPI_COMM_WORLD_LOCAL_RANK='1', OMPI_COMM_WORLD_SIZE='4', MASTER_ADDR='a')
    monkeypatch.setattr(os, 'environ', {**os.environ, **given})
    monkeypatch.setattr(launch, 'uses_accelerator', lambda: True)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr(launch, 'set_multi_processing', lambda **_: None)
    found = {}
    monkeypatch.setattr(launch, 'init_dist', lambda launcher, **_: found.update(os.environ))
    launch.init_distributed('mpi')
    assert {name: found[name] for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')} == dict(
        RANK='3', LOCAL_RANK='1', WORLD_SIZE='4'
    )
