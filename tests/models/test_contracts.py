# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The backbone behaves as any torch module does, whoever runs it, watches it, changes it or converts it.

Over the published variants, a minute one, both output types and each switch of the ablations.
"""

from __future__ import annotations

import copy
import functools
import io
import pickle

import numpy as np
import onnxruntime
import oracles
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from variants import OUT_TYPES, SWITCHES, TEST_ARCH

from mmlightvit.models.backbones import LightViT

#: One stage of two blocks, for what takes torch seconds per block.
SHORT = dict(embed_dims=[16], num_heads=[2], num_blocks=[2], ffn_ratios=[2], num_global_tokens=2)


def _both(name, **settings):
    return {f'{name}-{out_type}': dict(settings, out_type=out_type) for out_type in OUT_TYPES}


#: Each published variant and a minute one with both kinds of output, and each switch of the minute one.
ALL = {
    **_both('tiny', arch='tiny'),
    **_both('small', arch='small'),
    **_both('base', arch='base'),
    **_both('test', arch=TEST_ARCH),
    **{name: dict(arch=TEST_ARCH, **switch) for name, switch in SWITCHES.items()},
}
#: The larger variants differ from tiny in numbers alone, so the contracts that the numbers can break ask them: of rows
#: beside each other, of modules that run, of copies and of lower precision. The others ask these.
WITHOUT_LARGE = {name: case for name, case in ALL.items() if case['arch'] not in ('small', 'base')}

#: Pixels: grids of whole windows at first (14 x 7 tokens), and grids that are padded everywhere (9 x 5).
SIZES = [(112, 56), (72, 33)]


def over(cases):
    """Parametrise the fixture ``model`` by the settings of each backbone."""
    return pytest.mark.parametrize('scrambled', cases.values(), ids=cases.keys(), indirect=True)


@pytest.fixture(scope='module')
def scrambled(request) -> LightViT:
    """A backbone in eval mode with random values; pytest runs all tests of one together."""
    return oracles.scramble(LightViT(**request.param)).eval()


@pytest.fixture
def model(scrambled) -> LightViT:
    """A copy of a test's own."""
    return copy.deepcopy(scrambled)


@functools.lru_cache
def images(batch: int, size: tuple[int, int]) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


def run(model, image, mode='inference'):
    """All outputs; ``mode`` is inference, gradient (recorded in eval mode) or training."""
    if model.training != (mode == 'training'):  # changes of mode are events that no contract may depend on
        model.train(mode == 'training')
    with torch.set_grad_enabled(mode != 'inference'):
        return [out.detach() for out in model(image)]


def assert_close(got, want, tolerance=1e-5):
    """Against the largest value of each output."""
    assert len(got) == len(want)
    for a, b in zip(got, want):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max()


def linear_names(model):
    return [name for name, module in model.named_modules() if type(module) is nn.Linear]


MODES = ['inference', 'gradient', 'training']


@over(ALL)
@pytest.mark.parametrize('size', SIZES, ids=['whole', 'padded'])
def test_the_result_of_an_image_does_not_depend_on_its_batch_mates(model, size):
    image = images(1, size)
    for mode in ('inference', 'gradient'):
        alone = run(model, image, mode)
        for mates in (1e4 * images(2, size)[1:], torch.zeros(2, 3, *size)):
            beside = run(model, torch.cat([mates, image]), mode)
            assert_close([out[-1:] for out in beside], alone, 1e-4)


@over(ALL)
@pytest.mark.parametrize('mode', MODES)
def test_every_leaf_module_runs(model, mode):
    ran = set()
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: ran.add(name))
    run(model, images(2, SIZES[0]), mode)
    assert ran == {name for name, module in model.named_modules() if not list(module.children())}


@over(WITHOUT_LARGE)
@pytest.mark.parametrize('size', SIZES, ids=['whole', 'padded'])
def test_a_hook_sees_the_same_rows_at_every_batch_size(model, size):
    seen = []
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, args, out, name=name: seen.append((name, args[0], out)))
    for mode in MODES:
        rows = []
        for batch in (1, 2):
            seen.clear()
            run(model, images(batch, size), mode)
            rows.append([(name, x.numel() / batch, x.shape[-1], out.numel() / batch) for name, x, out in seen])
        assert rows[0] == rows[1]


def test_a_write_through_data_is_seen_by_the_next_call(subtests):
    model = oracles.scramble(LightViT(TEST_ARCH)).eval()
    image = images(1, SIZES[1])
    want = run(model, image)
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        with subtests.test(name):
            before = value.clone()
            value.data.copy_(before + torch.rand_like(before))
            assert any((a - b).abs().max() > 1e-6 for a, b in zip(run(model, image), want))
            value.data.copy_(before)
    assert_close(run(model, image), want, 0)


@over(WITHOUT_LARGE)
@pytest.mark.parametrize('mode', ['inference', 'gradient'])
def test_all_data_swapped_as_an_averaging_hook_does(model, mode):
    for size in SIZES:
        run(model, images(2, size), mode)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.data.copy_(value * 1.25)
    for size in SIZES:
        assert_close(run(model, images(2, size), mode), run(copy.deepcopy(model), images(2, size), mode), 0)


class Adapted(nn.Module):
    """A linear layer with a low-rank update beside it, which shows the layer's own weight, as adapter libraries do."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    @property
    def weight(self):
        return self.base.weight

    @property
    def bias(self):
        return self.base.bias

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


@over(WITHOUT_LARGE)
def test_a_wrapped_linear_layer_acts_on_all_tokens_alike(model):
    """The adapted model is the model whose weights were updated, at any batch size and in any mode."""
    updated = copy.deepcopy(model)
    for name in linear_names(model):
        adapter = oracles.scramble(Adapted(model.get_submodule(name)), seed=len(name))
        model.set_submodule(name, adapter)
        updated.get_submodule(name).weight.data = adapter.base.weight + adapter.up.weight @ adapter.down.weight
        updated.get_submodule(name).bias = adapter.base.bias
    for batch in (1, 2):
        image = images(batch, SIZES[batch - 1])
        for mode in MODES[: 1 + batch]:  # batch statistics of one image are no statistics
            assert_close(run(model, image, mode), run(updated, image, mode), 1e-4)


@over(WITHOUT_LARGE)
@pytest.mark.filterwarnings('ignore:torch.ao.quantization is deprecated:DeprecationWarning')
def test_dynamic_quantization_runs_and_is_close(model):
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert linear_names(model) and not linear_names(quantized)
    for batch in (1, 2):
        for size in SIZES:
            got, want = run(quantized, images(batch, size)), run(model, images(batch, size))
            for a, b in zip(got, want):
                error = (a - b).norm() / b.norm()
                assert 0 < error < 0.2


@over(ALL)
def test_copies_and_saved_models_give_the_same(model):
    image = images(2, SIZES[1])
    want = run(model, image)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)]
    for each in copies:
        assert list(each.state_dict()) == list(model.state_dict())
        assert_close(run(each, image), want, 0)


@over(ALL)
@pytest.mark.parametrize('mode', MODES)
def test_autocast_is_close(model, mode):
    image = images(2, SIZES[1])
    want = run(model, image, mode)
    with torch.autocast('cpu', torch.bfloat16):
        got = run(model, image, mode)
    for a, b in zip(got, want):
        assert (a - b).norm() <= 0.2 * b.norm()


@over({name: case for name, case in ALL.items() if case['arch'] is TEST_ARCH})
@pytest.mark.parametrize('size', SIZES, ids=['whole', 'padded'])
def test_second_derivatives(model, size):
    """Torch's fused attention has none on CPUs, its plain one has."""
    model.double()
    image = images(1, size).double().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        loss = sum((out**2).mean() for out in model(image))
        first = torch.autograd.grad(loss, image, create_graph=True)[0]
        direction = torch.ones_like(image)
        second = torch.autograd.grad((first * direction).sum(), image)[0]
        step = 1e-6 * direction
        with torch.enable_grad():
            ahead, behind = (image.detach() + step).requires_grad_(), (image.detach() - step).requires_grad_()
            gradients = [torch.autograd.grad(sum((out**2).mean() for out in model(x)), x)[0] for x in (ahead, behind)]
    assert_close([second], [(gradients[0] - gradients[1]) / 2e-6], 1e-5)


@pytest.fixture
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@over(ALL)
@pytest.mark.usefixtures('_fresh_dynamo')
def test_compiled_blocks_equal_eager(model):
    compiled = copy.deepcopy(model)
    with torch._dynamo.config.patch(recompile_limit=64):
        for stage in compiled.stages:
            for block in stage.blocks:
                block.compile(backend='aot_eager', dynamic=True, fullgraph=True)
        for size in SIZES:
            assert_close(run(compiled, images(2, size)), run(model, images(2, size)))


# Batch, height, width of exported models: whole windows, padded ones, one window, one row of tokens, odd grids.
OTHERS = [(1, 112, 112), (3, 100, 130), (1, 56, 56), (1, 8, 300), (2, 33, 57), (1, 300, 225)]
#: More than one window in each stage, or torch takes the one for a constant.
EXAMPLE = (2, 3, 300, 460)


class Classifier(nn.Module):
    """The backbone under the mean of its last tokens and one linear layer."""

    def __init__(self, backbone: LightViT) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.embed_dims[-1], 5)

    def forward(self, image):
        return (self.fc(self.backbone(image)[-1].mean(dim=1)),)


def _exported(model) -> list:
    """Runs of the exported program and of its ONNX file."""
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    example = torch.randn(*EXAMPLE)
    with torch.no_grad(), torch.fx.experimental._config.patch(backed_size_oblivious=True):
        program = torch.export.export(model, (example,), dynamic_shapes=(dynamic,))
    onnx = torch.onnx.export(program, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(onnx.model_proto.SerializeToString(), providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    # Guards on memory layout refuse sizes (one window, whole windows) that the graph gets right.
    module = program.module(check_guards=False)

    def run_onnx(image):
        return [torch.from_numpy(np.asarray(out)) for out in session.run(None, {name: image.numpy()})]

    return [module, run_onnx]


def _check_export(model, others=OTHERS):
    for exported in _exported(model):
        for batch, *size in others:
            image = images(batch, tuple(size))
            assert_close([out.detach() for out in exported(image)], run(model, image), 1e-4)


@pytest.mark.filterwarnings('ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning')  # torch's own
@over({'short': dict(arch=SHORT, out_indices=(0,))})
def test_exported_programs_and_onnx_equal_eager_at_other_sizes(model):
    _check_export(model if model.out_type == 'featmap' else oracles.scramble(Classifier(model)).eval())


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning')  # torch's own
@over(ALL)
def test_exports_of_all_variants(model):
    _check_export(model, [*OTHERS, (1, 224, 224), (2, 448, 224)])
