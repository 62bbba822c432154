# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What inference may do that training may not: keep derived tensors, and call fused CPU kernels.

Nothing here changes a result beyond rounding, and everything here is left alone while a gradient is recorded or
while the model is traced, transformed or exported: an exported model must consist of public operators. A compiled
model calls the same CPU kernels, with packed weights, and computes the other derived tensors in its graphs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

T = TypeVar('T')


def is_exporting() -> bool:
    """Whether torch.export is at work. Before torch 2.7 no one can tell, and an export needs aligned sizes."""
    # Not torch.compiler.is_exporting(), which torch.compile takes for true.
    return getattr(torch.compiler, '_is_exporting_flag', False)


class EvalCache:
    """A value computed from parameters, kept for as long as these do not change.

    It is dropped by :meth:`clear`, and computed anew when one of the sources was written to, replaced, moved or cast.
    A write through ``.data`` leaves no trace in torch, so modules clear it whenever they change mode. It is neither
    copied nor saved with its module.
    """

    def __init__(self) -> None:
        self._entry: tuple[tuple, Any, list[Tensor]] | None = None

    def __reduce__(self) -> tuple:
        return (EvalCache, ())

    def clear(self) -> None:
        """Forget the value."""
        self._entry = None

    def get(self, sources: Sequence[Tensor], variant: object, compute: Callable[[], T]) -> T:
        """The value of ``compute()``, from the cache where that is safe.

        Args:
            sources: The tensors that ``compute`` reads.
            variant: What the value depends on besides, comparable; for example its dtype.
            compute: Computes the value.
        """
        if not is_plain_inference(sources[0]) or any(source.is_inference() for source in sources):
            return compute()
        if sources[0].is_cuda and torch.cuda.is_current_stream_capturing():
            return compute()  # a graph must not hold memory that this cache may give back
        key = (variant, *((s.data_ptr(), s._version, s.dtype, s.device) for s in sources))
        entry = self._entry  # read once: another thread may replace it
        if entry is None or entry[0] != key:
            # The memory is kept with it, or other data could come to lie at the same address.
            entry = self._entry = (key, compute(), [s.detach() for s in sources])
        return entry[1]


def linear_gelu(layer: nn.Linear, x: Tensor) -> Tensor:
    """``GELU(layer(x))``, exact; on a CPU in inference one oneDNN kernel."""
    if _has_onednn(x, layer.weight) and is_bare(layer):
        return _onednn_linear()(x, layer.weight, layer.bias, 'gelu')
    return F.gelu(layer(x))


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer(x)``; a large one on a CPU in inference by oneDNN with a weight in oneDNN's own layout."""
    if _is_large(x, layer.weight) and _has_onednn(x, layer.weight) and is_bare(layer):
        return _onednn_linear()(x, layer.weight, layer.bias, 'none')
    return layer(x)


def gelu(x: Tensor) -> Tensor:
    """``GELU(x)``, exact; of a few values on a CPU in inference without the 20 us of a call of oneDNN."""
    if x.numel() < 2**12 and x.is_cpu and x.dtype == torch.float32 and is_plain_inference(x):
        return x * torch.special.ndtr(x)
    return F.gelu(x)


def _is_large(x: Tensor, weight: Tensor) -> bool:
    """Whether a product is worth the 15 to 50 us that setting up a call of oneDNN takes.

    Always true in a compiled model: another answer would tie the graph to a size.
    """
    return torch.compiler.is_compiling() or x.numel() * weight.shape[0] >= _LARGE


def conv_gelu(conv: nn.Conv2d, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """``GELU`` of the convolution ``conv`` with another weight and bias; on a CPU one oneDNN kernel."""
    if _has_onednn(x, weight):
        run = torch.ops.mmlightvit.conv_gelu if torch.compiler.is_compiling() else _run_conv_gelu
        assert not isinstance(conv.padding, str)
        return run(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    return F.gelu(F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups))


def forget_packed(module: nn.Module) -> None:
    """Drop what :func:`linear` and :func:`linear_gelu` keep of a module's weights."""
    for parameter in module.parameters():
        _PACKED.pop(id(parameter), None)


# The kernels, and the same as operators of our own: the compiler takes these as they are, where it would ask of
# oneDNN's operators that their weights are constants.

_HAS_ONEDNN = torch.backends.mkldnn.is_available()
_LARGE = 2**23  # multiply-adds


class _Packed(NamedTuple):
    owner: weakref.ref[Tensor]
    stamp: tuple[int, int]  # address and version of the weight
    packed: Tensor
    memory: Tensor  # keeps the address from being given out again


_PACKED: dict[int, _Packed] = {}
_LIBRARY = torch.library.Library('mmlightvit', 'FRAGMENT')
_LIBRARY.define('linear(Tensor x, Tensor weight, Tensor? bias, str activation) -> Tensor')
_LIBRARY.define(
    'conv_gelu(Tensor x, Tensor weight, Tensor bias, int[] stride, int[] padding, int[] dilation, int groups) -> Tensor'
)


def _onednn_linear() -> Callable[[Tensor, Tensor, Tensor | None, str], Tensor]:
    return torch.ops.mmlightvit.linear if torch.compiler.is_compiling() else _run_linear


@torch.library.impl(_LIBRARY, 'linear', 'CPU')
def _run_linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    algorithm = 'none' if activation == 'gelu' else ''
    return torch.ops.mkldnn._linear_pointwise(x, _packed(weight), bias, activation, [], algorithm)


@torch.library.impl(_LIBRARY, 'linear', 'Meta')
def _shape_linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@torch.library.impl(_LIBRARY, 'conv_gelu', 'CPU')
def _run_conv_gelu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, stride, dilation, groups, 'gelu', [], 'none'
    )


@torch.library.impl(_LIBRARY, 'conv_gelu', 'Meta')
def _shape_conv_gelu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups).contiguous(memory_format=torch.channels_last)


def _packed(weight: Tensor) -> Tensor:
    """``weight`` in the layout of oneDNN's products, kept for as long as it does not change."""
    if weight.is_inference():
        return weight  # nobody can tell whether it was written to
    key = id(weight)
    entry = _PACKED.get(key)
    if entry is None or entry.owner() is not weight or entry.stamp != (weight.data_ptr(), weight._version):
        entry = _PACKED[key] = _Packed(
            # Gone with its owner: another tensor may get the same id.
            weakref.ref(weight, lambda _: _PACKED.pop(key, None)),
            (weight.data_ptr(), weight._version),
            torch.ops.mkldnn._reorder_linear_weight(weight.detach()),
            weight.detach(),
        )
    return entry.packed


def can_fold(layers: nn.Sequential) -> bool:
    """Whether the BatchNorms of convolution, norm, activation triples may be folded into the convolutions."""
    return (is_plain_inference(next(layers.parameters())) or _is_compiled_inference()) and all(
        is_bare(layer) and not (isinstance(layer, nn.BatchNorm2d) and layer.training) for layer in layers
    )


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution without bias that equals ``norm(conv(x))`` in eval mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return conv.weight * scale.view(-1, 1, 1, 1).to(conv.weight.dtype), norm.bias - norm.running_mean * scale


def is_plain_cpu_training(x: Tensor, weight: Tensor) -> bool:
    """Whether a backward pass of our own may take the place of torch's, in float32 on a CPU with oneDNN."""
    return (
        torch.is_grad_enabled()
        and (x.requires_grad or weight.requires_grad)
        and forward_ad._current_level < 0  # no derivative is carried forward
        and _is_float_on_cpu(x, weight)
        and _is_plain(x)
    )


def is_plain_inference(x: Tensor) -> bool:
    """Whether no gradient is recorded and nobody looks into the model: see the module's docstring."""
    return not torch.is_grad_enabled() and _is_plain(x)


def _is_plain(x: Tensor) -> bool:
    """No compiler, tracer or transform, and no mode that watches operators, such as a FLOP counter."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or x.is_meta
        or _get_current_dispatch_mode() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


def _is_compiled_inference() -> bool:
    return torch.compiler.is_dynamo_compiling() and not is_exporting() and not torch.is_grad_enabled()


def _has_onednn(x: Tensor, weight: Tensor) -> bool:
    return _is_float_on_cpu(x, weight) and (is_plain_inference(x) or _is_compiled_inference())


def _is_float_on_cpu(x: Tensor, weight: Tensor) -> bool:
    return x.is_cpu and x.dtype == weight.dtype == torch.float32 and _HAS_ONEDNN and not _is_autocasting()


if hasattr(torch, 'get_autocast_dtype'):  # since torch 2.4, like the argument

    def _is_autocasting() -> bool:
        return torch.is_autocast_enabled('cpu')
else:
    _is_autocasting = torch.is_autocast_cpu_enabled


def is_bare(layer: nn.Module) -> bool:
    """Whether calling ``layer`` does what torch's class does: no hook to run, no subclass, no changed forward."""
    return (
        type(layer) in (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.GELU)
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and 'forward' not in layer.__dict__
    )
