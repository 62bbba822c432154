#!/usr/bin/env bash
# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
#
# usage:   tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# example: tools/dist_test.sh configs/mask_rcnn_lightvit_t_1x.py work_dirs/run/epoch_12.pth 8
#
# Several machines: the same line on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m mmlightvit.cli.dist_launch "$root/tools/test.py" "$@"
