# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The tables of the paper (arXiv 2207.05557) as data, and the models in them as configs.

Published numbers are strings, as printed: their digits say how far they are rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

#: Without overlapping patch embedding (section 4.1). The paper re-scaled the widths without saying to what: ours.
ARCH_NO_OVERLAP: Mapping[str, Any] = MappingProxyType(
    dict(
        embed_dims=[68, 132, 256], num_heads=[2, 4, 8], num_blocks=[2, 6, 6], ffn_ratios=[8, 4, 4],
        num_global_tokens=8,
    )
)  # fmt: skip

#: With a stage of stride 4 in front (section 4.1). The paper gives no layers: ours, near its parameters and FLOPs.
ARCH_FOUR_STAGES: Mapping[str, Any] = MappingProxyType(
    dict(
        embed_dims=[32, 64, 128, 256], num_heads=[1, 2, 4, 8], num_blocks=[1, 2, 5, 6], ffn_ratios=[4, 8, 4, 4],
        num_global_tokens=8,
    )
)  # fmt: skip

_PLAIN_FFN: dict[str, Any] = dict(spatial_attention=False, channel_attention=False)
_VANILLA: dict[str, Any] = dict(window_size=None, num_global_tokens=0, **_PLAIN_FFN)


@dataclass(frozen=True)
class PaperRow:
    """One row of a table.

    Attributes:
        table: Where it stands, such as ``'Table 3'``.
        name: The row's name in the paper.
        flops: Multiply-adds in G, as printed.
        params: Parameters in M, as printed; None where the table has none.
        block_type: ``'CNN'``, ``'Hybrid'`` or ``'Transformer'`` (Table 3).
        throughput: Images per second on a V100 (Table 3, section 4.1); None where not given.
        top1: ImageNet top-1 accuracy in percent.
        ap: COCO AP by name, in percent, ``'1x box'``, ``'1x mask'``, ``'3x box'``, ``'3x mask'``: (AP, AP50, AP75).
        model: The row as a config that can be built; None for other people's models.
        params_note: Why the parameters may differ by more than rounding; empty where they may not.
        flops_note: Why the multiply-adds may differ by more than rounding; empty where they may not.
    """

    table: str
    name: str
    flops: str
    params: str | None = None
    block_type: str = 'Transformer'
    throughput: int | None = None
    top1: float | None = None
    ap: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    model: Mapping[str, Any] | None = None
    params_note: str = ''
    flops_note: str = ''


def classifier(arch: str | Mapping[str, Any] = 'tiny', **backbone: Any) -> dict[str, Any]:
    """Config of an ImageNet classifier: a backbone and the published head.

    Args:
        arch: Variant or dict of :class:`~mmlightvit.models.backbones.LightViT`.
        **backbone: Further arguments of the backbone.
    """
    from mmlightvit.models.backbones.lightvit import ARCH_ZOO

    arch = dict(arch) if isinstance(arch, Mapping) else arch
    dims = ARCH_ZOO[arch]['embed_dims'] if isinstance(arch, str) else arch['embed_dims']
    return dict(
        default_scope='mmpretrain',
        model=dict(
            type='ImageClassifier',
            backbone=dict(type='mmlightvit.LightViT', arch=arch, out_indices=(-1,), out_type='tokens', **backbone),
            head=dict(type='mmlightvit.LightViTHead', num_classes=1000, in_channels=dims[-1]),
        ),
    )


def mask_rcnn(arch: str | None, resnet_depth: int = 50) -> dict[str, Any]:
    """Config of mmdet's Mask R-CNN with a LightViT and its pyramid, or with a ResNet for ``arch=None``."""
    from mmengine.config import Config

    from mmlightvit.models.backbones.lightvit import ARCH_ZOO

    model = Config.fromstring("_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'", '.py').model
    if arch is None:
        model.backbone.depth = resnet_depth
        if resnet_depth < 50:
            model.neck.in_channels = [64, 128, 256, 512]
    else:
        model.backbone = dict(type='mmlightvit.LightViT', arch=arch)
        model.neck = dict(
            type='mmlightvit.LightViTFPN', in_channels=list(ARCH_ZOO[arch]['embed_dims']), out_channels=256, num_outs=5
        )
    return dict(default_scope='mmdet', model=model)


#: Table 1: (channels, blocks, heads) per stage S1, S2, S3 of strides 8, 16, 32; global tokens from section 4.2.
TABLE_1: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        'tiny': dict(stages=((64, 2, 2), (128, 6, 4), (256, 6, 8)), global_tokens=8),
        'small': dict(stages=((96, 2, 3), (192, 6, 6), (384, 6, 12)), global_tokens=16),
        'base': dict(stages=((128, 3, 4), (256, 8, 8), (512, 6, 16)), global_tokens=24),
    }
)

#: Published names of our variants.
NAMES: Mapping[str, str] = MappingProxyType({'tiny': 'LightViT-T', 'small': 'LightViT-S', 'base': 'LightViT-B'})


def _imagenet(name: str, block_type: str, params: str, flops: str, throughput: int, top1: float) -> PaperRow:
    arch = next((arch for arch, published in NAMES.items() if published == name), None)
    model = None if arch is None else classifier(arch)
    return PaperRow('Table 3', name, flops, params, block_type, throughput, top1, model=model)


def table_3() -> list[PaperRow]:
    """ImageNet validation, 224 px; throughput on one V100."""
    return [
        _imagenet('RegNetY-800M', 'CNN', '6.3', '0.8', 3321, 76.3),
        _imagenet('PVTv2-B0', 'Hybrid', '3.4', '0.6', 2324, 70.5),
        _imagenet('SimViT-Micro', 'Hybrid', '3.3', '0.7', 1004, 71.1),
        _imagenet('MobileViT-XS', 'Hybrid', '2.3', '0.7', 1581, 74.8),
        _imagenet('LVT', 'Hybrid', '5.5', '0.9', 1545, 74.8),
        _imagenet('LightViT-T', 'Transformer', '9.4', '0.7', 2578, 78.7),
        _imagenet('RegNetY-1.6G', 'CNN', '11.2', '1.6', 1845, 78.0),
        _imagenet('MobileViT-S', 'Hybrid', '5.6', '1.1', 1219, 78.4),
        _imagenet('PVTv2-B1', 'Hybrid', '13.1', '2.1', 1231, 78.7),
        _imagenet('ResT-Small', 'Hybrid', '13.7', '1.9', 1298, 79.6),
        _imagenet('DeiT-Ti', 'Transformer', '5.7', '1.3', 2612, 72.2),
        _imagenet('LightViT-S', 'Transformer', '19.2', '1.7', 1467, 80.8),
        _imagenet('RegNetY-4G', 'CNN', '21.0', '4.0', 1045, 80.0),
        _imagenet('Twins-PCPVT-S', 'Hybrid', '24.1', '3.8', 807, 81.2),
        _imagenet('ResT-Base', 'Hybrid', '30.3', '4.3', 735, 81.6),
        _imagenet('PVTv2-B2', 'Hybrid', '25.4', '4.0', 695, 82.0),
        _imagenet('DeiT-S', 'Transformer', '22', '4.6', 961, 79.8),
        _imagenet('Swin-T', 'Transformer', '29', '4.9', 765, 81.3),
        _imagenet('LightViT-B', 'Transformer', '35.2', '3.9', 827, 82.1),
    ]


def _coco(name: str, params: str, flops: str, aps: str) -> PaperRow:
    values = [float(ap) for ap in aps.split()]
    names = ('1x box', '1x mask', '3x box', '3x mask')
    ap = {key: (values[3 * i], values[3 * i + 1], values[3 * i + 2]) for i, key in enumerate(names)}
    arch = next((arch for arch, published in NAMES.items() if published == name), None)
    depth = {'ResNet-18': 18, 'ResNet-50': 50}.get(name)
    model = None
    if arch is not None:
        model = mask_rcnn(arch)
    elif depth is not None:
        model = mask_rcnn(None, depth)
    return PaperRow('Table 4', name, flops, params, '', ap=ap, model=model)


def table_4() -> list[PaperRow]:
    """COCO val2017, Mask R-CNN; multiply-adds at 800x1280."""
    return [
        _coco('ResNet-18', '31', '207', '34.0 54.0 36.7 31.2 51.0 32.7 36.9 57.1 40.0 33.6 53.9 35.7'),
        _coco('ResNet-50', '44', '260', '38.0 58.6 41.4 34.4 55.1 36.7 41.0 61.7 44.9 37.1 58.4 40.1'),
        _coco('ResNet-101', '101', '493', '40.4 61.1 44.2 36.4 57.7 38.8 42.8 63.2 47.1 38.5 60.1 41.3'),
        _coco('PVT-T', '33', '208', '36.7 59.2 39.3 35.1 56.7 37.3 39.8 62.2 43.0 37.4 59.3 39.9'),
        _coco('PVT-S', '44', '245', '40.4 62.9 43.8 37.8 60.1 40.3 43.0 65.3 46.9 39.9 62.5 42.8'),
        _coco('PVT-M', '64', '302', '42.0 64.4 45.6 39.0 61.6 42.1 44.2 66.0 48.2 40.5 63.1 43.5'),
        _coco('LightViT-T', '28', '187', '37.8 60.7 40.4 35.9 57.8 38.0 41.5 64.4 45.1 38.4 61.2 40.8'),
        _coco('LightViT-S', '38', '204', '40.0 62.9 42.6 37.4 60.0 39.3 43.2 66.0 47.4 39.9 63.0 42.7'),
        _coco('LightViT-B', '54', '240', '41.7 64.5 45.1 38.8 61.4 41.4 45.0 67.9 48.8 41.2 64.8 44.2'),
    ]


_LAYERS_UNKNOWN = 'the paper does not say which layers this row had'


def table_5() -> list[PaperRow]:
    """Ablation of the components, LightViT-T. Rows add up from the second on."""

    def row(name: str, params: str, flops: str, top1: float, flops_note: str = '', **switches: Any) -> PaperRow:
        return PaperRow(
            'Table 5', name, flops, params, top1=top1, model=classifier(**switches),
            params_note=_LAYERS_UNKNOWN if switches else '', flops_note=flops_note,
        )  # fmt: skip

    local: dict[str, Any] = dict(num_global_tokens=0, **_PLAIN_FFN)
    return [
        row('vanilla global attention', '8.0', '0.88', 76.5, **_VANILLA),
        row('local attention', '8.0', '0.66', 76.9, **local),
        row('+ global attention', '8.8', '0.71', 78.0, flops_note=_LAYERS_UNKNOWN, **_PLAIN_FFN),
        row('+ spatial attention', '9.1', '0.73', 78.4, flops_note=_LAYERS_UNKNOWN, channel_attention=False),
        row('+ channel attention', '9.4', '0.73', 78.7),
    ]


def table_6() -> list[PaperRow]:
    """Ablation of the number of global tokens, LightViT-T."""
    published = ((0, '0.68', 77.3), (2, '0.69', 77.8), (4, '0.70', 78.3), (8, '0.73', 78.7), (16, '0.80', 78.8))
    rows = []
    for tokens, flops, top1 in (*published, (32, '0.92', 78.8)):
        note = '' if tokens else 'without tokens the convention of the other rows gives less than is printed'
        model = classifier(num_global_tokens=tokens)
        rows.append(PaperRow('Table 6', f'{tokens} tokens', flops, top1=top1, model=model, flops_note=note))
    return rows


def section_4_1() -> list[PaperRow]:
    """Ablations of the macro design, LightViT-T; throughput on one V100."""
    rescaled = 'the paper re-scaled the widths and does not give them: ours'
    section = 'Section 4.1'
    return [
        PaperRow(
            section, 'four stages', '0.73', '9.2', throughput=1643, top1=77.9,
            model=classifier(ARCH_FOUR_STAGES, patch_stride=4), params_note=rescaled, flops_note=rescaled,
        ),
        PaperRow(
            section, 'without residual in patch merging', '0.73', '9.3', throughput=2597, top1=78.4,
            model=classifier(residual_merging=False),
        ),
        PaperRow(
            section, 'without overlapping patch embedding', '0.74', '9.5', throughput=2652, top1=77.4,
            model=classifier(ARCH_NO_OVERLAP, overlapping_patches=False), params_note=rescaled, flops_note=rescaled,
        ),
        PaperRow(section, 'LightViT-T', '0.73', '9.4', throughput=2578, top1=78.7, model=classifier()),
    ]  # fmt: skip


def agrees(value: float, published: str) -> bool:
    """Whether a value rounds to a printed number.

    Args:
        value: In the unit of the table.
        published: As printed; its decimals say how far it is rounded.
    """
    decimals = len(published.partition('.')[2])
    return abs(value - float(published)) <= 0.5 * 10.0**-decimals + 1e-9
