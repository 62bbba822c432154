# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""LightViT: a light-weight vision transformer without convolutions in its blocks (arXiv 2207.05557).

Read it top to bottom: the table of variants, the block, the stage, the backbone. The layers are in ``../layers``.

Shape legend: B batch, H W token grid height and width, L = H * W image tokens, T global tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.fx.experimental._config
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmlightvit.models.layers import (
    FFN,
    AggregatedAttention,
    DropPath,
    PatchEmbed,
    ResidualPatchMerging,
    TabledGrid,
    TokenGrid,
    VanillaAttention,
    tabled_grids,
)
from mmlightvit.models.published import translate_backbone
from mmlightvit.registry import FUNCTIONS, MODELS

#: Paper Table 1 and section 4.2; ``test`` is ours, for tests alone. Head width is 32 in the published variants.
ARCH_ZOO: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        'tiny': dict(
            embed_dims=[64, 128, 256], num_heads=[2, 4, 8], num_blocks=[2, 6, 6], ffn_ratios=[8, 4, 4],
            num_global_tokens=8,
        ),
        'small': dict(
            embed_dims=[96, 192, 384], num_heads=[3, 6, 12], num_blocks=[2, 6, 6], ffn_ratios=[8, 4, 4],
            num_global_tokens=16,
        ),
        'base': dict(
            embed_dims=[128, 256, 512], num_heads=[4, 8, 16], num_blocks=[3, 8, 6], ffn_ratios=[8, 4, 4],
            num_global_tokens=24,
        ),
        'test': dict(
            embed_dims=[8, 16, 32], num_heads=[1, 2, 4], num_blocks=[1, 2, 1], ffn_ratios=[2, 2, 2],
            num_global_tokens=2,
        ),
    }
)  # fmt: skip

_ARCH_KEYS = ('embed_dims', 'num_heads', 'num_blocks', 'ffn_ratios', 'num_global_tokens')
_ARCH_OPTIONAL = ('patch_stride',)


class LightViTBlock(nn.Module):
    r"""A pre-norm transformer block over image and global tokens.

    .. math::
        x = x + DropPath(Attention(LN(x))), \quad x = x + DropPath(FFN(LN(x)))

    Args:
        channels: Channels C.
        num_heads: Attention heads.
        ffn_ratio: Hidden width of the FFN over C.
        window_size: Window side in tokens; None for vanilla attention over all tokens.
        has_global_tokens: Whether global tokens come along.
        keep_global_tokens: Whether they are kept; otherwise they end with the attention, and the FFN sees image
            tokens only.
        spatial_attention: Spatial gate of the FFN.
        channel_attention: Channel gate of the FFN.
        drop_path_rate: Probability of dropping a sample's residual branch, in [0, 1).

    Shape:
        (B, L + T, C), image tokens first -> the same, or (B, L, C) without ``keep_global_tokens``.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        ffn_ratio: float,
        window_size: int | None = 7,
        has_global_tokens: bool = True,
        keep_global_tokens: bool = True,
        spatial_attention: bool = True,
        channel_attention: bool = True,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.keep_global_tokens = keep_global_tokens
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn: AggregatedAttention | VanillaAttention = (
            VanillaAttention(channels, num_heads)
            if window_size is None
            else AggregatedAttention(channels, num_heads, window_size, has_global_tokens)
        )
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.ffn = FFN(channels, ffn_ratio, spatial_attention, channel_attention)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, grid: TokenGrid | TabledGrid) -> Tensor:
        shortcut = x if self.keep_global_tokens else x[:, : grid.num_tokens]
        x = shortcut + self.drop_path(self.attn(self.norm1(x), grid, self.keep_global_tokens))
        return x + self.drop_path(self.ffn(self.norm2(x)))


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
        self,
        downsample: ResidualPatchMerging | None,
        blocks: Sequence[LightViTBlock],
        window_size: int | None,
        with_cp: bool = False,
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
        x, global_BTC = self._run_blocks(grid.flatten(x_BHWC), global_BTC, grid)
        return grid.unflatten(x), global_BTC

    def run_tabled(self, x_BLC: Tensor, global_BTC: Tensor | None, grid: TabledGrid) -> tuple[Tensor, Tensor | None]:
        """:meth:`forward` in a compiled graph: image tokens in the order of the stage before -> in that of ``grid``."""
        cells = grid.cells(x_BLC)
        if self.downsample is None:
            x = cells.squeeze(2)
        else:
            x, global_BTC = self.downsample.merge(cells, global_BTC)
        return self._run_blocks(x, global_BTC, grid)

    def _run_blocks(
        self, x: Tensor, global_BTC: Tensor | None, grid: TokenGrid | TabledGrid
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, L, C) in the order of ``grid`` through all blocks."""
        if global_BTC is not None:
            x = torch.cat([x, global_BTC], dim=1)
        for block in self.blocks:
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, x, grid, use_reentrant=False)
            else:
                x = block(x, grid)
        has_tokens = global_BTC is not None and self.blocks[-1].keep_global_tokens
        return x[:, : grid.num_tokens], x[:, grid.num_tokens :] if has_tokens else None


@MODELS.register_module()
class LightViT(BaseModule):
    """LightViT backbone for classification, detection and segmentation.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` (paper Table 1), ``'test'`` (minute, for tests), or a dict with
            ``embed_dims``, ``num_heads``, ``num_blocks``, ``ffn_ratios`` (one entry per stage), ``num_global_tokens``
            and optionally ``patch_stride`` (8, or 4).
        in_channels: Channels of the image.
        num_global_tokens: Global tokens T, >= 0; overrides the arch. 0: window attention alone (paper Table 6).
        window_size: Window side in tokens, >= 1. None: vanilla attention over all tokens, which has no place for
            global tokens (paper Table 5, first row).
        spatial_attention: Spatial gate of the FFN (paper Table 5).
        channel_attention: Channel gate of the FFN (paper Table 5).
        residual_merging: Residual branch of the patch merging (paper section 4.1).
        overlapping_patches: Overlapping patch embedding (paper section 4.1).
        out_indices: Stages to put out, counted from 0; negative counts from the end. Stages behind the last one put
            out are not built.
        out_type: ``'featmap'``: normed image tokens of each stage as a feature map, for dense tasks; the block that
            is last in the architecture then drops its global tokens after the attention. ``'raw'``: the un-normed
            tokens of each stage, global tokens first, for a classification head.
        drop_path_rate: Largest stochastic-depth rate, in [0, 1); rises linearly from 0 over all blocks of the arch.
        norm_eval: Keep the stem's BatchNorm on its running statistics while training; its affine still learns.
        frozen_stages: -1: none; 0: the stem and the global tokens; n: these and the first n stages.
        with_cp: Recompute blocks in the backward pass to save memory; gradients are the same.
        init_cfg: Further initialisation in mmengine's manner, such as ``dict(type='Pretrained', checkpoint=...)``.

    Shape:
        (B, in_channels, height, width), any size -> a tuple, one entry per index of ``out_indices``: ``'featmap'``
        (B, C_i, H_i, W_i) with H_0 = ceil(height / 8) and H_{i+1} = ceil(H_i / 2), or ``'raw'`` (B, T + L_i, C_i).

    Raises:
        ValueError: An argument is out of its range; the message names it.

    Source: paper sections 3 and 4, Figure 3, Table 1.
    Departs: padding, norm positions and epsilons follow the published weights where the paper is silent.

    Example:
        >>> backbone = LightViT(arch='tiny').eval()
        >>> [tuple(f.shape) for f in backbone(torch.rand(1, 3, 224, 320))]
        [(1, 64, 28, 40), (1, 128, 14, 20), (1, 256, 7, 10)]
    """

    _compiled_run: Callable[..., tuple[Tensor, ...]] | None = None

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
        depth = len(settings['embed_dims'])
        if num_global_tokens is None:
            num_global_tokens = settings['num_global_tokens']
        if not isinstance(num_global_tokens, int) or num_global_tokens < 0:
            raise ValueError(f'num_global_tokens: expected an integer >= 0, got {num_global_tokens!r}')
        if window_size is None and num_global_tokens:
            raise ValueError(
                'window_size=None is vanilla attention over all tokens, which has no place for global tokens: '
                f'expected num_global_tokens=0, got {num_global_tokens}'
            )
        if window_size is not None and (not isinstance(window_size, int) or window_size < 1):
            raise ValueError(f'window_size: expected an integer >= 1 or None, got {window_size!r}')
        if out_type not in ('featmap', 'raw'):
            raise ValueError(f"out_type: expected 'featmap' or 'raw', got {out_type!r}")
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate: expected a number in [0, 1), got {drop_path_rate!r}')
        self.embed_dims = list(settings['embed_dims'])
        self.num_global_tokens = num_global_tokens
        self.window_size = window_size
        self.out_indices = _resolve_out_indices(out_indices, depth)
        self.out_type = out_type
        self.norm_eval = norm_eval
        self.num_stages = max(self.out_indices) + 1
        if not isinstance(frozen_stages, int) or not -1 <= frozen_stages <= self.num_stages:
            raise ValueError(f'frozen_stages: expected an integer in [-1, {self.num_stages}], got {frozen_stages!r}')
        self.frozen_stages = frozen_stages

        has_tokens = num_global_tokens > 0
        num_blocks = settings['num_blocks']
        total_blocks = sum(num_blocks)
        drop_rates = torch.linspace(0, drop_path_rate, total_blocks, device='cpu').tolist()
        self.patch_embed = PatchEmbed(in_channels, self.embed_dims[0], settings['patch_stride'], overlapping_patches)
        self.global_token = nn.Parameter(torch.zeros(1, num_global_tokens, self.embed_dims[0])) if has_tokens else None
        self.stages = nn.ModuleList()
        block_index = 0
        for i in range(self.num_stages):
            channels = self.embed_dims[i]
            blocks = []
            for _ in range(num_blocks[i]):
                is_last = block_index == total_blocks - 1
                blocks.append(
                    LightViTBlock(
                        channels,
                        settings['num_heads'][i],
                        settings['ffn_ratios'][i],
                        window_size,
                        has_global_tokens=has_tokens,
                        keep_global_tokens=not (is_last and out_type == 'featmap'),
                        spatial_attention=spatial_attention,
                        channel_attention=channel_attention,
                        drop_path_rate=drop_rates[block_index],
                    )
                )
                block_index += 1
            downsample = (
                ResidualPatchMerging(self.embed_dims[i - 1], channels, has_tokens, residual_merging) if i else None
            )
            self.stages.append(LightViTStage(downsample, blocks, window_size, with_cp))
        if out_type == 'featmap':
            for i in self.out_indices:
                self.add_module(f'norm{i}', nn.LayerNorm(self.embed_dims[i], eps=1e-6))
        self.reset_parameters()
        self._freeze_stages()
        self._register_load_state_dict_pre_hook(translate_backbone, with_module=True)

    @classmethod
    def from_pretrained(cls, source: str, **kwargs: Any) -> LightViT:
        """A backbone with weights.

        Args:
            source: A name of ``mmlightvit models``, a model folder, or a checkpoint.
            **kwargs: Arguments that differ from what the weights were trained with, such as ``out_indices``.

        Raises:
            UserError: There are no such weights, or they do not fit.
        """
        return FUNCTIONS.get('pretrained_backbone')(cls, source, **kwargs)

    def reset_parameters(self) -> None:
        """Initialise as the published code does; convolutions keep torch's default."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.global_token is not None:
            nn.init.trunc_normal_(self.global_token, std=0.02)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if self._compiled_run is not None:
            return self._run_compiled(image)
        x = self.patch_embed(image)
        tokens = self._global_tokens(x.shape[0])
        outs = []
        for i, stage in enumerate(self.stages):
            x, tokens = stage(x, tokens)
            if i in self.out_indices:
                outs.append(self._output(i, x, tokens))
        return tuple(outs)

    def compile(self, **kwargs: Any) -> None:
        """Compile the backbone in place, for training and inference; the keys of the state dict stay.

        There is one graph for images whose grids are multiples of the window in all stages and one for all others,
        each without breaks and for any size and batch of its kind. torch makes further ones for a batch of 1 and for
        maps or windows of which there is but one row, one column or one.

        Args:
            **kwargs: Those of :func:`torch.compile`; ``dynamic`` and ``fullgraph`` are true unless given.
        """
        from torch._dynamo import config  # slow to import, and only needed here

        # Kinds x training x batch of 1 x single rows, columns and windows.
        config.recompile_limit = max(config.recompile_limit, 32)
        self._compiled_run = torch.compile(self._run_tabled, **{'dynamic': True, 'fullgraph': True, **kwargs})

    def _run_compiled(self, image: Tensor) -> tuple[Tensor, ...]:
        """What depends on the size alone is decided here, outside the graphs; their sizes are then free symbols."""
        assert self._compiled_run is not None
        stride = self.patch_embed.stride
        height, width = ((side + stride - 1) // stride for side in image.shape[-2:])
        grids = tabled_grids(height, width, len(self.stages), self.window_size, image.device)
        # Without this, two sizes that happen to be equal in the first batch (a square image) have to stay equal.
        with torch.fx.experimental._config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            return self._compiled_run(image, grids)

    def _run_tabled(self, image: Tensor, grids: Sequence[TabledGrid]) -> tuple[Tensor, ...]:
        """What is compiled: :meth:`forward` with the grids of all stages given."""
        x = self.patch_embed(image).flatten(1, 2)
        tokens = self._global_tokens(x.shape[0])
        outs = []
        for i, (stage, grid) in enumerate(zip(self.stages, grids)):
            assert isinstance(stage, LightViTStage)
            x, tokens = stage.run_tabled(x, tokens, grid)
            if i in self.out_indices:
                outs.append(self._output(i, grid.to_map(x), tokens))
        return tuple(outs)

    def _global_tokens(self, batch: int) -> Tensor | None:
        return None if self.global_token is None else self.global_token.expand(batch, -1, -1)

    def _output(self, i: int, x_BHWC: Tensor, tokens: Tensor | None) -> Tensor:
        if self.out_type == 'featmap':
            return getattr(self, f'norm{i}')(x_BHWC).permute(0, 3, 1, 2).contiguous()
        raw = x_BHWC.flatten(1, 2)
        return raw if tokens is None else torch.cat([tokens, raw], dim=1)

    def train(self, mode: bool = True) -> LightViT:
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def __getstate__(self) -> dict[str, Any]:
        # A compiled function belongs to this very module: a copy or a saved model is not compiled.
        return {key: value for key, value in super().__getstate__().items() if key != '_compiled_run'}

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
        if arch not in ARCH_ZOO:
            raise ValueError(f'arch: expected one of {sorted(ARCH_ZOO)} or a dict, got {arch!r}')
        arch = ARCH_ZOO[arch]
    settings = dict(arch)
    missing = [key for key in _ARCH_KEYS if key not in settings]
    unknown = [key for key in settings if key not in _ARCH_KEYS + _ARCH_OPTIONAL]
    if missing or unknown:
        raise ValueError(f'arch: expected the keys {list(_ARCH_KEYS)}; missing {missing}, unknown {unknown}')
    settings.setdefault('patch_stride', 8)
    lengths = {key: len(settings[key]) for key in _ARCH_KEYS[:4]}
    if len(set(lengths.values())) != 1 or not lengths['embed_dims']:
        raise ValueError(f'arch: expected one entry per stage everywhere, got lengths {lengths}')
    for channels, heads, blocks in zip(settings['embed_dims'], settings['num_heads'], settings['num_blocks']):
        if heads < 1 or channels % heads or channels % 4:
            raise ValueError(f'arch: expected embed_dims that num_heads and 4 divide, got {channels} and {heads}')
        if blocks < 1:
            raise ValueError(f'arch: expected at least one block per stage, got num_blocks={settings["num_blocks"]}')
    return settings


def _resolve_out_indices(out_indices: Sequence[int], depth: int) -> tuple[int, ...]:
    indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
    resolved = tuple(i + depth if i < 0 else i for i in indices)
    if not resolved or any(not 0 <= i < depth for i in resolved) or list(resolved) != sorted(set(resolved)):
        raise ValueError(
            f'out_indices: expected distinct, rising stage indices in [0, {depth - 1}] (negative counts from the '
            f'end), got {out_indices!r}'
        )
    return resolved
