# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Independent forms of the model, to hold the package's form against.

Two kinds:

* ``loop_*``: one layer each, in float64, written element by element from docs and paper, as slow as it is plain.
* :class:`PlainLightViT`: the whole backbone in the straightforward form: windows partitioned in each block, one
  concatenated token tensor (global tokens first), keys and values of the global tokens computed and dropped, every
  softmax explicit. It takes the arguments and the state dict of ``LightViT`` and draws its drop paths in the same
  order. It shares no code with the package but the table of variants, and is the denominator of the benchmarks.

Shape legend: B batch, H W grid height and width, L = H * W image tokens, T global tokens, C channels, N heads,
D head width, S window side.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from mmlightvit.models.backbones import ARCH_ZOO

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
    """A ``VanillaAttention``: every image token against every image token, float64."""
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


# ------------------------------------------------------------------------------------ the whole model, plainly written


class PlainAttention(nn.Module):
    def __init__(self, channels, num_heads, window, num_tokens):
        super().__init__()
        self.num_heads, self.window, self.num_tokens = num_heads, window, num_tokens
        self.scale = (channels // num_heads) ** -0.5
        self.qkv = nn.Linear(channels, 3 * channels)
        self.kv_global = nn.Linear(channels, 2 * channels) if num_tokens else None
        self.proj = nn.Linear(channels, channels)
        if window is not None:
            self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
            index = loop_relative_position_index(window)
            self.register_buffer('relative_position_index', index, persistent=False)

    def attend(self, q, k, v, bias=None):
        scores = (q * self.scale) @ k.transpose(-2, -1)
        if bias is not None:
            scores = scores + bias
        out = scores.softmax(dim=-1) @ v
        return out.transpose(1, 2).reshape(out.shape[0], out.shape[2], -1)

    def windows(self, x_BNLD, height, width):
        B, N, _, D = x_BNLD.shape
        S = self.window
        x = x_BNLD.reshape(B, N, height // S, S, width // S, S, D)
        return x.permute(0, 2, 4, 1, 3, 5, 6).contiguous().view(-1, N, S * S, D)

    def local(self, q, k, v, height, width):
        S = self.window
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = bias.view(S * S, S * S, -1).permute(2, 0, 1).contiguous()
        q, k, v = (self.windows(x, height, width) for x in (q, k, v))
        out = self.attend(q, k, v, bias.unsqueeze(0))
        out = out.view(-1, height // S, width // S, S, S, out.shape[-1])
        return out.permute(0, 1, 3, 2, 4, 5).contiguous().view(out.shape[0], height, width, -1)

    def forward(self, x, H, W):
        B, _, C = x.shape
        T, N, D = self.num_tokens, self.num_heads, C // self.num_heads
        if self.window is None:
            q, k, v = self.qkv(x).view(B, -1, 3, N, D).permute(2, 0, 3, 1, 4)
            return self.proj(self.attend(q, k, v))
        S = self.window
        Hp, Wp = math.ceil(H / S) * S, math.ceil(W / S) * S
        image = F.pad(x[:, T:].view(B, H, W, C), (0, 0, 0, Wp - W, 0, Hp - H))
        x = torch.cat([x[:, :T], image.view(B, Hp * Wp, C)], dim=1)
        q, k, v = self.qkv(x).view(B, -1, 3, N, D).permute(2, 0, 3, 1, 4).contiguous()
        image = self.local(q[:, :, T:], k[:, :, T:], v[:, :, T:], Hp, Wp)[:, :H, :W].reshape(B, H * W, C)
        if not T:
            return self.proj(image)
        q_global = q[:, :, :T]
        q, k, v = (part[:, :, T:].reshape(B, N, Hp, Wp, D)[:, :, :, :W] for part in (q, k, v))
        q, k, v = (part[:, :, :H].reshape(B, N, H * W, D) for part in (q, k, v))
        aggregated = self.attend(q_global, k, v)
        k, v = self.kv_global(aggregated).view(B, T, 2, N, D).permute(2, 0, 3, 1, 4).contiguous()
        image = image + self.attend(q, k, v)
        return self.proj(torch.cat([aggregated, image], dim=1))


class PlainBiDimensionalAttention(nn.Module):
    def __init__(self, channels, spatial, channel):
        super().__init__()
        reduced = channels // 4
        self.norm = nn.LayerNorm(channels)
        self.global_reduce = nn.Linear(channels, reduced)
        self.gelu = nn.GELU()
        self.channel_select = nn.Linear(reduced, channels) if channel else None
        self.local_reduce = nn.Linear(channels, reduced) if spatial else None
        self.spatial_select = nn.Linear(2 * reduced, 1) if spatial else None

    def forward(self, y):
        n = self.norm(y)
        g = self.gelu(self.global_reduce(n.mean(1, keepdim=True)))
        gate = 1.0
        if self.channel_select is not None:
            gate = gate * self.channel_select(g).sigmoid()
        if self.spatial_select is not None:
            local = self.gelu(self.local_reduce(n))
            both = torch.cat([local, g.expand(-1, n.shape[1], -1)], dim=-1)
            gate = gate * self.spatial_select(both).sigmoid()
        return y * gate


class PlainFFN(nn.Module):
    def __init__(self, channels, ratio, spatial, channel):
        super().__init__()
        self.fc1 = nn.Linear(channels, int(channels * ratio))
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(int(channels * ratio), channels)
        self.attn = PlainBiDimensionalAttention(channels, spatial, channel) if spatial or channel else None

    def forward(self, x):
        y = self.fc2(self.gelu(self.fc1(x)))
        return y if self.attn is None else self.attn(y)


class PlainBlock(nn.Module):
    def __init__(self, channels, num_heads, ratio, window, num_tokens, last, spatial, channel, drop_path):
        super().__init__()
        self.num_tokens, self.last, self.drop = num_tokens, last, drop_path
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = PlainAttention(channels, num_heads, window, num_tokens)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.ffn = PlainFFN(channels, ratio, spatial, channel)

    def drop_path(self, x):
        if not self.training or self.drop == 0:
            return x
        keep = 1 - self.drop
        return x / keep * torch.empty(x.shape[0], 1, 1, dtype=x.dtype, device=x.device).bernoulli_(keep)

    def forward(self, x, H, W):
        x = x + self.drop_path(self.attn(self.norm1(x), H, W))
        if self.last:
            x = x[:, self.num_tokens :]
        return x + self.drop_path(self.ffn(self.norm2(x)))


class PlainPatchMerging(nn.Module):
    def __init__(self, in_channels, out_channels, num_tokens, residual):
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.reduction = nn.Linear(4 * in_channels, out_channels, bias=False)
        self.residual_proj = nn.Linear(in_channels, out_channels, bias=False) if residual else None
        self.global_norm = nn.LayerNorm(in_channels) if num_tokens else None
        self.global_proj = nn.Linear(in_channels, out_channels, bias=False) if num_tokens else None

    def forward(self, image, tokens):
        _, H, W, _ = image.shape
        image = F.pad(image, (0, 0, 0, W % 2, 0, H % 2))
        cells = [image[:, 0::2, 0::2], image[:, 1::2, 0::2], image[:, 0::2, 1::2], image[:, 1::2, 1::2]]
        merged = self.reduction(self.norm(torch.cat(cells, dim=-1)))
        if self.residual_proj is not None:
            pooled = F.max_pool2d(image.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
            merged = merged + self.residual_proj(pooled)
        return merged, None if tokens is None else self.global_proj(self.global_norm(tokens))


class PlainStage(nn.Module):
    def __init__(self, downsample, blocks, num_tokens):
        super().__init__()
        self.downsample, self.blocks, self.num_tokens = downsample, nn.ModuleList(blocks), num_tokens

    def forward(self, image, tokens):
        if self.downsample is not None:
            image, tokens = self.downsample(image, tokens)
        B, H, W, C = image.shape
        x = image.reshape(B, H * W, C)
        if tokens is not None:
            x = torch.cat([tokens, x], dim=1)
        for block in self.blocks:
            x = block(x, H, W)
        T = x.shape[1] - H * W
        return x[:, T:].reshape(B, H, W, C), x[:, :T] if T else None


class PlainPatchEmbed(nn.Module):
    def __init__(self, in_channels, channels, stride, overlapping):
        super().__init__()
        self.stride, half = stride, channels // 2
        self.stem = None
        if overlapping:
            layers = []
            for i, s in enumerate((2, 1, 1, stride // 4)):
                width, groups = (half, half) if i else (in_channels, 1)
                layers += [nn.Conv2d(width, half, 3, s, 1, groups=groups, bias=False), nn.BatchNorm2d(half), nn.GELU()]
            self.stem = nn.Sequential(*layers)
            self.proj = nn.Conv2d(half, channels, 3, 2, 1)
        else:
            self.proj = nn.Conv2d(in_channels, channels, stride, stride)
        self.norm = nn.LayerNorm(channels)

    def forward(self, image):
        if self.stem is None:
            height, width = image.shape[2:]
            image = F.pad(image, (0, -width % self.stride, 0, -height % self.stride))
        else:
            image = self.stem(image)
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class PlainLightViT(nn.Module):
    """The backbone in its straightforward form; arguments, keys, outputs and random draws are those of ``LightViT``.

    Only arguments that change the computation are taken: not ``norm_eval``, ``frozen_stages``, ``with_cp``,
    ``init_cfg``.
    """

    def __init__(
        self,
        arch='tiny',
        in_channels=3,
        num_global_tokens=None,
        window_size=7,
        spatial_attention=True,
        channel_attention=True,
        residual_merging=True,
        overlapping_patches=True,
        out_indices=(0, 1, 2),
        out_type='featmap',
        drop_path_rate=0.0,
    ):
        super().__init__()
        arch = ARCH_ZOO[arch] if isinstance(arch, str) else arch
        widths, depth = arch['embed_dims'], len(arch['embed_dims'])
        T = arch['num_global_tokens'] if num_global_tokens is None else num_global_tokens
        out_indices = [out_indices] if isinstance(out_indices, int) else out_indices
        self.out_indices, self.out_type = [i % depth for i in out_indices], out_type
        self.patch_embed = PlainPatchEmbed(in_channels, widths[0], arch.get('patch_stride', 8), overlapping_patches)
        self.global_token = nn.Parameter(torch.zeros(1, T, widths[0])) if T else None
        rates = torch.linspace(0, drop_path_rate, sum(arch['num_blocks'])).tolist()
        self.stages = nn.ModuleList()
        for i in range(max(self.out_indices) + 1):
            blocks = []
            for j in range(arch['num_blocks'][i]):
                last = i == depth - 1 and j == arch['num_blocks'][i] - 1 and out_type == 'featmap'
                blocks.append(
                    PlainBlock(
                        widths[i], arch['num_heads'][i], arch['ffn_ratios'][i], window_size, T, last,
                        spatial_attention, channel_attention, rates.pop(0),
                    )
                )  # fmt: skip
            downsample = PlainPatchMerging(widths[i - 1], widths[i], T, residual_merging) if i else None
            self.stages.append(PlainStage(downsample, blocks, T))
        if out_type == 'featmap':
            for i in self.out_indices:
                self.add_module(f'norm{i}', nn.LayerNorm(widths[i], eps=1e-6))

    def forward(self, image):
        x = self.patch_embed(image)
        tokens = None if self.global_token is None else self.global_token.expand(x.shape[0], -1, -1)
        outs = []
        for i, stage in enumerate(self.stages):
            x, tokens = stage(x, tokens)
            if i not in self.out_indices:
                continue
            if self.out_type == 'featmap':
                outs.append(getattr(self, f'norm{i}')(x).permute(0, 3, 1, 2).contiguous())
            else:
                flat = x.flatten(1, 2)
                outs.append(flat if tokens is None else torch.cat([tokens, flat], dim=1))
        return tuple(outs)


class PlainHead(nn.Module):
    """The classification head, with the keys of ``LightViTHead``."""

    def __init__(self, num_classes, in_channels, hidden_channels=1280):
        super().__init__()
        self.norm = nn.LayerNorm(in_channels, eps=1e-6)
        self.proj = nn.Linear(in_channels, hidden_channels)
        self.proj_norm = nn.LayerNorm(hidden_channels)
        self.fc = nn.Linear(hidden_channels, num_classes)

    def forward(self, feats):
        return self.fc(F.gelu(self.proj_norm(self.proj(self.norm(feats[-1])))).mean(1))


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
