# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Layers with a backward pass of their own, for training on a CPU in float32.

Each gives what the torch operators named in it give, to the same accuracy or better, in fewer passes over memory.
Where torch has to look into a step (a compiler, a tracer, a transform, a mode, autocast, a layer with hooks), its own
operators run. Nothing here can be differentiated twice; torch says so when it is asked to.

Shape legend: B batch, L image tokens, T global tokens, C channels, N heads, D head width, A tokens of a window.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmlightvit.models.layers.kernels import is_bare, is_plain_cpu_training, linear, linear_gelu


def mlp(fc1: nn.Linear, fc2: nn.Linear, x: Tensor) -> Tensor:
    """``fc2(GELU(fc1(x)))``, GELU being exact.

    Shape:
        (..., C) -> (..., C')
    """
    if is_plain_cpu_training(x, fc1.weight) and is_bare(fc1) and is_bare(fc2):
        return _MLP.apply(x, fc1.weight, fc1.bias, fc2.weight, fc2.bias)
    return linear(fc2, linear_gelu(fc1, x))


class _MLP(torch.autograd.Function):
    """Products by oneDNN where it is ahead, and the derivative of GELU written over the gradient it is applied to."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        hidden = _product(rows, w1, b1)
        activated = F.gelu(hidden)
        ctx.save_for_backward(rows, hidden, activated, w1, w2)
        return _product(activated, w2, b2).unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, hidden, activated, w1, w2 = ctx.saved_tensors
        needs_x, needs_w1, needs_b1, needs_w2, needs_b2 = ctx.needs_input_grad
        shape, grad = grad.shape[:-1], grad.flatten(0, -2)
        grad_w2 = grad.t() @ activated if needs_w2 else None
        grad_b2 = grad.sum(0) if needs_b2 else None
        if not (needs_x or needs_w1 or needs_b1):
            return None, None, None, grad_w2, grad_b2
        grad = _product(grad, w2.t())
        torch.ops.aten.gelu_backward.grad_input(grad, hidden, grad_input=grad)
        grad_x = _product(grad, w1.t()).unflatten(0, shape) if needs_x else None
        return grad_x, grad.t() @ rows if needs_w1 else None, grad.sum(0) if needs_b1 else None, grad_w2, grad_b2


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``; for ``weight.T @ grad`` in the backward pass torch's default is the faster one."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')


def can_attend(x: Tensor, kv_global: nn.Module | None) -> bool:
    """Whether :func:`attend` may be used for tokens ``x``."""
    return isinstance(kv_global, nn.Linear) and is_bare(kv_global) and is_plain_cpu_training(x, kv_global.weight)


def attend(qkv: Tensor, num_global: int, bias: Tensor, kv_global: nn.Linear, real_keys: Tensor | None = None) -> Tensor:
    """Everything between ``qkv`` and ``proj`` of an :class:`AggregatedAttention`.

    Args:
        qkv: Queries, keys and values (B, L + T, 3 C), image tokens first and in windows; keys and values of the
            global tokens are not used.
        num_global: Global tokens T, >= 1.
        bias: Position bias (1, N, A, A).
        kv_global: The layer of that name.
        real_keys: None, or (1, 1, 1, L) booleans, true for image tokens that take part in the aggregation.

    Returns:
        (B, L + T, C)
    """
    return _Attention.apply(qkv, num_global, bias, kv_global.weight, kv_global.bias, real_keys)


class _Attention(torch.autograd.Function):
    """Each of queries, keys and values is copied out of ``qkv`` once, and their gradients are copied back once.

    Batch and heads are one dimension of all tensors (B N, tokens, D). Of the three softmaxes ``p``, one for each of
    Eq. 1 to 3 of :class:`AggregatedAttention`, the backward pass needs nothing but the values. ``d_x`` is the
    gradient of ``x``.
    """

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, T: int, bias: Tensor, weight: Tensor, weight_bias: Tensor, real_keys: Tensor | None
    ) -> Tensor:
        B, M, width = qkv.shape
        L, C = M - T, width // 3
        N, A = bias.shape[1], bias.shape[-1]
        D = C // N
        q, k, v = parts = qkv[:, :L].view(B, L, 3, N, D).permute(2, 0, 3, 1, 4).contiguous().view(3, B * N, L, D)
        q.mul_(D**-0.5)
        q_global = _split_heads(qkv[:, L:, :C] * D**-0.5, N)

        scores = torch.bmm(_windows(q, A), _windows(k, A).transpose(1, 2)).view(B, N, -1, A, A)
        p_local = scores.add_(bias.view(N, 1, A, A)).softmax(-1).view(-1, A, A)
        mixed = torch.bmm(p_local, _windows(v, A)).view(B * N, L, D)

        scores = torch.bmm(q_global, k.transpose(1, 2))
        if real_keys is not None:
            scores.masked_fill_(~real_keys.view(1, 1, L), -torch.inf)
        p_aggregate = scores.softmax(-1)
        aggregated = _join_heads(torch.bmm(p_aggregate, v), B)

        # Scores are (keys, queries) here: CPU kernels work along the last dimension, so the long one belongs there.
        kv_global = F.linear(aggregated, weight, weight_bias)
        k_global, v_global = (_split_heads(part, N) for part in kv_global.chunk(2, dim=-1))
        p_broadcast = torch.bmm(k_global, q.transpose(1, 2)).softmax(1)
        mixed.baddbmm_(p_broadcast.transpose(1, 2), v_global)

        ctx.save_for_backward(
            parts, q_global, p_local, p_aggregate, p_broadcast, aggregated, k_global, v_global, weight
        )
        ctx.batch = B
        return torch.cat([_join_heads(mixed, B), aggregated], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        parts, q_global, p_local, p_aggregate, p_broadcast, aggregated, k_global, v_global, weight = ctx.saved_tensors
        q, k, v = parts
        B, (heads, L, D), A = ctx.batch, q.shape, p_local.shape[-1]
        N, T = heads // B, q_global.shape[1]
        d_mixed = _split_heads(grad[:, :L], N)
        d_parts = q.new_empty(3, heads, L, D)
        d_q, d_k, d_v = d_parts

        d_scores = _softmax_backward(torch.bmm(v_global, d_mixed.transpose(1, 2)), p_broadcast, 1)
        torch.bmm(d_scores.transpose(1, 2), k_global, out=d_q)
        d_kv_global = torch.cat(
            [_join_heads(torch.bmm(d_scores, q), B), _join_heads(torch.bmm(p_broadcast, d_mixed), B)], dim=-1
        )
        d_aggregated = _split_heads(d_kv_global @ weight + grad[:, L:], N)
        d_kv_global = d_kv_global.flatten(0, 1)

        d_scores = _softmax_backward(torch.bmm(d_aggregated, v.transpose(1, 2)), p_aggregate, -1)
        torch.bmm(p_aggregate.transpose(1, 2), d_aggregated, out=d_v)
        torch.bmm(d_scores.transpose(1, 2), q_global, out=d_k)
        d_q_global = _join_heads(torch.bmm(d_scores, k), B)

        d_mixed = _windows(d_mixed, A)
        _windows(d_v, A).baddbmm_(p_local.transpose(1, 2), d_mixed)
        d_scores = _softmax_backward(torch.bmm(d_mixed, _windows(v, A).transpose(1, 2)), p_local, -1)
        _windows(d_k, A).baddbmm_(d_scores.transpose(1, 2), _windows(q, A))
        _windows(d_q, A).baddbmm_(d_scores, _windows(k, A))
        d_bias = d_scores.view(B, N, -1, A, A).sum(2).sum(0, keepdim=True)

        # Queries were scaled.
        d_q.mul_(D**-0.5)
        d_qkv = grad.new_empty(B, L + T, 3, N, D)
        d_qkv[:, :L] = d_parts.view(3, B, N, L, D).permute(1, 3, 0, 2, 4)
        d_qkv[:, L:, 0] = d_q_global.view(B, T, N, D) * D**-0.5
        d_qkv[:, L:, 1:] = 0
        return (
            d_qkv.flatten(2),
            None,
            d_bias,
            d_kv_global.t() @ aggregated.flatten(0, 1),
            d_kv_global.sum(0),
            None,
        )


def _split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, tokens, C) -> (B N, tokens, D), copied."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2).contiguous().flatten(0, 1)


def _join_heads(x: Tensor, batch: int) -> Tensor:
    """(B N, tokens, D) -> (B, tokens, C), copied."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2)


def _windows(x: Tensor, tokens: int) -> Tensor:
    """(B N, L, D) -> (B N windows, A, D), the same memory."""
    return x.view(-1, tokens, x.shape[-1])


def _softmax_backward(grad: Tensor, output: Tensor, dim: int) -> Tensor:
    return torch.ops.aten._softmax_backward_data(grad, output, dim, output.dtype)


def can_batch_norm(norm: nn.Module, x: Tensor) -> bool:
    """Whether :func:`batch_norm` may stand in for ``norm``."""
    return (
        is_bare(norm)
        and isinstance(norm, nn.BatchNorm2d)
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and is_plain_cpu_training(x, norm.weight)
    )


def batch_norm(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """``norm(x)`` in training mode for an image in channels last, running statistics included.

    torch's own kernel for this layout sums each channel in one go, in float32: off by 2e-4 at 64 images. Here each
    column of the image has statistics of its own first, which are then put together.

    Shape:
        (B, C, H, W) -> (B, C, H, W), both in channels last
    """
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    if x.numel() == x.shape[1]:
        return norm(x)  # one value per channel, which torch refuses
    norm.num_batches_tracked.add_(1)
    return _BatchNorm.apply(x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps)


class _BatchNorm(torch.autograd.Function):
    r"""With :math:`\hat x = (x - \mu) / \sigma` over n values: the usual forward pass, and

    .. math:: dx = \gamma / \sigma (dy - \sum dy / n - \hat x \sum dy \hat x / n)
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, momentum: float, eps: float
    ) -> Tensor:
        count = x.numel() // x.shape[1]
        by_column = torch.batch_norm_update_stats(_lines(x), None, None, 0.0)
        means, variances = (s.view(-1, x.shape[1]) for s in by_column)
        batch_mean = means.mean(0)
        batch_var = variances.mean(0) + (means - batch_mean).square().mean(0)
        mean.lerp_(batch_mean, momentum)
        var.lerp_(batch_var * (count / (count - 1)), momentum)
        ctx.save_for_backward(x, weight, batch_mean, batch_var + eps)
        return F.batch_norm(x, batch_mean, batch_var, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        (_, C, _, W), count = x.shape, x.numel() // x.shape[1]
        x_lines, grad_lines = _lines(x), _lines(grad)
        # Of the eval mode's backward pass: its gradients of weight and bias are the two sums, here of each column.
        _, *sums = torch.ops.aten.native_batch_norm_backward(
            grad_lines, x_lines, None, mean.repeat(W), var.repeat(W), None, None, False, 0.0, [False, True, True]
        )
        grad_weight, grad_bias = (s.view(W, C).sum(0) for s in sums)
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, grad_bias, None, None, None, None
        inverse = var.rsqrt()
        scale = weight * inverse
        slope = scale * inverse * grad_weight / -count
        offset = scale * grad_bias / -count - mean * slope
        grad_x = torch.addcmul(offset.repeat(W), x_lines, slope.repeat(W)).addcmul_(grad_lines, scale.repeat(W))
        grad_x = grad_x.view(x.shape[0], -1, W, C).permute(0, 3, 1, 2)
        return grad_x, grad_weight, grad_bias, None, None, None, None


def _lines(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B H, W C), without a copy where ``x`` is in channels last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[3] * x.shape[1])
