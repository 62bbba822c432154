# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What the ranks agree on at the end of a step, so that all of them skip it, or stop after it, alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

from mmlightvit.durable import signals


class StepConsensus:
    """The agreement of all ranks at the end of a step, about whether to stop among other things.

    A training loop owns it. An optimizer wrapper that has questions of its own (:class:`.NonFiniteGuard`) puts them
    through the loop's, which adds the request to stop: one reduction, and one wait on the device, for both.
    """

    def __init__(self) -> None:
        self._stop: bool | None = None

    def agree(self, flags: Sequence[Tensor], reading: Tensor) -> tuple[list[bool], float]:
        """Ask all ranks.

        Args:
            flags: This rank's answers, scalars on the device: 0 or 1.
            reading: A number of this rank alone that is fetched along.

        Returns:
            For each flag whether any rank has it, and the number.
        """
        stop = signals.requested() is not None
        votes = torch.stack([flag.float() for flag in flags])
        if get_world_size() > 1:
            votes = torch.cat((votes, votes.new_full((1,), float(stop))))
            all_reduce(votes, op='max')
        *values, read = torch.cat((votes, reading.float().reshape(1))).tolist()
        if get_world_size() > 1:
            stop = bool(values.pop())
        self._stop = stop or bool(self._stop)
        return [bool(value) for value in values], read

    def stops(self) -> bool:
        """Whether the run ends after this step; asks the ranks where no wrapper has done so."""
        stop, self._stop = self._stop, None
        if stop is None:
            flag = torch.tensor(float(signals.requested() is not None))
            all_reduce(flag, op='max')
            stop = bool(flag)
        return stop
