# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What inference may do that training may not: keep derived tensors, and call fused CPU kernels.

Nothing here changes a result beyond rounding, and everything here is left alone while a gradient is recorded or
while the model is compiled, traced, transformed or exported: the compiler has fusions of its own, and an exported
model must consist of public operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

T = TypeVar('T')


class EvalCache:
    """A value computed from parameters, kept for as long as these do not change.

    It is dropped by :meth:`clear`, and computed anew when one of the sources was written to, replaced, moved or cast.
    A write through ``.data`` leaves no trace in torch, so modules clear it whenever they change mode. It is neither
    copied nor saved with its module.
    """

    def __init__(self) -> None:
        self._entry: tuple[tuple, Any] | None = None

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
        if not _is_plain_inference(sources[0]) or any(source.is_inference() for source in sources):
            return compute()
        if sources[0].is_cuda and torch.cuda.is_current_stream_capturing():
            return compute()  # a graph must not hold memory that this cache may give back
        key = (variant, *((s.data_ptr(), s._version, s.dtype, s.device) for s in sources))
        entry = self._entry  # read once: another thread may replace it
        if entry is None or entry[0] != key:
            entry = self._entry = (key, compute())
        return entry[1]


def linear_gelu(layer: nn.Linear, x: Tensor) -> Tensor:
    """``GELU(layer(x))``, exact; on a CPU in inference one oneDNN kernel."""
    if _has_onednn(x, layer.weight) and _is_bare(layer):
        return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, 'gelu', [], 'none')
    return F.gelu(layer(x))


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer(x)``; on a CPU in inference by oneDNN, which is ahead of the default where the input is long."""
    if _has_onednn(x, layer.weight) and _is_bare(layer):
        return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, 'none', [], '')
    return layer(x)


def conv_gelu(conv: nn.Conv2d, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """``GELU`` of the convolution ``conv`` with another weight and bias; on a CPU one oneDNN kernel."""
    if _has_onednn(x, weight):
        return torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups, 'gelu', [], 'none'
        )
    return F.gelu(F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups))


def can_fold(layers: nn.Sequential) -> bool:
    """Whether the BatchNorms of convolution, norm, activation triples may be folded into the convolutions."""
    return _is_plain_inference(next(layers.parameters())) and all(
        _is_bare(layer) and not (isinstance(layer, nn.BatchNorm2d) and layer.training) for layer in layers
    )


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution without bias that equals ``norm(conv(x))`` in eval mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return conv.weight * scale.view(-1, 1, 1, 1).to(conv.weight.dtype), norm.bias - norm.running_mean * scale


def _is_plain_inference(x: Tensor) -> bool:
    """No gradient, compiler, tracer or transform, and no mode that watches operators, such as a FLOP counter."""
    return not (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or x.is_meta
        or _get_current_dispatch_mode() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


def _has_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        _is_plain_inference(x)
        and x.device.type == 'cpu'
        and x.dtype == weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and not _is_autocasting()
    )


def _is_autocasting() -> bool:
    if hasattr(torch, 'get_autocast_dtype'):  # since torch 2.4, like the argument
        return torch.is_autocast_enabled('cpu')
    return torch.is_autocast_cpu_enabled()


def _is_bare(layer: nn.Module) -> bool:
    """Whether calling ``layer`` does what torch's class does: no hook to run, no subclass, no changed forward."""
    return (
        type(layer) in (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.GELU)
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and 'forward' not in layer.__dict__
    )
