# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Blocks compiled from outside: few graphs for all sizes, the same numbers, the same keys.

What takes a minute or more is slow: ``pytest -m slow tests/models/test_compile.py``.
"""

from __future__ import annotations

import copy
import pickle

import oracles
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from variants import TEST_ARCH

from mmlightvit.deploy.compile import RECOMPILE_LIMIT, CompileBackboneHook, compile_blocks
from mmlightvit.errors import UserError
from mmlightvit.models.backbones import LightViT

#: One stage, whose two blocks share their graphs.
SHORT = dict(embed_dims=[16], num_heads=[2], num_blocks=[2], ffn_ratios=[2], num_global_tokens=2)

# Grids of more than one window: torch gives sizes of one their own graph.
ALIGNED = [(2, 112, 112), (3, 112, 168), (2, 280, 112)]
# Padded both ways; padded one way alone is a kind of its own, and torch takes numbers that are equal by chance, such
# as batch and rows of windows, for one.
PADDED = [(5, 75, 115), (3, 125, 85), (2, 64, 80), (4, 120, 125)]

# Dynamo looks at the gradient of a block's input; torch.compile hides the warning, pytest makes it an error.
pytestmark = pytest.mark.filterwarnings('ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning')


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=RECOMPILE_LIMIT):
        yield
    torch._dynamo.reset()


def pair(**kwargs):
    """A model, and a copy whose blocks are compiled."""
    eager = oracles.scramble(LightViT(SHORT, out_type='tokens', out_indices=(0,))).eval()
    compiled = copy.deepcopy(eager)
    assert compile_blocks(compiled, **kwargs) == 2
    return eager, compiled


def close(got, want, tolerance=1e-4):
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('training', [False, True], ids=['inference', 'training'])
def test_a_further_size_of_a_known_kind_compiles_nothing(training):
    counter = CompileCounterWithBackend('eager')
    eager, compiled = pair(backend=counter)
    counts = []
    for sizes in (ALIGNED, PADDED):
        for batch, *size in sizes:
            image = torch.randn(batch, 3, *size)
            with torch.set_grad_enabled(training):
                close(*(model.train(training)(image) for model in (compiled, eager)))
            counts.append(counter.frame_count)
    assert counts == [1] * len(ALIGNED) + [2] * len(PADDED)


def test_training_gives_the_same_gradients():
    eager, compiled = pair(backend='aot_eager')
    for batch, *size in PADDED[:2]:
        image = torch.randn(batch, 3, *size)
        for model in (eager, compiled):
            model.train().zero_grad()
            sum(out.square().mean() for out in model(image)).backward()
        for (name, a), b in zip(eager.named_parameters(), compiled.parameters()):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_keys_copies_and_saving():
    eager, compiled = pair(backend='aot_eager')
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for each in (compiled, copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
            assert list(each.state_dict()) == list(eager.state_dict())
            close(each(image), eager(image), 1e-5)


def test_a_model_without_the_backbone_is_refused():
    with pytest.raises(UserError, match='Linear without one'):
        compile_blocks(nn.Linear(1, 1))


def test_hook_compiles_what_the_runner_holds_and_restores_the_limit():
    class Logger:
        lines: list[str] = []

        def info(self, line):
            self.lines.append(line)

    class Runner:
        model = nn.Sequential(LightViT(TEST_ARCH))
        logger = Logger()

    hook, runner = CompileBackboneHook(backend='aot_eager'), Runner()
    with torch._dynamo.config.patch(recompile_limit=8):
        hook.before_run(runner)
        assert torch._dynamo.config.recompile_limit == RECOMPILE_LIMIT
        hook.after_run(runner)
        assert torch._dynamo.config.recompile_limit == 8
    assert all(block._compiled_call_impl is not None for stage in runner.model[0].stages for block in stage.blocks)
    assert runner.logger.lines == ['4 blocks are compiled on first use.']


@pytest.mark.slow
@pytest.mark.parametrize('training', [False, True], ids=['inference', 'training'])
def test_inductor_gives_the_same_numbers(training):
    eager, compiled = pair()
    for batch, *size in ALIGNED[:2] + PADDED[:2]:
        image = torch.randn(batch, 3, *size)
        outs = []
        for model in (eager, compiled):
            model.train(training).zero_grad()
            with torch.set_grad_enabled(training):
                outs.append(model(image))
            if training:
                sum(out.square().mean() for out in outs[-1]).backward()
        close(*outs)
        if training:
            for (name, a), b in zip(eager.named_parameters(), compiled.parameters()):
                torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4 * float(a.grad.abs().max()), msg=name)
