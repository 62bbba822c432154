#!/usr/bin/env bash
# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
#
# usage:   tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
# example: GPUS=8 tools/slurm_test.sh gpu lightvit configs/mask_rcnn_lightvit_t_1x.py work_dirs/run/epoch_12.pth
#
# Environment: GPUS in total (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS for srun's own options,
# MASTER_PORT (29500). GPUS_PER_NODE=0 runs GPUS processes on CPUs.
set -euo pipefail

if [ "$#" -lt 4 ]; then
    echo "usage: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]" >&2
    exit 2
fi

if ! command -v srun >/dev/null; then
    echo "error: srun is not found; this script is for Slurm, and without it there is tools/dist_test.sh CONFIG CHECKPOINT GPUS" >&2
    exit 1
fi

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
gpus="${GPUS:-8}"
per_node="${GPUS_PER_NODE:-8}"
resources=(--ntasks="$gpus" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1)
if [ "$per_node" -gt 0 ]; then
    resources+=(--gres="gpu:$((gpus < per_node ? gpus : per_node))" --ntasks-per-node="$((gpus < per_node ? gpus : per_node))")
fi
read -r -a extra <<<"${SRUN_ARGS:-}"

exec srun -p "$1" --job-name="$2" "${resources[@]}" ${extra[@]+"${extra[@]}"} \
    "${PYTHON:-python}" -u "$root/tools/test.py" "$3" "$4" --launcher=slurm "${@:5}"
