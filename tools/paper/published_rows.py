# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The tables of the paper (arXiv 2207.05557) as data, and the models in them as configs.

Published numbers are strings, as printed: their digits say how far they are rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
        block_type: ``'CNN'``, ``'Hybrid'`` or ``'Transformer'`` (Table 3); None elsewhere.
        throughput: Images per second on a V100 (Table 3); None elsewhere.
        top1: ImageNet top-1 accuracy in percent (Table 3); None elsewhere.
        model: The row as a config that can be built; None for other people's models.
        params_note: Why the parameters may differ by more than rounding; empty where they may not.
        flops_note: Why the multiply-adds may differ by more than rounding; empty where they may not.
    """

    table: str
    name: str
    flops: str
    params: str | None = None
    block_type: str | None = None
    throughput: int | None = None
    top1: float | None = None
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


def mask_rcnn(arch: str | None, resnet_depth: int | None = 50) -> dict[str, Any]:
    """Config of mmdet's Mask R-CNN with a LightViT and its pyramid, or with a ResNet for ``arch=None``."""
    from mmengine.config import Config

    from mmlightvit.models.backbones.lightvit import ARCH_ZOO

    model = Config.fromstring("_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'", '.py').model
    if arch is None:
        model.backbone.depth = resnet_depth
        if resnet_depth == 18:
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


def _coco(name: str, params: str, flops: str) -> PaperRow:
    arch = next((arch for arch, published in NAMES.items() if published == name), None)
    depth = {'ResNet-18': 18, 'ResNet-50': 50}.get(name)
    model = mask_rcnn(arch, depth) if arch or depth else None
    return PaperRow('Table 4', name, flops, params, model=model)


def table_4() -> list[PaperRow]:
    """COCO val2017, Mask R-CNN; multiply-adds at 800x1280."""
    return [
        _coco('ResNet-18', '31', '207'),
        _coco('ResNet-50', '44', '260'),
        _coco('ResNet-101', '101', '493'),
        _coco('PVT-T', '33', '208'),
        _coco('PVT-S', '44', '245'),
        _coco('PVT-M', '64', '302'),
        _coco('LightViT-T', '28', '187'),
        _coco('LightViT-S', '38', '204'),
        _coco('LightViT-B', '54', '240'),
    ]


_LAYERS_UNKNOWN = 'the paper does not say which layers this row had'


def table_5() -> list[PaperRow]:
    """Ablation of the components, LightViT-T. Rows add up from the second on."""

    def row(name: str, params: str, flops: str, flops_note: str = '', **switches: Any) -> PaperRow:
        note = _LAYERS_UNKNOWN if switches else ''
        return PaperRow(
            'Table 5', name, flops, params, model=classifier(**switches), params_note=note, flops_note=flops_note
        )

    return [
        row('vanilla global attention', '8.0', '0.88', **_VANILLA),
        row('local attention', '8.0', '0.66', num_global_tokens=0, **_PLAIN_FFN),
        row('+ global attention', '8.8', '0.71', flops_note=_LAYERS_UNKNOWN, **_PLAIN_FFN),
        row('+ spatial attention', '9.1', '0.73', flops_note=_LAYERS_UNKNOWN, channel_attention=False),
        row('+ channel attention', '9.4', '0.73'),
    ]


def table_6() -> list[PaperRow]:
    """Ablation of the number of global tokens, LightViT-T."""
    note = 'without tokens the convention of the other rows gives less than is printed'
    return [
        PaperRow(
            'Table 6', f'{n} tokens', flops, model=classifier(num_global_tokens=n), flops_note='' if n else note
        )
        for n, flops in ((0, '0.68'), (2, '0.69'), (4, '0.70'), (8, '0.73'), (16, '0.80'), (32, '0.92'))
    ]  # fmt: skip


def section_4_1() -> list[PaperRow]:
    """Ablations of the macro design, LightViT-T."""
    note = 'the paper re-scaled the widths and does not give them: ours'

    def row(name: str, params: str, model: dict[str, Any], flops: str = '0.73', note: str = '') -> PaperRow:
        return PaperRow('Section 4.1', name, flops, params, model=model, params_note=note, flops_note=note)

    no_overlap = classifier(ARCH_NO_OVERLAP, overlapping_patches=False)
    return [
        row('four stages', '9.2', classifier(ARCH_FOUR_STAGES, patch_stride=4), note=note),
        row('without residual in patch merging', '9.3', classifier(residual_merging=False)),
        row('without overlapping patch embedding', '9.5', no_overlap, '0.74', note),
        row('LightViT-T', '9.4', classifier()),
    ]


def agrees(value: float, published: str) -> bool:
    """Whether a value rounds to a printed number.

    Args:
        value: In the unit of the table.
        published: As printed; its decimals say how far it is rounded.
    """
    decimals = len(published.partition('.')[2])
    return abs(value - float(published)) <= 0.5 * 10.0**-decimals + 1e-9
