# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The model wrapper and the mixed-precision optimizer wrapper, for GPU and CPU alike."""

from __future__ import annotations

import torch
from mmengine.device import get_device
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.optim import AmpOptimWrapper as _AmpOptimWrapper
from mmengine.optim import OptimWrapper
from torch import nn

from mmlightvit.durable import bfloat16
from mmlightvit.durable.nonfinite import NonFiniteGuard
from mmlightvit.errors import AllRanksError
from mmlightvit.registry import MODEL_WRAPPERS, OPTIM_WRAPPERS

# torch.amp has the scaler since 2.3, where the older name began to warn.
_GradScaler = torch.amp.GradScaler if hasattr(torch.amp, 'GradScaler') else torch.cuda.amp.GradScaler


@MODEL_WRAPPERS.register_module()
class DistributedDataParallel(MMDistributedDataParallel):
    """Data parallelism over processes, on GPUs or on the CPU.

    On the CPU, torch wants no device ids and has no synchronised BatchNorm: the ids that MMEngine's runner passes
    are left out, and SyncBN layers of a base config become BatchNorm layers, as MMEngine does for one process.

    Args:
        module: The model, already on its device.
        device_ids: The process's GPU; passed by the runner.
        broadcast_buffers: Whether rank 0's BatchNorm statistics are sent out before each forward pass.
        find_unused_parameters: Search for parameters without a gradient in each step; none of the models here has one.
        detect_anomalous_params: Report parameters outside the graph (MMEngine's debugging aid).
        static_graph: See :class:`torch.nn.parallel.DistributedDataParallel`.
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: list[int] | None = None,
        broadcast_buffers: bool = False,
        find_unused_parameters: bool = False,
        detect_anomalous_params: bool = False,
        static_graph: bool = False,
    ) -> None:
        if next(module.parameters()).device.type == 'cpu':
            device_ids = None
            module = revert_sync_batchnorm(module)
        super().__init__(
            module,
            device_ids=device_ids,
            broadcast_buffers=broadcast_buffers,
            find_unused_parameters=find_unused_parameters,
            detect_anomalous_params=detect_anomalous_params,
            static_graph=static_graph,
        )


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(NonFiniteGuard, _AmpOptimWrapper):
    """Mixed precision: float16 with loss scaling on a GPU, bfloat16 without it on the CPU.

    Args:
        dtype: ``'float16'``, ``'bfloat16'``, or None for the device's own: float16 on a GPU, bfloat16 on the CPU.
        loss_scale: As in MMEngine: ``'dynamic'``, a number, or arguments of ``GradScaler``. Used with float16 only;
            bfloat16 has float32's range.
        max_skipped: The run stops at this many steps in a row whose loss or gradient is not finite; such steps are
            skipped.
        **kwargs: Arguments of :class:`mmengine.optim.OptimWrapper`: ``optimizer``, ``clip_grad``,
            ``accumulative_counts``.

    Raises:
        ValueError: ``dtype`` is none of these.
        AllRanksError: float16 on the CPU.
    """

    def __init__(
        self,
        dtype: str | None = None,
        loss_scale: str | float | dict = 'dynamic',
        max_skipped: int = 10,
        **kwargs,
    ) -> None:
        on_cpu = get_device() == 'cpu'
        if dtype is None:
            dtype = 'bfloat16' if on_cpu else 'float16'
        if dtype not in ('float16', 'bfloat16'):
            raise ValueError(f"dtype: expected 'float16', 'bfloat16' or None, got {dtype!r}")
        if on_cpu and dtype == 'float16':
            raise AllRanksError("dtype: float16 training needs a GPU, and none is visible; use 'bfloat16' or None")
        if dtype == 'float16':
            if isinstance(loss_scale, int):  # MMEngine takes a float alone for a number
                loss_scale = float(loss_scale)
            super().__init__(dtype=dtype, loss_scale=loss_scale, max_skipped=max_skipped, **kwargs)
            return
        # The parent's constructor asks for a GPU, for the sake of its loss scaler; bfloat16 needs no scaling.
        self.init_guard(max_skipped)
        OptimWrapper.__init__(self, **kwargs)
        self._scale_update_param = None
        self.loss_scaler = _GradScaler(enabled=False)
        self.cast_dtype = torch.bfloat16
        bfloat16.install()

    def load_state_dict(self, state_dict: dict) -> None:
        """Load the optimizer's state; a run in bfloat16 has no loss scale to hand on to one in float16."""
        state_dict = dict(state_dict)
        if not state_dict.get('loss_scaler'):
            state_dict.pop('loss_scaler', None)
        super().load_state_dict(state_dict)
