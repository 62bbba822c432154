# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Parameters, multiply-adds and bytes of any model, counted operator by operator.

The model runs once on shapes alone. Torch's own ``FlopCounterMode`` counts, with formulas of ours for operators that
it would pass over in silence (fused attention on a CPU is one). An operator that has neither a formula nor a place
among those without products stops the count.

Shape legend: B batch, L image tokens, T global tokens, C channels, A tokens of a window.
"""

from __future__ import annotations

import copy
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from mmlightvit.cost.shapes import Run, blank_image
from mmlightvit.errors import UserError
from mmlightvit.models.layers.attention import AggregatedAttention
from mmlightvit.models.layers.windows import missing
from mmlightvit.toolboxes import build_model, task_of

#: Input of each task when none is given, (height, width).
DEFAULT_SHAPES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {'classifier': (224, 224), 'detector': (800, 1280), 'segmenter': (512, 512), 'backbone': (224, 224)}
)


def _names(*lines: str) -> frozenset[str]:
    return frozenset(name if '.' in name else f'aten.{name}' for line in lines for name in line.split())


#: Convolutions and linear layers, which alone count, with the norms, in the paper's Mask R-CNN table.
LAYERS = _names('convolution torchvision.deform_conv2d linear mm addmm mv')
ATTENTION = _names(
    'scaled_dot_product_attention _scaled_dot_product_attention_math _scaled_dot_product_flash_attention',
    '_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention',
    '_scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable',
)
#: No multiply-adds; the toolboxes' counter, and so the paper for Mask R-CNN, gives 2 per element.
NORMS = _names(
    'native_layer_norm native_group_norm native_batch_norm cudnn_batch_norm _native_batch_norm_legit',
    '_native_batch_norm_legit_no_training _fused_rms_norm',
)
#: Operators without products, beside the views and the elementwise ones, which torch marks as such. RoIAlign and NMS
#: are among them: detectors are counted on fixed regions.
ZERO_COST = _names(
    # Softmax, reductions, orders.
    '_log_softmax _softmax _safe_softmax all amax amin any argmax argmin cummax cumsum linalg_vector_norm',
    'logsumexp max mean min norm prod sort std sum topk var var_mean',
    # Pooling, resampling, rearranging, and the elementwise ones that torch does not mark.
    '_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d avg_pool2d max_pool2d_with_indices im2col col2im',
    'grid_sampler_2d upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d',
    '_upsample_nearest_exact2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa pixel_shuffle pixel_unshuffle',
    'channel_shuffle glu native_dropout log_sigmoid_forward',
    # Indexing, copying, filling.
    'cat constant_pad_nd embedding flip gather index index_add index_copy index_put index_put_ index_select',
    'masked_select nonzero reflection_pad2d repeat repeat_interleave replication_pad2d roll scatter scatter_',
    'scatter_add split_with_sizes_copy stack tril triu _unique2 _to_copy arange copy copy_ empty empty_like full',
    'full_like linspace new_empty new_empty_strided new_full new_ones new_zeros ones ones_like rand rand_like randn',
    'scalar_tensor zeros zeros_like zero_ fill fill_ bernoulli bernoulli_ normal_ uniform_ _unsafe_view',
    'torchvision.nms torchvision.roi_align torchvision.roi_pool torchvision.ps_roi_align prim.device',
)


#: Operator -> formula beside those that torch has, in their form: shapes of arguments and output -> floating-point
#: operations, two per multiply-add.
FORMULAS: Mapping[str, Callable[..., int]] = MappingProxyType(
    {
        'aten.linear': lambda x, weight, *_, out_shape: 2 * math.prod(x) * weight[0],
        'aten.mv': lambda matrix, *_, out_shape: 2 * math.prod(matrix),
        'aten.dot': lambda vector, *_, out_shape: 2 * math.prod(vector),
        'torchvision.deform_conv2d': lambda x, weight, *_, out_shape: conv_flop_count(x, weight, out_shape),
        **dict.fromkeys(ATTENTION, lambda q, k, v, *_, **__: 2 * math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])),
        **dict.fromkeys(NORMS, lambda x, *_, **__: 2 * 2 * math.prod(x)),
    }
)


@dataclass(frozen=True)
class Row:
    """The size of a module on one input at batch 1, its children included.

    Attributes:
        name: Dotted name; ``''`` is the whole model.
        params: Number of parameters.
        macs: Multiply-adds that it executes.
        published: Multiply-adds of the same module in the published implementation.
        paper: Multiply-adds in the paper's convention: that of its ImageNet tables for a classifier or backbone, that
            of its Mask R-CNN table for a detector or segmenter (see docs/analysis.md).
        bytes: Bytes moved if every operator reads its inputs once and writes its outputs once.
    """

    name: str
    params: int
    macs: int
    published: int
    paper: int
    bytes: int


@dataclass(frozen=True)
class Count(Row):
    """The row of the whole model, and those of its modules.

    Attributes:
        task: ``'classifier'``, ``'detector'``, ``'segmenter'`` or ``'backbone'``.
        shape: Input size (height, width) in pixels.
        modules: ``{name: row}`` in the order of the model, the whole first; parameters beside modules have rows too.
    """

    task: str
    shape: tuple[int, int]
    modules: Mapping[str, Row]

    def module(self, name: str) -> Row:
        """The row of one module, by its dotted name."""
        return self.modules[name]

    def rows(self, depth: int = 2) -> list[Row]:
        """The whole model first, then the modules with parameters or bytes down to a depth, in the order of the model.

        Args:
            depth: Levels below the model, >= 0.
        """
        levels = ((row, len(row.name.split('.')) if row.name else 0) for row in self.modules.values())
        return [row for row, level in levels if level <= depth and (row.params or row.bytes or not level)]


def count(
    model_or_cfg: nn.Module | Mapping[str, Any],
    shape: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Count:
    """Count parameters, multiply-adds and bytes of a model at batch 1.

    Classifiers and segmenters run whole, detectors up to the outputs of their heads. The model that is passed stays as
    it is.

    Args:
        model_or_cfg: A model, or a config with a ``model`` (``default_scope`` is honoured), or a model's own config.
        shape: Input size (height, width) in pixels; by default that of :data:`DEFAULT_SHAPES`.
        dtype: Type of weights and input; decides the bytes alone.

    Raises:
        UserError: An operator has no formula and is not known to have no products, or the model cannot be built or
            run without data.
    """
    if isinstance(model_or_cfg, nn.Module):
        model = model_or_cfg
    else:
        with torch.device('meta'):  # nothing is allocated or drawn
            model = build_model(model_or_cfg)
    task = task_of(model)
    shape = DEFAULT_SHAPES[task] if shape is None else shape
    if len(shape) != 2 or any(not isinstance(side, int) or side < 1 for side in shape):
        raise UserError(f'shape: expected height and width in pixels, both >= 1, got {tuple(shape)}')
    on_meta = copy.deepcopy(model).to('meta', dtype).eval().requires_grad_(False)
    image = blank_image(on_meta, *shape)
    ledger = _Ledger()
    # In inference mode composite operators arrive whole: attention is one operator, whatever its backend.
    with torch.inference_mode(), _note_conventions(on_meta, ledger), ledger.counter, ledger:
        try:
            Run(on_meta, task)(image)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise UserError(
                f'{type(model).__name__} cannot be counted: it does not run on shapes alone at {shape[0]}x{shape[1]} '
                f'({type(error).__name__}: {error})'
            ) from error
    rows = {row.name: row for row in _rows(on_meta, ledger, is_dense=task in ('detector', 'segmenter'))}
    return Count(**vars(rows['']), task=task, shape=(shape[0], shape[1]), modules=rows)


class _Ledger(TorchDispatchMode):
    """Let operators pass to torch's counter that it counts or that have no products, stop at all others, book bytes.

    Attributes:
        counter: Torch's counter; it also knows which modules are running.
        booked: ``{module as the counter calls it: {kind: amount}}``, children included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counter = FlopCounterMode(display=False, custom_mapping=_by_operator(FORMULAS))
        self.booked: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def book(self, **amounts: int) -> None:
        for place in self.counter.mod_tracker.parents:
            self.booked[place].update(amounts)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operator = str(func._overloadpacket)
        if not (func._overloadpacket in self.counter.flop_registry or operator in ZERO_COST):
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
            place = _name_of(max(self.counter.mod_tracker.parents, key=len)) or 'of the model itself'
            if torch.Tag.data_dependent_output in func.tags:
                raise UserError(f'module {place} reads a value ({operator}) to go on, and a count knows shapes alone')
            if not (func.is_view or torch.Tag.pointwise in func.tags):
                raise UserError(
                    f'operator {operator} (in module {place}) is neither counted nor declared to cost nothing: add it '
                    'to FORMULAS or ZERO_COST in mmlightvit/cost/counting.py'
                )
        out = func(*args, **kwargs)
        if not func.is_view and operator != 'aten._unsafe_view':
            inputs = {id(x): x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
            outputs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
            self.book(bytes=sum(map(_bytes, [*inputs.values(), *outputs])))
        return out


def _by_operator(formulas: Mapping[str, Callable[..., int]]) -> dict[Any, Callable[..., int]]:
    """Formulas by operator and by overload, because torch's counter takes apart an overload that it does not find."""
    mapping: dict[Any, Callable[..., int]] = {}
    for name, formula in formulas.items():
        namespace, _, operator = name.partition('.')
        packet = getattr(getattr(torch.ops, namespace), operator, None)  # not every version of torch has every one
        if packet is not None:
            mapping |= dict.fromkeys((packet, *(getattr(packet, each) for each in packet.overloads())), formula)
    return mapping


def _bytes(x: Tensor) -> int:
    """Bytes of the distinct elements: an expanded dimension is stored once."""
    return math.prod(size for size, stride in zip(x.shape, x.stride()) if stride) * x.element_size()


@contextmanager
def _note_conventions(model: nn.Module, ledger: _Ledger) -> Iterator[None]:
    """Book in what other conventions differ, whenever LightViT's attention is called."""

    def attention(module: Any, args: Any) -> None:
        x, grid = args[:2]
        B, M, C = x.shape
        A, L, T = module.window**2, grid.num_tokens, M - grid.num_tokens
        padded = math.prod(side + missing(side, module.window) for side in (grid.height, grid.width))
        # Published: padding stays out of Eq. 2 and 3.
        ledger.book(published=-2 * B * T * (padded - L) * 2 * C)
        # Paper: a window's matrix products count as N * C * 2 instead of N * A * C * 2; kv_global does not count.
        ledger.book(imagenet=B * padded * C * 2 * (1 - A) - B * T * C * 2 * C)

    attentions = (m for m in model.modules() if isinstance(m, AggregatedAttention) and m.window is not None)
    handles = [module.register_forward_pre_hook(attention) for module in attentions]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


#: In front of a module's name in torch's counter.
_ROOT = f'{Run.__name__}.model.'


def _name_of(place: str) -> str:
    """A module's name in the model from its name in torch's counter; '' for what is none of the model's modules."""
    return place.removeprefix(_ROOT) if place.startswith(_ROOT) else ''


def _rows(model: nn.Module, ledger: _Ledger, is_dense: bool) -> Iterator[Row]:
    """One row for each module, in the order of the model."""
    sizes = {name: param.numel() for name, param in model.named_parameters()}
    modules = [name for name, _ in model.named_modules(remove_duplicate=False)]
    flops = ledger.counter.get_flop_counts()
    booked: dict[str, Counter[str]] = {}
    for place, amounts in ledger.booked.items():
        if place == 'Global' or place.startswith(_ROOT):
            booked[_name_of(place)] = amounts
            for operator, value in flops.get(place, {}).items():
                amounts['macs'] += 0 if str(operator) in NORMS else value // 2
                amounts['layers'] += value // 2 if str(operator) in LAYERS | NORMS else 0

    def total(name: str) -> Counter[str]:
        if name not in booked:  # a list of modules is never called itself
            booked[name] = Counter()
            for child in modules:
                if child and child.rpartition('.')[0] == name:
                    booked[name].update(total(child))
        return booked[name]

    for name in ('', *(name for name in sizes if '.' not in name), *modules[1:]):
        amounts = total(name)
        published = amounts['macs'] + amounts['published']
        paper = amounts['layers'] if is_dense else published + amounts['imagenet']
        params = sum(size for param, size in sizes.items() if not name or param == name or param.startswith(f'{name}.'))
        yield Row(name, params, amounts['macs'], published, paper, amounts['bytes'])
