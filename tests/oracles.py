# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The model once more, element by element, to hold the package's form against.

``loop_*``: one layer each, and the backbone of them, in float64, written from docs and paper, as slow as it is plain.
:func:`scramble` gives a model values with which no term can hide.

Shape legend: B batch, H W grid height and width, L = H * W image tokens, T global tokens, C channels, N heads,
D head width, S window side.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn

# --------------------------------------------------------------------------------------- layers, element by element


def loop_relative_position_index(window: int) -> torch.Tensor:
    """Row of the bias table for each (query, key): (dy + S - 1) * (2 S - 1) + dx + S - 1, query minus key."""
    index = torch.zeros(window**2, window**2, dtype=torch.long)
    positions = list(itertools.product(range(window), range(window)))
    for q, (qy, qx) in enumerate(positions):
        for k, (ky, kx) in enumerate(positions):
            index[q, k] = (qy - ky + window - 1) * (2 * window - 1) + (qx - kx + window - 1)
    return index


def loop_softmax_attention(q, k, v, bias=None):
    """One query against a list of keys: q (D,), k (K, D), v (K, D), bias (K,)."""
    scores = [float(q @ k[i]) / math.sqrt(len(q)) + (0.0 if bias is None else float(bias[i])) for i in range(len(k))]
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    return sum(w * v[i] for i, w in enumerate(weights)) / sum(weights)


def loop_aggregated_attention(attn, image_BHWC, tokens_BTC):
    """Eq. 1-4 for an ``AggregatedAttention``: normed tokens in, (B, H, W, C) and (B, T, C) out, float64.

    A window at the border is filled up with zero tokens. Their keys and values are the bias of the projection,
    and every query of the window sees them; the aggregation does not.
    """
    p = {name: value.detach().double() for name, value in attn.state_dict().items()}
    image_BHWC = image_BHWC.detach().double()
    B, H, W, C = image_BHWC.shape
    N, S = attn.num_heads, attn.window
    D = C // N
    table, index = p['relative_position_bias_table'], loop_relative_position_index(S)
    q_weight, k_weight, v_weight = p['qkv.weight'][:C], p['qkv.weight'][C : 2 * C], p['qkv.weight'][2 * C :]
    q_bias, k_bias, v_bias = p['qkv.bias'][:C], p['qkv.bias'][C : 2 * C], p['qkv.bias'][2 * C :]
    out_image = torch.zeros(B, H, W, C, dtype=torch.float64)
    out_tokens = None if tokens_BTC is None else torch.zeros(*tokens_BTC.shape, dtype=torch.float64)

    def token(b, y, x):
        return image_BHWC[b, y, x] if y < H and x < W else torch.zeros(C, dtype=torch.float64)

    for b in range(B):
        mixed = torch.zeros(H, W, C, dtype=torch.float64)
        for y, x, n in itertools.product(range(H), range(W), range(N)):
            head = slice(n * D, (n + 1) * D)
            q = (q_weight @ image_BHWC[b, y, x] + q_bias)[head]
            y0, x0 = y // S * S, x // S * S
            cells = [token(b, y0 + dy, x0 + dx) for dy, dx in itertools.product(range(S), range(S))]
            k = torch.stack([(k_weight @ cell + k_bias)[head] for cell in cells])
            v = torch.stack([(v_weight @ cell + v_bias)[head] for cell in cells])
            bias = table[index[(y - y0) * S + (x - x0)], n]
            mixed[y, x, head] = loop_softmax_attention(q, k, v, bias)
        if tokens_BTC is not None:
            tokens = tokens_BTC[b].detach().double()
            real = [image_BHWC[b, y, x] for y, x in itertools.product(range(H), range(W))]
            aggregated = torch.zeros(len(tokens), C, dtype=torch.float64)
            for t, n in itertools.product(range(len(tokens)), range(N)):
                head = slice(n * D, (n + 1) * D)
                k = torch.stack([(k_weight @ cell + k_bias)[head] for cell in real])
                v = torch.stack([(v_weight @ cell + v_bias)[head] for cell in real])
                aggregated[t, head] = loop_softmax_attention((q_weight @ tokens[t] + q_bias)[head], k, v)
            kv = torch.stack([p['kv_global.weight'] @ row + p['kv_global.bias'] for row in aggregated])
            for y, x, n in itertools.product(range(H), range(W), range(N)):
                head = slice(n * D, (n + 1) * D)
                q = (q_weight @ image_BHWC[b, y, x] + q_bias)[head]
                mixed[y, x, head] += loop_softmax_attention(q, kv[:, :C][:, head], kv[:, C:][:, head])
            for t in range(len(tokens)):
                out_tokens[b, t] = p['proj.weight'] @ aggregated[t] + p['proj.bias']
        for y, x in itertools.product(range(H), range(W)):
            out_image[b, y, x] = p['proj.weight'] @ mixed[y, x] + p['proj.bias']
    return out_image, out_tokens


def loop_vanilla_attention(attn, x_BLC):
    """An ``AggregatedAttention`` without windows: every image token against every image token, float64."""
    p = {name: value.detach().double() for name, value in attn.state_dict().items()}
    B, L, C = x_BLC.shape
    D = C // attn.num_heads
    out = torch.zeros(B, L, C, dtype=torch.float64)
    for b in range(B):
        qkv = torch.stack([p['qkv.weight'] @ row + p['qkv.bias'] for row in x_BLC[b].detach().double()])
        mixed = torch.zeros(L, C, dtype=torch.float64)
        for i, n in itertools.product(range(L), range(attn.num_heads)):
            q, k, v = (qkv[:, part * C + n * D : part * C + (n + 1) * D] for part in range(3))
            mixed[i, n * D : (n + 1) * D] = loop_softmax_attention(q[i], k, v)
        for i in range(L):
            out[b, i] = p['proj.weight'] @ mixed[i] + p['proj.bias']
    return out


def loop_layer_norm(x, weight, bias, eps):
    """LayerNorm of one row."""
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return (x - mean) / torch.sqrt(variance + eps) * weight + bias


def loop_gelu(x):
    """Exact GELU of one row."""
    return torch.tensor([0.5 * float(v) * (1 + math.erf(float(v) / math.sqrt(2))) for v in x], dtype=torch.float64)


def loop_sigmoid(x):
    """Sigmoid of one row."""
    return torch.tensor([1 / (1 + math.exp(-float(v))) for v in x], dtype=torch.float64)


def loop_bi_dimensional_attention(layer, y_BMC):
    """A ``BiDimensionalAttention``, token by token, float64; a gate that does not exist is 1."""
    p = {name: value.detach().double() for name, value in layer.state_dict().items()}
    y_BMC = y_BMC.detach().double()
    out = torch.zeros_like(y_BMC)
    for b in range(y_BMC.shape[0]):
        normed = [loop_layer_norm(row, p['norm.weight'], p['norm.bias'], 1e-5) for row in y_BMC[b]]
        g = loop_gelu(p['global_reduce.weight'] @ (sum(normed) / len(normed)) + p['global_reduce.bias'])
        channel = 1.0
        if 'channel_select.weight' in p:
            channel = loop_sigmoid(p['channel_select.weight'] @ g + p['channel_select.bias'])
        for m, row in enumerate(normed):
            spatial = 1.0
            if 'spatial_select.weight' in p:
                local = loop_gelu(p['local_reduce.weight'] @ row + p['local_reduce.bias'])
                spatial = loop_sigmoid(p['spatial_select.weight'] @ torch.cat([local, g]) + p['spatial_select.bias'])
            out[b, m] = y_BMC[b, m] * channel * spatial
    return out


def loop_ffn(layer, x_BMC):
    """An ``FFN``, token by token, float64."""
    p = {name: value.detach().double() for name, value in layer.state_dict().items()}
    y = torch.zeros(x_BMC.shape, dtype=torch.float64)
    for b, m in itertools.product(range(x_BMC.shape[0]), range(x_BMC.shape[1])):
        hidden = loop_gelu(p['fc1.weight'] @ x_BMC[b, m].detach().double() + p['fc1.bias'])
        y[b, m] = p['fc2.weight'] @ hidden + p['fc2.bias']
    return y if layer.attn is None else loop_bi_dimensional_attention(layer.attn, y)


def loop_patch_merging(layer, x_BHWC):
    """The image tokens of a ``ResidualPatchMerging``, group by group, float64."""
    p = {name: value.detach().double() for name, value in layer.state_dict().items()}
    x_BHWC = x_BHWC.detach().double()
    B, H, W, C = x_BHWC.shape
    zero = torch.zeros(C, dtype=torch.float64)
    out = torch.zeros(B, math.ceil(H / 2), math.ceil(W / 2), len(p['reduction.weight']), dtype=torch.float64)
    for b, i, j in itertools.product(*(range(n) for n in out.shape[:3])):
        cells = []
        for y, x in ((2 * i, 2 * j), (2 * i + 1, 2 * j), (2 * i, 2 * j + 1), (2 * i + 1, 2 * j + 1)):
            cells.append(x_BHWC[b, y, x] if y < H and x < W else zero)
        normed = loop_layer_norm(torch.cat(cells), p['norm.weight'], p['norm.bias'], 1e-5)
        out[b, i, j] = p['reduction.weight'] @ normed
        if 'residual_proj.weight' in p:
            largest = torch.tensor([max(float(cell[c]) for cell in cells) for c in range(C)], dtype=torch.float64)
            out[b, i, j] += p['residual_proj.weight'] @ largest
    return out


def loop_conv2d(x_CHW, weight, bias, stride, padding, groups):
    """A convolution of one image, output element by output element, float64."""
    C, H, W = x_CHW.shape
    width, per_group, K, _ = weight.shape
    padded = torch.zeros(C, H + 2 * padding, W + 2 * padding, dtype=torch.float64)
    padded[:, padding : padding + H, padding : padding + W] = x_CHW
    out = torch.zeros(
        width, (H + 2 * padding - K) // stride + 1, (W + 2 * padding - K) // stride + 1, dtype=torch.float64
    )
    for o, i, j in itertools.product(*(range(n) for n in out.shape)):
        first = o // (width // groups) * per_group
        patch = padded[first : first + per_group, i * stride : i * stride + K, j * stride : j * stride + K]
        out[o, i, j] = (patch * weight[o]).sum() + (0.0 if bias is None else bias[o])
    return out


def loop_patch_embed(layer, image_BCHW):
    """The overlapping ``PatchEmbed`` in eval mode: (B, H, W, C), float64. Strides are 2, 1, 1, 2, then 2."""
    p = {name: value.detach().double() for name, value in layer.state_dict().items()}
    grids = []
    for image in image_BCHW.detach().double():
        x = image
        for i, stride in enumerate((2, 1, 1, layer.stride // 4)):
            groups = 1 if i == 0 else len(x)
            x = loop_conv2d(x, p[f'stem.{3 * i}.weight'], None, stride, 1, groups)
            norm = f'stem.{3 * i + 1}.'
            for c in range(len(x)):
                x[c] = (x[c] - p[norm + 'running_mean'][c]) / torch.sqrt(p[norm + 'running_var'][c] + 1e-5)
                x[c] = x[c] * p[norm + 'weight'][c] + p[norm + 'bias'][c]
            x = loop_gelu(x.flatten()).view_as(x)
        x = loop_conv2d(x, p['proj.weight'], p['proj.bias'], 2, 1, 1)
        grid = torch.zeros(x.shape[1], x.shape[2], x.shape[0], dtype=torch.float64)
        for y, z in itertools.product(range(x.shape[1]), range(x.shape[2])):
            grid[y, z] = loop_layer_norm(x[:, y, z], p['norm.weight'], p['norm.bias'], 1e-5)
        grids.append(grid)
    return torch.stack(grids)


# ------------------------------------------------------------------------------------------------ the whole backbone


def loop_block(block, image_BHWC, tokens_BTC, keeps_tokens):
    """A ``LightViTBlock`` in eval mode; both kinds of tokens are normed, attended, added, and so again by the FFN."""
    p = {name: value.detach().double() for name, value in block.state_dict().items()}
    B, H, W, C = image_BHWC.shape

    def norm(x, name):
        rows = [loop_layer_norm(row, p[f'{name}.weight'], p[f'{name}.bias'], 1e-6) for row in x.reshape(-1, C)]
        return torch.stack(rows).view(x.shape)

    tokens = None if tokens_BTC is None else norm(tokens_BTC, 'norm1')
    attended, attended_tokens = loop_aggregated_attention(block.attn, norm(image_BHWC, 'norm1'), tokens)
    x = (image_BHWC + attended).view(B, H * W, C)
    if tokens is not None and keeps_tokens:
        x = torch.cat([x, tokens_BTC + attended_tokens], dim=1)
    x = x + loop_ffn(block.ffn, norm(x, 'norm2'))
    return x[:, : H * W].view(B, H, W, C), x[:, H * W :] if tokens is not None and keeps_tokens else None


def loop_backbone(model, image_BCHW):
    """A ``LightViT`` of overlapping patches in eval mode: its outputs, by the loops of its layers, float64."""
    x = loop_patch_embed(model.patch_embed, image_BCHW)
    tokens = None
    if model.global_token is not None:
        tokens = model.global_token.detach().double().repeat(len(x), 1, 1)
    blocks, outs = sum(len(stage.blocks) for stage in model.stages), []
    for i, stage in enumerate(model.stages):
        if stage.downsample is not None:
            x = loop_patch_merging(stage.downsample, x)
            p = {name: value.detach().double() for name, value in stage.downsample.state_dict().items()}
            if tokens is not None:
                rows = [
                    p['global_proj.weight'] @ loop_layer_norm(row, p['global_norm.weight'], p['global_norm.bias'], 1e-5)
                    for row in tokens.flatten(0, 1)
                ]
                tokens = torch.stack(rows).view(len(x), -1, x.shape[-1])
        for block in stage.blocks:
            blocks -= 1
            x, tokens = loop_block(block, x, tokens, keeps_tokens=blocks > 0 or model.out_type == 'tokens')
        if model.out_type == 'tokens':
            outs.append(torch.cat([x[:, :0].flatten(1, 2) if tokens is None else tokens, x.flatten(1, 2)], dim=1))
        else:
            norm = getattr(model, f'norm{i}')
            rows = [
                loop_layer_norm(row, norm.weight.detach().double(), norm.bias.detach().double(), 1e-6)
                for row in x.flatten(0, 2)
            ]
            outs.append(torch.stack(rows).view(x.shape).permute(0, 3, 1, 2))
    return outs


def scramble(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and statistic a value that matters, so that no term can hide behind a zero or a one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith('num_batches_tracked') or not value.is_floating_point():
                continue
            if name.endswith('running_var'):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif name.endswith('bias_table') or name.endswith('global_token'):
                value.copy_(noise)
            elif value.dim() == 1:
                value.copy_((1.0 if name.endswith('weight') else 0.0) + 0.2 * noise)
            else:
                value.copy_(noise / math.sqrt(value[0].numel()))
    return model
