# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Starting several processes, and joining them: everything about ranks, GPUs and back ends is in this module.

MMEngine's own start assumes CUDA (it selects a GPU before it creates the process group). :func:`init_distributed`
creates the group first, with gloo where no accelerator is visible; MMEngine's runner then finds it and goes on.
"""

from __future__ import annotations

import datetime
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from mmengine.device import get_device
from mmengine.dist import init_dist
from mmengine.utils.dl_utils import set_multi_processing

from mmlightvit.errors import UserError

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
DEFAULT_PORT = 29500
_RANK_VARIABLES = {
    'pytorch': ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'),
    'slurm': ('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE'),
}
_PEERS_EXIT_DELAY_S = 5.0


def local_rank(launcher: str) -> int:
    """The process's number on its machine, before any process group exists; 0 without a launcher."""
    return int(os.environ.get(_RANK_VARIABLES[launcher][1], '0')) if launcher in _RANK_VARIABLES else 0


def uses_accelerator() -> bool:
    """Whether processes get a device each. Apple's MPS has no collective operations, so it counts as none."""
    return get_device() not in ('cpu', 'mps')


def init_distributed(launcher: str, dist_cfg: Mapping | None = None, mp_cfg: Mapping | None = None) -> None:
    """Join the job's process group: the config's back end (nccl) on accelerators, gloo where there is none.

    Args:
        launcher: One of ``none``, ``pytorch`` (torchrun), ``slurm``, ``mpi``.
        dist_cfg: ``env_cfg.dist_cfg`` of the config: ``backend``, ``timeout`` in seconds.
        mp_cfg: ``env_cfg.mp_cfg`` of the config; the start method has to be chosen before the group exists.

    Raises:
        UserError: A rank variable of the launcher is not set, or the machine has fewer GPUs than processes.
    """
    if launcher == 'none' or dist.is_initialized():
        return
    missing = [name for name in _RANK_VARIABLES[launcher] if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher} needs {", ".join(missing)} in the environment, which its start command sets; '
            'use tools/dist_train.sh, tools/slurm_train.sh, or leave --launcher out for one process'
        )
    set_multi_processing(**(mp_cfg or {}), distributed=True)
    options = dict(dist_cfg or {})
    if uses_accelerator():
        if torch.cuda.is_available():
            require_gpus(local_rank(launcher) + 1, torch.cuda.device_count())
        if launcher == 'mpi':  # MMEngine's own start leaves LOCAL_RANK out, which its runner reads
            _export_rendezvous(launcher)
        init_dist(launcher, **options)
        return
    _export_rendezvous(launcher)
    timeout = options.get('timeout')
    dist.init_process_group('gloo', timeout=None if timeout is None else datetime.timedelta(seconds=timeout))


def _export_rendezvous(launcher: str) -> None:
    """Give torch's ``env://`` rendezvous what Slurm and MPI call by other names."""
    if launcher == 'pytorch':
        return
    for name, source in zip(('RANK', 'LOCAL_RANK', 'WORLD_SIZE'), _RANK_VARIABLES[launcher]):
        os.environ[name] = os.environ[source]
    os.environ.setdefault('MASTER_PORT', str(DEFAULT_PORT))
    if 'MASTER_ADDR' in os.environ:
        return
    if launcher == 'mpi':
        raise UserError('--launcher mpi needs MASTER_ADDR in the environment: the host name of rank 0')
    nodes = os.environ['SLURM_NODELIST']
    shown = subprocess.run(['scontrol', 'show', 'hostname', nodes], check=True, capture_output=True, text=True)
    os.environ['MASTER_ADDR'] = shown.stdout.split()[0]


@contextmanager
def reported_once(launcher: str, kind: type[UserError] = UserError) -> Iterator[None]:
    """Let one process of each machine report an error that all of them run into.

    The others wait a moment before they leave, because a launcher ends the whole job at the first exit.

    Args:
        launcher: What started the processes.
        kind: The errors that are everybody's; others are reported by each process that has one.
    """
    try:
        yield
    except kind:
        if local_rank(launcher) == 0:
            raise
        time.sleep(_PEERS_EXIT_DELAY_S)
        sys.exit(1)


#: Gloo groups that were left. A model's DDP wrapper holds its group too, and torch ends a group with its last holder.
#: If that is the wrapper, it waits for gloo's threads with the interpreter's lock held, and a thread that needs the
#: lock to let go of its last tensor waits for it: both forever. Groups held here end after the wrapper, unlocked.
_LEFT_GROUPS: list[object] = []


def leave_distributed() -> None:
    """Leave the process group after a finished run, so that no rank warns about an open one."""
    if dist.is_available() and dist.is_initialized():
        if dist.get_backend() == 'gloo':
            _LEFT_GROUPS.append(dist.group.WORLD)
        dist.destroy_process_group()


def require_gpus(asked: int, visible: int) -> None:
    """Refuse to share a GPU between processes.

    Raises:
        UserError: Some GPU is visible, but fewer than ``asked``.
    """
    if 0 < visible < asked:
        limited = os.environ.get('CUDA_VISIBLE_DEVICES')
        why = '' if limited is None else f' (CUDA_VISIBLE_DEVICES={limited})'
        raise UserError(
            f'{asked} GPUs asked for, {visible} visible on this machine{why}; ask for {visible}, make more visible, '
            'or set CUDA_VISIBLE_DEVICES= (empty) to run on the CPU'
        )


class LaunchPlan(NamedTuple):
    """A torchrun command and what its environment needs."""

    command: list[str]
    environment: dict[str, str]


def plan_launch(
    tool: Path, arguments: Sequence[str], processes: int, *, gpus: int, cores: int, environment: Mapping[str, str]
) -> LaunchPlan:
    """How to run ``tool`` in several processes.

    Args:
        tool: tools/train.py or tools/test.py.
        arguments: The tool's arguments, without the launcher.
        processes: Processes on this machine.
        gpus: GPUs visible on this machine.
        cores: CPU cores this process may use.
        environment: Read for NNODES, NODE_RANK, MASTER_ADDR, PORT and OMP_NUM_THREADS.

    Raises:
        UserError: Fewer GPUs than processes, or several nodes without MASTER_ADDR.
    """
    require_gpus(processes, gpus)
    nodes = int(environment.get('NNODES', 1))
    if nodes > 1 and 'MASTER_ADDR' not in environment:
        raise UserError(f'NNODES={nodes} needs MASTER_ADDR: the address of the node with NODE_RANK=0')
    # All nodes have to agree on the port, so only a single node can take any free one.
    port = environment.get('PORT') or str(DEFAULT_PORT if nodes > 1 else free_port())
    threads = '1' if gpus else str(max(1, cores // processes))
    command = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        f'--nnodes={nodes}',
        f'--node_rank={environment.get("NODE_RANK", 0)}',
        f'--master_addr={environment.get("MASTER_ADDR", "127.0.0.1")}',
        f'--master_port={port}',
        f'--nproc_per_node={processes}',
        str(tool),
        *arguments,
        '--launcher=pytorch',
    ]
    return LaunchPlan(command, {'OMP_NUM_THREADS': environment.get('OMP_NUM_THREADS', threads)})


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def usable_cores() -> int:
    """CPU cores this process may use (fewer than the machine's under taskset or Slurm)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
