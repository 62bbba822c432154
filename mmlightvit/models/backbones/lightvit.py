# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""LightViT: a light-weight vision transformer without convolutions in its blocks (arXiv 2207.05557).

Read it top to bottom: the table of variants, the block, the stage, the backbone. The layers are in ``../layers``.

Shape legend: B batch, H W token grid height and width, L = H * W image tokens, T global tokens, M = L + T, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmlightvit.models.arguments import require
from mmlightvit.models.layers.attention import AggregatedAttention
from mmlightvit.models.layers.drop_path import DropPath
from mmlightvit.models.layers.ffn import FFN
from mmlightvit.models.layers.patch_embed import PatchEmbed
from mmlightvit.models.layers.patch_merging import ResidualPatchMerging
from mmlightvit.models.layers.windows import TokenGrid
from mmlightvit.published import translate_backbone
from mmlightvit.registry import FUNCTIONS, MODELS

_PER_STAGE = ('embed_dims', 'num_heads', 'num_blocks', 'ffn_ratios')

#: Paper Table 1 and section 4.2. Head width is 32.
ARCH_ZOO: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        name: dict(zip((*_PER_STAGE, 'num_global_tokens'), values))
        for name, values in {
            'tiny': ([64, 128, 256], [2, 4, 8], [2, 6, 6], [8, 4, 4], 8),
            'small': ([96, 192, 384], [3, 6, 12], [2, 6, 6], [8, 4, 4], 16),
            'base': ([128, 256, 512], [4, 8, 16], [3, 8, 6], [8, 4, 4], 24),
        }.items()
    }
)


class LightViTBlock(nn.Module):
    r"""A pre-norm transformer block over image and global tokens.

    .. math::
        x = x + DropPath(Attention(LN(x))), \quad x = x + DropPath(FFN(LN(x)))

    Args:
        channels: Channels C.
        attn: The attention; of this width, as the FFN.
        ffn: The FFN.
        keep_global: Whether global tokens are kept; otherwise they end with the attention, and the FFN sees
            image tokens only.
        drop_path_rate: Probability of dropping a sample's residual branch, in [0, 1).

    Shape:
        ``forward(x, grid)``: x (B, L + T, C), image tokens first, in the order of ``grid`` -> the same shape, or
        (B, L, C) without ``keep_global``.
    """

    def __init__(
        self, channels: int, attn: AggregatedAttention, ffn: FFN, keep_global: bool = True, drop_path_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.keep_global = keep_global
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = attn
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.ffn = ffn
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x_BMC: Tensor, grid: TokenGrid) -> Tensor:
        shortcut = x_BMC if self.keep_global else x_BMC[:, : grid.num_tokens]
        x_BMC = shortcut + self.drop_path(self.attn(self.norm1(x_BMC), grid, self.keep_global))
        return x_BMC + self.drop_path(self.ffn(self.norm2(x_BMC)))


class LightViTStage(nn.Module):
    """Downsampling (except in the first stage) and the blocks of one resolution.

    Args:
        downsample: The patch merging in front, or None.
        blocks: The blocks.
        window_size: Window side in tokens, or None.
        with_cp: Recompute each block in the backward pass instead of storing its activations.

    Shape:
        image tokens (B, H, W, C_before), global tokens (B, T, C_before) or None
        -> image tokens (B, H', W', C), global tokens (B, T, C), or None where there are none or they were dropped.
    """

    def __init__(
        self, downsample: nn.Module | None, blocks: Sequence[nn.Module], window_size: int | None, with_cp: bool = False
    ) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.window_size = window_size
        self.with_cp = with_cp

    def forward(self, x_BHWC: Tensor, global_BTC: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.downsample is not None:
            x_BHWC, global_BTC = self.downsample(x_BHWC, global_BTC)
        grid = TokenGrid.of(x_BHWC, self.window_size)
        x = grid.flatten(x_BHWC)
        if global_BTC is not None:
            x = torch.cat([x, global_BTC], dim=1)
        for block in self.blocks:
            x = checkpoint(block, x, grid, use_reentrant=False) if self.with_cp else block(x, grid)
        has_tokens = global_BTC is not None and self.blocks[-1].keep_global
        return grid.unflatten(x[:, : grid.num_tokens]), x[:, grid.num_tokens :] if has_tokens else None


@MODELS.register_module()
class LightViT(BaseModule):
    """LightViT backbone for classification, detection and segmentation.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` (paper Table 1), or a dict with ``embed_dims``, ``num_heads``,
            ``num_blocks``, ``ffn_ratios`` (one entry per stage) and ``num_global_tokens``.
        in_channels: Channels of the image.
        num_global_tokens: Global tokens T, >= 0; overrides the arch. 0: window attention alone (paper Table 6).
        window_size: Window side in tokens, >= 1. None: vanilla attention over all tokens, which has no place for
            global tokens (paper Table 5, first row).
        spatial_attention: Spatial gate of the FFN (paper Table 5).
        channel_attention: Channel gate of the FFN (paper Table 5).
        residual_merging: Residual branch of the patch merging (paper section 4.1).
        overlapping_patches: Overlapping patch embedding (paper section 4.1).
        patch_stride: Pixels per token side of the first stage: 8, or 4 (paper section 4.1, four stages).
        out_indices: Stages to put out, counted from 0; negative counts from the end. Stages behind the last one put
            out are not built.
        out_type: ``'featmap'``: normed image tokens of each stage as a feature map, for dense tasks; the block that
            is last in the architecture then drops its global tokens after the attention. ``'tokens'`` (or ``'raw'``,
            its former name): the un-normed tokens of each stage, global tokens first, for a classification head.
        drop_path_rate: Largest stochastic-depth rate, in [0, 1); rises linearly from 0 over all blocks of the arch.
        norm_eval: Keep the stem's BatchNorm on its running statistics while training; its affine still learns.
        frozen_stages: -1: none; 0: the stem and the global tokens; n: these and the first n stages.
        with_cp: Recompute blocks in the backward pass to save memory; gradients are the same.
        init_cfg: Further initialisation in mmengine's manner, such as ``dict(type='Pretrained', checkpoint=...)``.

    Shape:
        (B, in_channels, height, width), any size -> a tuple, one entry per index of ``out_indices``: ``'featmap'``
        (B, C_i, H_i, W_i) with H_0 = ceil(height / patch_stride) and H_{i+1} = ceil(H_i / 2), or ``'tokens'``
        (B, T + L_i, C_i).

    Raises:
        ValueError: An argument is out of its range; the message names it.

    Source: paper sections 3 and 4, Figure 3, Table 1.
    Departs: padding, norm positions and epsilons follow the published weights where the paper is silent.

    Example:
        >>> backbone = LightViT(arch='tiny').eval()
        >>> [tuple(f.shape) for f in backbone(torch.rand(1, 3, 224, 320))]
        [(1, 64, 28, 40), (1, 128, 14, 20), (1, 256, 7, 10)]
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'tiny',
        in_channels: int = 3,
        num_global_tokens: int | None = None,
        window_size: int | None = 7,
        spatial_attention: bool = True,
        channel_attention: bool = True,
        residual_merging: bool = True,
        overlapping_patches: bool = True,
        patch_stride: int = 8,
        out_indices: Sequence[int] = (0, 1, 2),
        out_type: str = 'featmap',
        drop_path_rate: float = 0.0,
        norm_eval: bool = False,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        settings = _resolve_arch(arch)
        T = settings['num_global_tokens'] if num_global_tokens is None else num_global_tokens
        S = window_size
        require('num_global_tokens', T, isinstance(T, int) and T >= 0, 'an integer >= 0')
        require('window_size', S, S is None or (isinstance(S, int) and S >= 1), 'an integer >= 1 or None')
        require('num_global_tokens', T, S is not None or T == 0, '0 with window_size=None, attention over all tokens')
        require('out_type', out_type, out_type in ('featmap', 'tokens', 'raw'), "'featmap' or 'tokens'")
        require('drop_path_rate', drop_path_rate, 0 <= drop_path_rate < 1, 'a number in [0, 1)')
        self.embed_dims = list(settings['embed_dims'])
        self.num_global_tokens = T
        self.window_size = window_size
        self.out_indices = _resolve_out_indices(out_indices, len(self.embed_dims))
        self.num_stages = max(self.out_indices) + 1
        self.num_blocks = list(settings['num_blocks'][: self.num_stages])
        self.out_type = 'featmap' if out_type == 'featmap' else 'tokens'
        self.norm_eval = norm_eval
        is_stage = isinstance(frozen_stages, int) and -1 <= frozen_stages <= self.num_stages
        require('frozen_stages', frozen_stages, is_stage, f'an integer in [-1, {self.num_stages}]')
        self.frozen_stages = frozen_stages

        self.patch_embed = PatchEmbed(in_channels, self.embed_dims[0], patch_stride, overlapping_patches)
        self.global_token = nn.Parameter(torch.zeros(1, T, self.embed_dims[0])) if T else None
        gates = spatial_attention, channel_attention
        self.stages = self._build_stages(settings, gates, residual_merging, drop_path_rate, with_cp)
        if self.out_type == 'featmap':
            for i in self.out_indices:
                self.add_module(f'norm{i}', nn.LayerNorm(self.embed_dims[i], eps=1e-6))
        self._init_linears()
        if self.global_token is not None:
            nn.init.trunc_normal_(self.global_token, std=0.02)
        self._freeze_stages()

    # A method, as a hook of torch belongs to the object that it was registered on, and not to what timm copies off it.
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *reports: Any) -> None:
        translate_backbone(self, state_dict, prefix, *reports)
        super()._load_from_state_dict(state_dict, prefix, *reports)

    @classmethod
    def from_pretrained(cls, source: str, **kwargs: Any) -> LightViT:
        """A backbone with weights; a UserError where there are none, or none that fit.

        Args:
            source: A name of ``mmlightvit models``, a model folder, or a checkpoint.
            **kwargs: Arguments that differ from what the weights were trained with, such as ``out_indices``.
        """
        return FUNCTIONS.get('pretrained_backbone')(cls, source, **kwargs)

    def _build_stages(
        self, arch: dict[str, Any], gates: tuple[bool, bool], residual: bool, drop_path_rate: float, with_cp: bool
    ) -> nn.ModuleList:
        """The stages up to the last one that is put out; drop rates rise over all blocks of the architecture."""
        dims, has_tokens = self.embed_dims, self.global_token is not None
        last = sum(arch['num_blocks']) - 1
        stages = nn.ModuleList()
        for i in range(self.num_stages):
            blocks = []
            for index in range(sum(arch['num_blocks'][:i]), sum(arch['num_blocks'][: i + 1])):
                attn = AggregatedAttention(dims[i], arch['num_heads'][i], self.window_size, has_tokens)
                ffn = FFN(dims[i], arch['ffn_ratios'][i], *gates)
                keeps_tokens = index < last or self.out_type == 'tokens'
                blocks.append(LightViTBlock(dims[i], attn, ffn, keeps_tokens, drop_path_rate * index / max(last, 1)))
            downsample = ResidualPatchMerging(dims[i - 1], dims[i], has_tokens, residual) if i else None
            stages.append(LightViTStage(downsample, blocks, self.window_size, with_cp))
        return stages

    def _init_linears(self) -> None:
        """As published; convolutions and norms keep torch's default, the layers fill their own tables."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image (B, in_channels, height, width) -> an output per index of ``out_indices``; the class has the shapes."""
        x_BHWC = self.patch_embed(image)
        global_BTC = None if self.global_token is None else self.global_token.expand(image.shape[0], -1, -1)
        outs = []
        for i, stage in enumerate(self.stages):
            x_BHWC, global_BTC = stage(x_BHWC, global_BTC)
            if i in self.out_indices:
                outs.append(self._output(i, x_BHWC, global_BTC))
        return tuple(outs)

    def _output(self, i: int, x_BHWC: Tensor, global_BTC: Tensor | None) -> Tensor:
        """Stage ``i`` as it is put out: (B, C, H, W), or (B, T + L, C)."""
        if self.out_type == 'featmap':
            return getattr(self, f'norm{i}')(x_BHWC).permute(0, 3, 1, 2).contiguous()
        image_BLC = x_BHWC.flatten(1, 2)
        return image_BLC if global_BTC is None else torch.cat([global_BTC, image_BLC], dim=1)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer of a parameter (``prefix`` + name here) and number of layers, for mmpretrain's layer-wise rates.

        0: stem and global tokens; then a layer per block, with the patch merging in front of it; the last: all behind.
        """
        part, *rest = param_name.removeprefix(prefix).split('.')
        if not param_name.startswith(prefix) or part not in ('patch_embed', 'global_token', 'stages'):
            return sum(self.num_blocks) + 1, sum(self.num_blocks) + 2
        before = sum(self.num_blocks[: int(rest[0])]) + 1 if rest and part == 'stages' else 0
        return before + (int(rest[2]) if before and rest[1] == 'blocks' else 0), sum(self.num_blocks) + 2

    def train(self, mode: bool = True) -> LightViT:
        """As :meth:`torch.nn.Module.train`, but frozen stages, and with ``norm_eval`` the norms, stay in eval mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen: list[nn.Module] = [self.patch_embed, *self.stages[: self.frozen_stages]]
        if self.out_type == 'featmap':
            frozen += [getattr(self, f'norm{i}') for i in self.out_indices if i < self.frozen_stages]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)
        if self.global_token is not None:
            self.global_token.requires_grad_(False)


def _resolve_arch(arch: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(arch, str):
        require('arch', arch, arch in ARCH_ZOO, f'one of {sorted(ARCH_ZOO)} or a dict')
        arch = ARCH_ZOO[arch]
    keys = [*_PER_STAGE, 'num_global_tokens']
    require('arch', sorted(arch), sorted(arch) == sorted(keys), f'the keys {keys}')
    lengths = {key: len(arch[key]) for key in _PER_STAGE}
    is_even = len(set(lengths.values())) == 1 and lengths['embed_dims'] > 0
    require('arch', lengths, is_even, 'one entry per stage everywhere')
    for channels, heads, blocks in zip(arch['embed_dims'], arch['num_heads'], arch['num_blocks']):
        fits = heads >= 1 and channels % heads == 0 and channels % 4 == 0
        require('arch', (channels, heads), fits, 'embed_dims that num_heads and 4 divide')
        require('arch', arch['num_blocks'], blocks >= 1, 'num_blocks of at least one block per stage')
    return dict(arch)


def _resolve_out_indices(out_indices: int | Sequence[int], depth: int) -> tuple[int, ...]:
    indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
    resolved = tuple(i + depth if i < 0 else i for i in indices)
    is_right = bool(resolved) and all(0 <= i < depth for i in resolved) and list(resolved) == sorted(set(resolved))
    expected = f'distinct, rising stage indices in [0, {depth - 1}] (negative counts from the end)'
    require('out_indices', out_indices, is_right, expected)
    return resolved
