# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The backbone compiled in place: whole graphs, few of them, the same numbers and keys.

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

from mmlightvit.deploy.compile import CompileBackboneHook, compile_backbones
from mmlightvit.errors import UserError
from mmlightvit.models.backbones import LightViT

# torch itself makes an instance of an autograd.Function when it captures one.
pytestmark = pytest.mark.filterwarnings('ignore:.*should not be instantiated:DeprecationWarning')

# Grids of more than one window in each stage: torch gives sizes of one their own graph.
ALIGNED = [(2, 448, 448), (3, 448, 672), (2, 1120, 448)]
PADDED = [(2, 300, 460), (3, 500, 340), (2, 256, 320), (4, 448, 500)]


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def close(got, want, tolerance=1e-4):
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# One window, one row of windows, whole windows in some stages alone, one token, and odd grids.
SIZES = [(1, 224, 224), (2, 448, 224), (2, 112, 224), (1, 8, 8), (2, 100, 130), (3, 33, 457)]


FOUR_STAGES = dict(
    embed_dims=[8, 16, 32, 64], num_heads=[1, 2, 4, 8], num_blocks=[1, 1, 1, 1], ffn_ratios=[2, 2, 2, 2],
    num_global_tokens=2, patch_stride=4,
)  # fmt: skip
SETTINGS = [
    {},
    {'num_global_tokens': 0},
    {'window_size': None, 'num_global_tokens': 0},
    {'arch': FOUR_STAGES, 'out_indices': (0, 3)},
    {'overlapping_patches': False, 'residual_merging': False, 'window_size': 4},
]


@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('out_type', ['featmap', 'raw'])
def test_tables_move_tokens_as_views_do(settings, out_type):
    """What is compiled, run as it is: outputs and gradients of the usual form, at any size."""
    usual = oracles.scramble(LightViT(**{'arch': 'test', 'out_type': out_type, **settings})).train()
    tabled = copy.deepcopy(usual)
    tabled._compiled_run = tabled._run_tabled
    for size in SIZES + ALIGNED[:1] + PADDED[:1]:
        image = torch.randn(size[0], 3, *size[1:])
        outs = [model(image) for model in (usual, tabled)]
        close(*outs)
        for model, out in zip((usual, tabled), outs):
            model.zero_grad()
            sum(each.square().mean() for each in out).backward()
        for (name, a), b in zip(usual.named_parameters(), tabled.parameters()):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4 * float(a.grad.abs().max()), msg=name)


def test_two_graphs_serve_all_sizes():
    eager = oracles.scramble(LightViT('test')).eval()
    compiled, counter = copy.deepcopy(eager), CompileCounterWithBackend('eager')
    compiled.compile(backend=counter)
    with torch.no_grad():
        for size in ALIGNED + PADDED:
            image = torch.randn(size[0], 3, *size[1:])
            close(compiled(image), eager(image))
    assert counter.frame_count == 2


def test_tables_made_in_inference_mode_serve_training():
    backbone = LightViT('test')
    backbone._compiled_run = backbone._run_tabled
    image = torch.randn(2, 3, 72, 88)
    with torch.inference_mode():
        backbone.eval()(image)
    sum(out.sum() for out in backbone.train()(image)).backward()


def test_compiling_the_whole_keeps_windows_and_kernels():
    """torch.compile answers True when it is asked whether it exports, and exports pad in any case."""
    eager = oracles.scramble(LightViT('test')).eval()
    compiled, graphs = copy.deepcopy(eager), []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    nn.Module.compile(compiled, backend=backend, dynamic=False, fullgraph=True)
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        close(compiled(image), eager(image), 1e-5)
    called = [node.target for node in graphs[0].graph.nodes if node.op.startswith('call')]
    assert torch.ops.mmlightvit.linear in called
    assert 'new_ones' not in called  # the mask of the keys of a padded grid
    assert called.count(torch.ops.mmlightvit.conv_gelu) == 4
    assert torch.nn.functional.batch_norm not in called


@pytest.mark.slow
def test_training_gives_the_same_gradients():
    eager = oracles.scramble(LightViT('test')).train()
    compiled = copy.deepcopy(eager)
    compiled.compile(backend='aot_eager')
    for size in PADDED[:2]:
        image = torch.randn(size[0], 3, *size[1:])
        for model in (eager, compiled):
            model.zero_grad()
            sum(out.square().mean() for out in model(image)).backward()
        for (name, a), b in zip(eager.named_parameters(), compiled.parameters()):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_keys_copies_and_saving():
    backbone = LightViT('test')
    keys = list(backbone.state_dict())
    wrapped = nn.ModuleDict(dict(backbone=backbone))
    assert compile_backbones(wrapped, backend='aot_eager') == ['backbone']
    assert list(backbone.state_dict()) == keys
    assert copy.deepcopy(backbone)._compiled_run is None
    assert pickle.loads(pickle.dumps(backbone))._compiled_run is None
    assert backbone._compiled_run is not None


def test_a_model_without_the_backbone_is_refused():
    with pytest.raises(UserError, match='Linear without one'):
        compile_backbones(nn.Linear(1, 1))


def test_hook_compiles_what_the_runner_holds():
    class Logger:
        lines: list[str] = []

        def info(self, line):
            self.lines.append(line)

    class Runner:
        model = nn.Sequential(LightViT('test'))
        logger = Logger()

    CompileBackboneHook(backend='aot_eager').before_run(Runner())
    assert Runner.model[0]._compiled_run is not None
    assert Logger.lines == ['Compiled on first use: 0']


@pytest.mark.slow
def test_inductor_gives_the_same_numbers():
    eager = oracles.scramble(LightViT('test')).eval()
    compiled = copy.deepcopy(eager)
    compiled.compile()
    with torch.no_grad():
        for size in ALIGNED + PADDED:
            image = torch.randn(size[0], 3, *size[1:])
            close(compiled(image), eager(image))
