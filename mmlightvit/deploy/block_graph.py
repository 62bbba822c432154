# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A LightViT block in ONNX, written out by hand: what a runtime on a CPU does fastest, and nothing to be traced.

Tracing fourteen blocks that are all alike is most of an export's time, and the graph that comes of it moves tokens
about between operators. Here queries, keys and values come out of products of their own, so that each is transposed
once and serves windows and whole image alike, and a reshape keeps what it does not change.

Shape legend: B batch, P image tokens in window order, A tokens of a window, T global tokens, C channels, N heads,
D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.tape import Tape
from torch import Tensor

_HIDDEN = -1e30  # added to the score of a padded key
_END = np.iinfo(np.int64).max
#: The layers and the parts of their rows that make keys.
_KEYS = {('attn.qkv', 1), ('attn.kv_global', 0)}


def write_block(block: Any, num_tokens: int, x: ir.Value, real: ir.Value | None, name: str) -> tuple[Tape, ir.Value]:
    """The nodes of a block.

    Args:
        block: A :class:`~mmlightvit.models.backbones.lightvit.LightViTBlock` in eval mode.
        num_tokens: Global tokens T.
        x: Tokens (B, P + T, C), global tokens last.
        real: (P, 1), 1 where a token is in the grid and 0 where it pads; None where nothing pads.
        name: Of the block, for its weights.

    Returns:
        The nodes, and the tokens that come out: (B, P + T, C), or (B, P, C) where the block drops its global tokens.
    """
    graph = _BlockGraph(block, num_tokens, real, name)
    return graph.tape, graph.block(x)


class _BlockGraph:
    """One block while it is written down."""

    def __init__(self, block: Any, num_tokens: int, real: ir.Value | None, name: str) -> None:
        self.tape, self.name, self.real, self.module, self.num_tokens = Tape(), name, real, block, num_tokens
        self.weights: dict[str, ir.Value] = {}
        self.num_heads = block.attn.num_heads
        self.has_tokens = block.attn.kv_global is not None

    # -- the block ----------------------------------------------------------------------------------------------------
    def block(self, x: ir.Value) -> ir.Value:
        image, tokens = self.attention(self.norm(x, 'norm1'))
        if tokens is not None and self.module.keep_global:
            image = self.op('Concat', [image, tokens], axis=1)
        elif tokens is not None:
            x = self.image_of(x)
        x = self.op('Add', [x, self.linear(image, 'attn.proj')])
        hidden = self.op('Gelu', [self.linear(self.norm(x, 'norm2'), 'ffn.fc1')])
        y = self.linear(hidden, 'ffn.fc2')
        return self.op('Add', [x, y if self.module.ffn.attn is None else self.gated(y)])

    def attention(self, x: ir.Value) -> tuple[ir.Value, ir.Value | None]:
        """Eq. 1-4 before the output projection: image tokens (B, P, C), global tokens (B, T, C)."""
        attn = self.module.attn
        N, A = self.num_heads, attn.window**2
        image = self.image_of(x) if self.has_tokens else x
        if self.real is not None:
            image = self.op('Mul', [image, self.real])  # padded tokens are zero before the projection
        q, k, v = (self.heads(self.linear(image, 'attn.qkv', part)) for part in range(3))  # (B, N, P, D)
        D = attn.qkv.in_features // N
        # Windows count as heads, since runtimes join a transpose to a product of four dimensions.
        q_window, k_window, v_window = (self.reshape(part, [0, -1, A, D]) for part in (q, k, v))  # (B, N W, A, D)
        scores = self.reshape(self.op('MatMul', [q_window, self.transposed(k_window)]), [0, N, -1, A, A])
        bias = self.weight('attn.position_bias', attn.position_bias().transpose(0, 1))  # (N, 1, A, A)
        scores = self.reshape(self.op('Softmax', [self.op('Add', [scores, bias])], axis=-1), [0, -1, A, A])
        out = self.reshape(self.op('MatMul', [scores, v_window]), [0, N, -1, D])  # Eq. 1
        if not self.has_tokens:
            return self.merge(out), None
        q_global = self.heads(self.linear(self.tokens_of(x), 'attn.qkv', 0))  # (B, N, T, D)
        scores = self.op('MatMul', [q_global, self.transposed(k)])
        if self.real is not None:
            scores = self.op('Add', [scores, self.hiding(self.real)])
        tokens = self.merge(self.attend(scores, v))  # Eq. 2
        k_global, v_global = (self.heads(self.linear(tokens, 'attn.kv_global', part)) for part in range(2))
        broadcast = self.attend(self.op('MatMul', [q, self.transposed(k_global)]), v_global)  # Eq. 3
        return self.merge(self.op('Add', [out, broadcast])), tokens  # Eq. 4

    def gated(self, y: ir.Value) -> ir.Value:
        """Bi-dimensional attention; its mean leaves padded tokens out."""
        gate = self.module.ffn.attn
        n = self.norm(y, 'ffn.attn.norm')
        g = self.op('Gelu', [self.linear(self.mean(n), 'ffn.attn.global_reduce')])
        factors = []
        if gate.channel_select is not None:
            factors.append(self.op('Sigmoid', [self.linear(g, 'ffn.attn.channel_select')]))  # (B, 1, C)
        if gate.spatial_select is not None:
            # spatial_select([l, g]) in two products: nothing is expanded to all tokens.
            local, general = gate.spatial_select.weight.chunk(2, dim=1)
            l_part = self.op('Gelu', [self.linear(n, 'ffn.attn.local_reduce')])
            l_part = self.op('MatMul', [l_part, self.weight('ffn.attn.spatial_select.local', local.t())])
            g_part = self.op('MatMul', [g, self.weight('ffn.attn.spatial_select.global', general.t())])
            g_part = self.op('Add', [g_part, self.weight('ffn.attn.spatial_select.bias', gate.spatial_select.bias)])
            factors.append(self.op('Sigmoid', [self.op('Add', [l_part, g_part])]))  # (B, P + T, 1)
        return self.op('Mul', [y, factors[0] if len(factors) == 1 else self.op('Mul', factors)])

    # -- its parts ----------------------------------------------------------------------------------------------------
    def norm(self, x: ir.Value, name: str) -> ir.Value:
        layer = self.module.get_submodule(name)
        weights = [self.weight(f'{name}.weight', layer.weight), self.weight(f'{name}.bias', layer.bias)]
        return self.op('LayerNormalization', [x, *weights], axis=-1, epsilon=layer.eps)

    def linear(self, x: ir.Value, name: str, part: int | None = None) -> ir.Value:
        """A linear layer, or the ``part``-th C rows of one.

        Queries come out scaled for all three attentions, and keys without their bias, which adds the same to all of a
        query's scores.
        """
        layer, is_key = self.module.get_submodule(name), (name, part) in _KEYS
        weight, bias = layer.weight.detach(), layer.bias.detach()
        if part is not None:
            C = layer.in_features
            scale = (C // self.num_heads) ** -0.5 if name == 'attn.qkv' and part == 0 else 1.0
            weight, bias = (value[part * C : (part + 1) * C] * scale for value in (weight, bias))
            name = f'{name}.{part}'
        y = self.op('MatMul', [x, self.weight(f'{name}.weight', weight.t())])
        return y if is_key else self.op('Add', [y, self.weight(f'{name}.bias', bias)])

    def attend(self, scores: ir.Value, v: ir.Value) -> ir.Value:
        return self.op('MatMul', [self.op('Softmax', [scores], axis=-1), v])

    def heads(self, x: ir.Value) -> ir.Value:
        """(B, L, C) -> (B, N, L, D)."""
        return self.op('Transpose', [self.reshape(x, [0, 0, self.num_heads, -1])], perm=[0, 2, 1, 3])

    def transposed(self, x: ir.Value) -> ir.Value:
        """(..., L, D) -> (..., D, L), of four dimensions."""
        return self.op('Transpose', [x], perm=[0, 1, 3, 2])

    def merge(self, x: ir.Value) -> ir.Value:
        """(B, N, L, D) -> (B, L, C)."""
        return self.reshape(self.op('Transpose', [x], perm=[0, 2, 1, 3]), [0, 0, -1])

    def image_of(self, x: ir.Value) -> ir.Value:
        """(B, P + T, C) -> (B, P, C)."""
        return self.op('Slice', [x, self.numbers(0), self.numbers(-self.num_tokens), self.numbers(1)])

    def tokens_of(self, x: ir.Value) -> ir.Value:
        """(B, P + T, C) -> (B, T, C)."""
        return self.op('Slice', [x, self.numbers(-self.num_tokens), self.numbers(_END), self.numbers(1)])

    def hiding(self, real: ir.Value) -> ir.Value:
        """What is added to the scores of keys: nothing to real ones, (P,)."""
        padded = self.op('Sub', [self.weight('one', torch.ones(())), real])
        scaled = self.op('Mul', [padded, self.weight('hidden', torch.tensor(_HIDDEN))])
        return self.reshape(scaled, [-1])

    def mean(self, n: ir.Value) -> ir.Value:
        """Mean over real tokens, (B, 1, C)."""
        if self.real is None:
            return self.op('ReduceMean', [n, self.numbers(1)], keepdims=1)
        weights = self.reshape(self.real, [1, -1])
        if self.has_tokens and self.module.keep_global:
            weights = self.op('Concat', [weights, self.weight('ones', torch.ones(1, self.num_tokens))], axis=1)
        total = self.op('ReduceSum', [weights, self.numbers(1)], keepdims=1)
        return self.op('MatMul', [self.op('Div', [weights, total]), n])

    # -- nodes --------------------------------------------------------------------------------------------------------
    def op(self, name: str, inputs: Sequence[ir.Value], **attributes: Any) -> ir.Value:
        return self.tape.op(name, inputs, attributes)

    def reshape(self, x: ir.Value, shape: list[int]) -> ir.Value:
        return self.op('Reshape', [x, self.numbers(*shape)])

    def numbers(self, *values: int) -> ir.Value:
        return self.tape.op('Constant', [], {'value_ints': values})

    def weight(self, name: str, value: Tensor) -> ir.Value:
        if name not in self.weights:
            array = np.ascontiguousarray(value.detach().numpy())
            self.weights[name] = self.tape.initializer(ir.tensor(array, name=f'{self.name}.{name}'))
        return self.weights[name]
