# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What it costs: memory over a long run, and time of an iteration outside of saving."""

from __future__ import annotations

import functools
import json
import os
import time
from pathlib import Path
from typing import Any

import forks
import pytest
import runs
import torch
from mmengine.hooks import Hook

from mmlightvit.durable import loops, nonfinite
from mmlightvit.durable.consensus import StepConsensus
from mmlightvit.durable.loops import EpochBasedTrainLoop
from mmlightvit.durable.nonfinite import OptimWrapper


class MemoryAt(Hook):
    """Notes the resident memory (MB) every hundred iterations."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.measured: list[float] = []

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if (runner.iter + 1) % 100 == 0:
            pages = int(Path('/proc/self/statm').read_text().split()[1])
            self.measured.append(pages * os.sysconf('SC_PAGE_SIZE') / 1e6)
            Path(self.path).write_text(json.dumps(self.measured))


@pytest.mark.slow
def test_memory_is_flat_over_five_hundred_iterations(tmp_path, report):
    def work() -> None:
        cfg = runs.config(tmp_path / 'run', train_cfg__max_epochs=120, default_hooks__checkpoint__interval=1000)
        cfg.custom_hooks.append(dict(type=MemoryAt, path=str(tmp_path / 'memory')))
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.default_hooks.checkpoint.save_best = cfg.default_hooks.checkpoint.rule = None
        runs.train(cfg)

    assert forks.run(work, tmp_path / 'out', 900) == 0, (tmp_path / 'out').read_text()[-3000:]
    measured = json.loads((tmp_path / 'memory').read_text())
    growth = (measured[5] - measured[0]) / 5
    report(memory_mb_at_each_hundred=[round(value, 2) for value in measured], memory_growth_mb_per_hundred=growth)
    assert growth < 1


@pytest.mark.slow
def test_an_iteration_spends_at_most_a_hundredth_with_us(tmp_path, report):
    """Of classification with LightViT-T, 8 images of 224 px: time in what this package adds, over the iteration's."""
    from mmlightvit.models.backbones import LightViT

    def work() -> None:
        spent: dict[str, float] = {}

        def timed(function: Any, name: str) -> Any:
            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                begin = time.perf_counter()
                try:
                    return function(*args, **kwargs)
                finally:
                    spent[name] = spent.get(name, 0.0) + time.perf_counter() - begin

            return wrapper

        for owner, name in (
            (EpochBasedTrainLoop, '_before_iter'),
            (EpochBasedTrainLoop, '_after_iter'),
            (OptimWrapper, '_remember_buffers'),
            (OptimWrapper, '_clip_and_measure'),
            (OptimWrapper, '_agree'),
        ):
            setattr(owner, name, timed(getattr(owner, name), name))
        begin = time.perf_counter()
        model = torch.nn.Sequential()
        model.add_module('backbone', LightViT(arch='tiny', out_type='tokens', drop_path_rate=0.1))
        wrapper = OptimWrapper(optimizer=torch.optim.AdamW(model.parameters()))
        isfinite = torch.isfinite
        del begin
        images = torch.randn(8, 3, 224, 224)

        class Loop(EpochBasedTrainLoop):
            def __init__(self) -> None:
                self._iter = 0
                self._consensus = StepConsensus()
                self._runner = type('R', (), dict(common_seed=1, rank=0, optim_wrapper=wrapper))()

        loop = Loop()
        total = 0.0
        for place in range(12):
            if place == 2:  # warm
                spent.clear()
                total = 0.0
            begin = time.perf_counter()
            loop._before_iter(dict(data_samples=[]))
            with wrapper.optim_context(model):
                output = model.backbone(images)[-1]
                output = output[0] if isinstance(output, (tuple, list)) else output
                loss = output.square().mean()
            wrapper.update_params(loss)
            loop._after_iter()
            total += time.perf_counter() - begin
        one = time.perf_counter()
        for _ in range(100):
            isfinite(loss.detach()).all()
        spent['note the loss'] = (time.perf_counter() - one) / 10
        seeds = {name: round(value / total * 100, 4) for name, value in spent.items()}
        (tmp_path / 'cost').write_text(json.dumps(dict(percent=seeds, total=sum(seeds.values()), iteration=total / 10)))

    assert loops and nonfinite
    assert forks.run(work, tmp_path / 'out', 900) == 0, (tmp_path / 'out').read_text()[-3000:]
    cost = json.loads((tmp_path / 'cost').read_text())
    report(overhead_percent=cost)
    assert cost['total'] <= 1
