# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Parameters, multiply-adds and bytes of any model, counted operator by operator.

The model runs once on torch's ``meta`` device, so nothing is computed and no data set is needed. Each operator it
calls is either in :data:`COUNTED`, with a formula, or in :data:`ZERO_COST`; one that is in neither stops the count.
Attention is counted whole, whether it is fused or composed.

Shape legend: B batch, L image tokens, T global tokens, C channels, A tokens of a window.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmlightvit.errors import UserError
from mmlightvit.models.layers.attention import AggregatedAttention
from mmlightvit.toolboxes import build_model, task_of

#: RoIs that the box head and the mask head see: what Mask R-CNN keeps at test time (paper Table 4 counts these).
NUM_BOX_ROIS = 1000
NUM_MASK_ROIS = 100

#: Input of each task when none is given, (height, width).
DEFAULT_SHAPES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {'classifier': (224, 224), 'detector': (800, 1280), 'segmenter': (512, 512), 'backbone': (224, 224)}
)


def _linear(x: Tensor, weight: Tensor, *_: Any, out: Tensor) -> int:
    return x.numel() * weight.shape[0]


def _mm(a: Tensor, b: Tensor, *, out: Tensor) -> int:
    return a.numel() * b.shape[-1]


def _addmm(_: Tensor, a: Tensor, b: Tensor, *, out: Tensor) -> int:
    return a.numel() * b.shape[-1]


def _mv(a: Tensor, b: Tensor, *, out: Tensor) -> int:
    return a.numel()


def _attention(q: Tensor, k: Tensor, v: Tensor, *_: Any, out: Any) -> int:
    scores = q.numel() // q.shape[-1] * k.shape[-2]
    return scores * (q.shape[-1] + v.shape[-1])


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    *_: Any,
    out: Tensor,
) -> int:
    # Each input position (transposed) or output position meets every weight of its group once.
    positions = x if transposed else out
    return positions.shape[0] * math.prod(positions.shape[2:]) * weight.numel()


def _deform_conv(x: Tensor, weight: Tensor, *_: Any, out: Tensor) -> int:
    return out.shape[0] * math.prod(out.shape[2:]) * weight.numel()


#: Operator -> (kind, multiply-adds of a call).
COUNTED: Mapping[str, tuple[str, Callable[..., int]]] = MappingProxyType(
    {
        'aten.convolution': ('conv', _convolution),
        'torchvision.deform_conv2d': ('conv', _deform_conv),
        'aten.linear': ('linear', _linear),
        'aten.mm': ('linear', _mm),
        'aten.addmm': ('linear', _addmm),
        'aten.mv': ('linear', _mv),
        'aten.dot': ('matmul', _mv),
        'aten.bmm': ('matmul', _mm),
        'aten.baddbmm': ('matmul', _addmm),
        'aten.scaled_dot_product_attention': ('attention', _attention),
        'aten._scaled_dot_product_attention_math': ('attention', _attention),
        'aten._scaled_dot_product_flash_attention': ('attention', _attention),
        'aten._scaled_dot_product_flash_attention_for_cpu': ('attention', _attention),
        'aten._scaled_dot_product_efficient_attention': ('attention', _attention),
        'aten._scaled_dot_product_cudnn_attention': ('attention', _attention),
        'aten._scaled_dot_product_fused_attention_overrideable': ('attention', _attention),
    }
)

#: Norms: no multiply-adds; the toolboxes' counter, and so the paper for Mask R-CNN, gives 2 per element.
NORMS = frozenset(
    {
        'aten.native_layer_norm', 'aten.native_group_norm', 'aten.native_batch_norm', 'aten.cudnn_batch_norm',
        'aten._native_batch_norm_legit', 'aten._native_batch_norm_legit_no_training', 'aten._fused_rms_norm',
    }
)  # fmt: skip


def _aten(*lines: str) -> frozenset[str]:
    return frozenset(f'aten.{name}' for line in lines for name in line.split())


#: Operators that only change how memory is read: neither multiply-adds nor bytes.
VIEWS = _aten(
    '_reshape_alias _unsafe_view alias as_strided detach detach_ diagonal expand lift_fresh movedim permute select',
    'slice split split_with_sizes squeeze squeeze_ t transpose transpose_ unbind unfold unsqueeze unsqueeze_ view',
    'view_as_complex view_as_real sym_size sym_stride sym_numel sym_storage_offset is_same_size',
)

_ELEMENTWISE = _aten(
    'abs add add_ addcdiv addcmul bitwise_and bitwise_not bitwise_or ceil celu clamp clamp_ clamp_max clamp_min cos',
    'div div_ elu elu_ eq erf exp exp2 expm1 floor floor_divide fmod ge gelu glu gt hardsigmoid hardsigmoid_ hardswish',
    'hardswish_ hardtanh hardtanh_ isfinite isinf isnan le leaky_relu leaky_relu_ lerp log log1p log_sigmoid_forward',
    'logical_and logical_not logical_or logit lt masked_fill masked_fill_ maximum minimum mish mul mul_ ne neg pow',
    'prelu _prelu_kernel reciprocal relu relu_ remainder round rsqrt rsub sigmoid sigmoid_ sign silu silu_ sin',
    'softplus sqrt square sub sub_ tanh tanh_ true_divide trunc where bernoulli bernoulli_ native_dropout',
)
_SOFTMAX_REDUCTIONS_ORDERS = _aten(
    '_log_softmax _softmax _safe_softmax all amax amin any argmax argmin argsort cummax cumsum linalg_vector_norm',
    'logsumexp max mean min norm prod sort std sum topk var var_mean',
)
_POOLING_RESAMPLING = _aten(
    '_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d avg_pool2d max_pool2d_with_indices grid_sampler_2d',
    'upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d',
    '_upsample_nearest_exact2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa pixel_shuffle pixel_unshuffle im2col',
    'col2im channel_shuffle native_channel_shuffle',
)
_INDEXING_COPYING_FILLING = _aten(
    'cat constant_pad_nd embedding flip gather index index_add index_copy index_put index_put_ index_select',
    'masked_select nonzero reflection_pad2d repeat repeat_interleave replication_pad2d roll scatter scatter_',
    'scatter_add split_with_sizes_copy stack tril triu unique_consecutive _unique2 _to_copy arange clone copy copy_',
    'empty empty_like empty_strided eye fill fill_ full full_like linspace new_empty new_empty_strided new_full',
    'new_ones new_zeros ones ones_like rand rand_like randn scalar_tensor zero_ zeros zeros_like normal_ uniform_',
)

#: Operators without multiply-adds. RoIAlign and NMS are among them: detectors are counted on fixed regions.
ZERO_COST = frozenset().union(
    NORMS, VIEWS, _ELEMENTWISE, _SOFTMAX_REDUCTIONS_ORDERS, _POOLING_RESAMPLING, _INDEXING_COPYING_FILLING,
    ('torchvision.nms', 'torchvision.roi_align', 'torchvision.roi_pool', 'torchvision.ps_roi_align', 'prim.device'),
)  # fmt: skip

#: Operators that look at values, which a count on shapes alone does not have.
_READS_VALUES = _aten('_local_scalar_dense equal is_nonzero item')


@dataclass
class Tally:
    """What one operator did inside one module, all calls together.

    Attributes:
        calls: Number of calls.
        macs: Multiply-adds executed.
        elements: Elements put out.
        bytes_read: Bytes of the inputs, each read once per call.
        bytes_written: Bytes of the outputs, each written once per call.
    """

    calls: int = 0
    macs: int = 0
    elements: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


@dataclass(frozen=True)
class Row:
    """One module of a :class:`Count`, its children included; see there."""

    name: str
    params: int
    macs: int
    published: int
    paper: int
    bytes: int


@dataclass
class Count:
    """The size of a model on one input.

    Attributes:
        task: ``'classifier'``, ``'detector'``, ``'segmenter'`` or ``'backbone'``.
        shape: Input size (height, width) in pixels, batch 1.
        params: Parameters, per name of the parameter.
        tallies: ``{(module name, operator): Tally}``, the module being the innermost one.
        published_extra: ``{module name: multiply-adds}`` that the published implementation executes and ours avoids
            (negative where it is the other way round), split into ``(linear layers, matrix products)``.
        imagenet_extra: ``{module name: multiply-adds}`` between the published implementation and the paper's
            ImageNet convention.
    """

    task: str
    shape: tuple[int, int]
    param_sizes: dict[str, int]
    tallies: dict[tuple[str, str], Tally]
    published_extra: dict[str, tuple[int, int]] = field(default_factory=dict)
    imagenet_extra: dict[str, int] = field(default_factory=dict)

    @property
    def params(self) -> int:
        """Number of parameters."""
        return sum(self.param_sizes.values())

    @property
    def macs(self) -> int:
        """Multiply-adds that the model executes."""
        return self._macs('')

    @property
    def published(self) -> int:
        """Multiply-adds of the same model in the published implementation, dead keys and values included."""
        return self._published('')

    @property
    def paper(self) -> int:
        """Multiply-adds in the paper's convention: that of its ImageNet tables for a classifier or backbone, that of
        its Mask R-CNN table for a detector or segmenter (see docs/analysis.md)."""
        return self._paper('')

    @property
    def bytes(self) -> int:
        """Bytes moved if every operator reads its inputs once and writes its outputs once."""
        return self.bytes_read + self.bytes_written

    @property
    def bytes_read(self) -> int:
        return sum(tally.bytes_read for tally in self.tallies.values())

    @property
    def bytes_written(self) -> int:
        return sum(tally.bytes_written for tally in self.tallies.values())

    def operators(self) -> dict[str, Tally]:
        """The tallies per operator, over all modules."""
        total: dict[str, Tally] = {}
        for (_, op), tally in self.tallies.items():
            into = total.setdefault(op, Tally())
            for name, value in vars(tally).items():
                setattr(into, name, getattr(into, name) + value)
        return total

    def module(self, name: str) -> Row:
        """The row of one module, by its dotted name; ``''`` is the whole model."""
        return Row(
            name=name,
            params=sum(size for param, size in self.param_sizes.items() if _is_within(param, name)),
            macs=self._macs(name),
            published=self._published(name),
            paper=self._paper(name),
            bytes=sum(
                tally.bytes_read + tally.bytes_written
                for (module, _), tally in self.tallies.items()
                if _is_within(module, name)
            ),
        )

    def rows(self, depth: int = 2) -> list[Row]:
        """The whole model first (name ``''``), then modules down to a depth, in the order of the model.

        Args:
            depth: Levels below the model, >= 0.
        """
        names: dict[str, None] = {}
        owners = [param.rpartition('.')[0] or param for param in self.param_sizes]
        for owner in [*owners, *(module for module, _ in self.tallies)]:
            parts = owner.split('.') if owner else []
            for level in range(1, min(depth, len(parts)) + 1):
                names['.'.join(parts[:level])] = None
        order = sorted(names, key=lambda name: _first_seen(name, list(names)))
        return [self.module(''), *(self.module(name) for name in order)]

    def _macs(self, prefix: str) -> int:
        return sum(tally.macs for (module, _), tally in self.tallies.items() if _is_within(module, prefix))

    def _published(self, prefix: str) -> int:
        extra = sum(sum(both) for module, both in self.published_extra.items() if _is_within(module, prefix))
        return self._macs(prefix) + extra

    def _paper(self, prefix: str) -> int:
        if self.task in ('classifier', 'backbone'):
            extra = sum(macs for module, macs in self.imagenet_extra.items() if _is_within(module, prefix))
            return self._published(prefix) + extra
        total = sum(linear for module, (linear, _) in self.published_extra.items() if _is_within(module, prefix))
        for (module, op), tally in self.tallies.items():
            if _is_within(module, prefix):
                if op in NORMS:
                    total += 2 * tally.elements
                elif op in COUNTED and COUNTED[op][0] in ('conv', 'linear'):
                    total += tally.macs
        return total


def count(
    model_or_cfg: nn.Module | Mapping[str, Any],
    shape: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Count:
    """Count parameters, multiply-adds and bytes of a model at batch 1.

    Classifiers and segmenters run whole, detectors up to the outputs of their heads. A two-stage detector's heads
    see :data:`NUM_BOX_ROIS` and :data:`NUM_MASK_ROIS` regions, whatever the weights would propose. The model that is
    passed stays as it is.

    Args:
        model_or_cfg: A model, or a config with a ``model`` (``default_scope`` is honoured), or a model's own config.
        shape: Input size (height, width) in pixels; by default that of :data:`DEFAULT_SHAPES`.
        dtype: Type of weights and input; decides the bytes alone.

    Raises:
        UserError: An operator is neither in :data:`COUNTED` nor in :data:`ZERO_COST`, or the model cannot be built
            or run without data.
    """
    if isinstance(model_or_cfg, nn.Module):
        model = model_or_cfg
    else:
        with _uninitialised():
            model = build_model(model_or_cfg)
    task = task_of(model)
    height, width = _check_shape(DEFAULT_SHAPES[task] if shape is None else shape)
    on_meta = _to_meta(model, dtype).eval()
    image = torch.empty(1, _image_channels(on_meta), height, width, dtype=dtype, device='meta')
    result = Count(task, (height, width), {name: p.numel() for name, p in on_meta.named_parameters()}, {})
    # In inference mode composite operators arrive whole: attention is one operator, whatever its backend.
    with (
        torch.inference_mode(),
        _deformable_as_plain(),
        _watch_modules(on_meta, result) as where,
        _Counter(where, result.tallies),
    ):
        try:
            _run(on_meta, task, image)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise UserError(
                f'{type(model).__name__} cannot be counted: it does not run on shapes alone at {height}x{width} '
                f'({type(error).__name__}: {error})'
            ) from error
    return result


@contextmanager
def _uninitialised() -> Iterator[None]:
    """Build layers without filling them, which takes most of the time: a count looks at shapes."""

    def leave(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
        return tensor

    fillers = [name for name in vars(nn.init) if name.endswith('_') and not name.startswith('_')]
    unchanged: dict[str, Any] = dict.fromkeys(fillers, leave)
    with patch.multiple(nn.init, **unchanged):
        yield


class _Counter(TorchDispatchMode):
    """Book every operator under the module that calls it."""

    def __init__(self, where: list[str], tallies: dict[tuple[str, str], Tally]) -> None:
        super().__init__()
        self.where = where
        self.tallies = tallies

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        op = str(func._overloadpacket)
        if op in _READS_VALUES:
            raise UserError(
                f'module {self.where[-1] or "of the model itself"} reads a value ({op}) to go on, '
                'and a count knows shapes alone'
            )
        if op not in COUNTED and op not in ZERO_COST:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is NotImplemented:
                raise UserError(
                    f'operator {op} (in module {self.where[-1] or "of the model itself"}) is neither counted nor '
                    'declared to cost nothing: add it to COUNTED or ZERO_COST in mmlightvit/analysis/counting.py'
                )
            return out
        out = func(*args, **kwargs)
        tally = self.tallies.setdefault((self.where[-1], op), Tally())
        outputs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        tally.calls += 1
        tally.elements += outputs[0].numel() if outputs else 0
        if op in COUNTED:
            # No keyword of a counted operator (scale, dropout) changes its products.
            tally.macs += COUNTED[op][1](*args, out=out)
        if op not in VIEWS:
            inputs = {id(x): x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
            tally.bytes_read += sum(_bytes(x) for x in inputs.values())
            tally.bytes_written += sum(_bytes(x) for x in outputs)
        return out


def _bytes(x: Tensor) -> int:
    """Bytes of the distinct elements: an expanded dimension is stored once."""
    return math.prod(size for size, stride in zip(x.shape, x.stride()) if stride) * x.element_size()


@contextmanager
def _watch_modules(model: nn.Module, result: Count) -> Iterator[list[str]]:
    """Yield a list whose last entry is always the name of the innermost running module; note LightViT's extras."""
    where = ['']
    handles = []
    for name, module in model.named_modules():

        def enter(module: nn.Module, args: Any, name: str = name) -> None:
            where.append(name)
            published, imagenet = _extras(module, args)
            if published != (0, 0):
                old = result.published_extra.get(name, (0, 0))
                result.published_extra[name] = (old[0] + published[0], old[1] + published[1])
            if imagenet:
                result.imagenet_extra[name] = result.imagenet_extra.get(name, 0) + imagenet

        def leave(*_: Any) -> None:
            where.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield where
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _deformable_as_plain() -> Iterator[None]:
    """Count mmcv's deformable convolutions as the plain ones of their shapes, which have the same products.

    Their own operators are out of torch's sight and do not run on shapes.
    """
    deform = sys.modules.get('mmcv.ops.deform_conv')
    modulated = sys.modules.get('mmcv.ops.modulated_deform_conv')
    if deform is None or modulated is None:
        yield
        return

    def plain(x: Tensor, offset: Tensor, weight: Tensor, *options: Any) -> Tensor:
        return F.conv2d(x, weight, None, *options[:4])

    def plain_modulated(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, *options: Any) -> Tensor:
        return F.conv2d(x, weight, *options[:5])

    with (
        patch.object(deform, 'deform_conv2d', plain),
        patch.object(modulated, 'modulated_deform_conv2d', plain_modulated),
    ):
        yield


def _extras(module: nn.Module, args: Sequence[Any]) -> tuple[tuple[int, int], int]:
    """Multiply-adds of one call that other conventions count differently.

    Returns:
        ((linear, matrix product) published minus executed, the paper's ImageNet convention minus published)
    """
    if isinstance(module, AggregatedAttention) and module.window is not None:
        x, grid = args[:2]
        B, _, C = x.shape
        L, A = grid.num_tokens, module.window**2
        T = x.shape[1] - L
        padded = grid.to_windows(x[:, :L]).numel() // (B * C)
        # Published: padding stays out of Eq. 2 and 3.
        padding = 2 * B * T * (padded - L) * 2 * C
        # Paper: a window's matrix products count as N * C * 2 instead of N * A * C * 2; kv_global does not count.
        window = B * padded * C * 2 * (1 - A)
        return (0, -padding), window - B * T * C * 2 * C
    return (0, 0), 0


def _run(model: Any, task: str, image: Tensor) -> None:
    """Run a model up to the outputs of its heads."""
    if task == 'backbone':
        model(image)
        return
    roi_head = getattr(model, 'roi_head', None)
    if roi_head is None:
        samples = _data_samples(image) if task == 'detector' else None
        model(image, samples, mode='tensor')
        return
    features = model.extract_feat(image)
    if getattr(model, 'rpn_head', None) is not None:
        model.rpn_head(features)
    _run_roi_head(roi_head)
    semantic = getattr(model, 'semantic_head', None)
    if semantic is not None:
        semantic(features)


def _run_roi_head(roi_head: nn.Module) -> None:
    """Run each box head on NUM_BOX_ROIS and each mask head on NUM_MASK_ROIS fixed regions."""

    def stages(name: str) -> list[Any]:
        module = getattr(roi_head, name, None)
        if module is None:
            return []
        return list(module) if isinstance(module, nn.ModuleList) else [module]

    box_extractors = stages('bbox_roi_extractor')
    mask_extractors = stages('mask_roi_extractor') or box_extractors
    boxes, masks = stages('bbox_head'), stages('mask_head')
    if not boxes or len(boxes) != len(box_extractors) or (masks and len(masks) != len(mask_extractors)):
        raise UserError(
            f'roi_head: expected box heads with one RoI extractor each, got {type(roi_head).__name__} with '
            f'{len(boxes)} box heads and {len(box_extractors)} extractors'
        )
    shared = getattr(roi_head, 'shared_head', None)
    for heads, extractors, regions in ((boxes, box_extractors, NUM_BOX_ROIS), (masks, mask_extractors, NUM_MASK_ROIS)):
        for head, extractor in zip(heads, extractors):
            layer: Any = extractor.roi_layers[0]
            x = next(head.parameters()).new_empty((regions, extractor.out_channels, *layer.output_size))
            head(x if shared is None else shared(x))


def _data_samples(image: Tensor) -> list[Any]:
    from mmdet.structures import DetDataSample

    size = tuple(image.shape[-2:])
    meta = dict(img_shape=size, ori_shape=size, batch_input_shape=size, pad_shape=size, scale_factor=(1.0, 1.0))
    return [DetDataSample(metainfo=meta)]


def _to_meta(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy without storage: parameters and buffers on the meta device, the rest copied."""
    memo: dict[int, Any] = {}
    for param in model.parameters():
        memo[id(param)] = nn.Parameter(torch.empty_like(param, device='meta'), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device='meta')
    return copy.deepcopy(model, memo).to(dtype)


def _image_channels(model: nn.Module) -> int:
    """3, unless the first convolution says otherwise; a stem that rearranges pixels first has more inputs."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return first.in_channels if first is not None and first.in_channels in (1, 3, 4) else 3


def _check_shape(shape: Sequence[int]) -> tuple[int, int]:
    if len(shape) != 2 or any(not isinstance(side, int) or side < 1 for side in shape):
        raise UserError(f'shape: expected height and width in pixels, both >= 1, got {tuple(shape)}')
    return shape[0], shape[1]


def _is_within(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(prefix + '.')


def _first_seen(name: str, names: list[str]) -> tuple[int, ...]:
    parts = name.split('.')
    return tuple(names.index('.'.join(parts[:level])) for level in range(1, len(parts) + 1))
