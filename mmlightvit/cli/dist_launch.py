# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The program of tools/dist_train.sh and tools/dist_test.sh: checks everything once, then starts torchrun.

``python -m mmlightvit.cli.dist_launch tools/train.py CONFIG PROCESSES [options]``
``python -m mmlightvit.cli.dist_launch tools/test.py CONFIG CHECKPOINT PROCESSES [options]``
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from mmlightvit.cli import test, train
from mmlightvit.errors import UserError, exit_on_user_error

USAGE = {
    'train': 'tools/dist_train.sh CONFIG GPUS [options of tools/train.py]',
    'test': 'tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]',
}
EXAMPLE = {
    'train': 'tools/dist_train.sh configs/mask_rcnn_lightvit_t_1x.py 8 --amp',
    'test': 'tools/dist_test.sh configs/mask_rcnn_lightvit_t_1x.py work_dirs/run/epoch_12.pth 8',
}
NOTE = """GPUS is the number of processes on this machine, one GPU each; without a visible GPU they run on the CPU.
Environment: NNODES, NODE_RANK, MASTER_ADDR and PORT for several machines, CUDA_VISIBLE_DEVICES, PYTHON."""


@exit_on_user_error
def main() -> int:
    tool, arguments = Path(sys.argv[1]), sys.argv[2:]
    what = tool.stem
    if not arguments or arguments[0] in ('-h', '--help'):
        print(f'usage: {USAGE[what]}\n\nexample: {EXAMPLE[what]}\n\n{NOTE}')
        return 0 if arguments else 2
    position = 1 if what == 'train' else 2
    count = arguments[position] if len(arguments) > position else ''
    if not (count.isascii() and count.isdigit() and int(count) > 0):
        raise UserError(f'expected a number of GPUs, got {count!r}; usage: {USAGE[what]}')
    forwarded = arguments[:position] + arguments[position + 1 :]
    # What can be refused is refused here, in one line, rather than by every rank and then by torchrun.
    command = train if what == 'train' else test
    args = command.parser().parse_args(forwarded)
    command.require(args)
    import torch

    from mmlightvit.durable import launch

    gpus = torch.cuda.device_count()
    cores = launch.usable_cores()
    plan = launch.plan_launch(tool, forwarded, int(count), gpus=gpus, cores=cores, environment=os.environ)
    command.check(command.prepare(args))
    if not gpus:
        threads = plan.environment['OMP_NUM_THREADS']
        notice = f'no GPU is visible: {count} CPU processes, {threads} thread(s) each'
        print(notice, file=sys.stderr, flush=True)
    os.environ.update(plan.environment)
    return run_torchrun(plan.command[3:])


def run_torchrun(arguments: Sequence[str]) -> int:
    """Run the processes; returns the exit code of the first that fails.

    torchrun itself follows a failure with pages on where it noticed it. The process has said what is wrong, unless a
    signal ended it, which is said here.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    for name in list(logging.root.manager.loggerDict):
        if name.startswith('torch.distributed'):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        run(parse_args(list(arguments)))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        cause = ', as the system does where memory runs out' if name == 'SIGKILL' else ''
        print(f'error: process {rank} was ended by {name}{cause}', file=sys.stderr)
        return 128 - failure.exitcode
    except SignalException as stopped:
        return 128 + stopped.sigval
    return 0


if __name__ == '__main__':
    main()
