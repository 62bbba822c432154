# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What tools/dist_train.sh and tools/dist_test.sh run: check everything once, then hand over to torchrun.

``python -m mmlightvit.cli.dist_launch tools/train.py CONFIG PROCESSES [options]``
``python -m mmlightvit.cli.dist_launch tools/test.py CONFIG CHECKPOINT PROCESSES [options]``
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from mmlightvit.cli import test, train
from mmlightvit.durable import launch
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
    gpus = torch.cuda.device_count()
    plan = launch.plan_launch(
        tool,
        forwarded,
        int(count),
        gpus=gpus,
        cores=launch.usable_cores(),
        environment=os.environ,
    )
    # What can be refused is refused here, in one line, rather than by every rank and then by torchrun.
    command = train if what == 'train' else test
    command.prepare(command.parser().parse_args(forwarded))
    if not gpus:
        threads = plan.environment['OMP_NUM_THREADS']
        notice = f'no GPU is visible: {count} CPU processes, {threads} thread(s) each'
        print(notice, file=sys.stderr, flush=True)
    os.environ.update(plan.environment)
    return os.execv(plan.command[0], plan.command)


if __name__ == '__main__':
    main()
