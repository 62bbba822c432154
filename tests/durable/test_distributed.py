# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Two gloo processes against one: losses, gradients, and what MMEngine collects over ranks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from processes import run_forked
from torch import Tensor, nn
from variants import TEST_ARCH

from mmlightvit.cli.config import load_config
from mmlightvit.durable import launch
from mmlightvit.durable.wrappers import DistributedDataParallel
from mmlightvit.toolboxes import import_toolbox

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='gloo on the CPU is for machines without a GPU')


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def _loss_and_gradients(model: nn.Module, wrapped: nn.Module, data: dict) -> dict[str, Tensor]:
    """One forward and backward pass, as the training step takes it, up to the optimizer."""
    data = model.data_preprocessor(data, training=True)
    loss, _ = model.parse_losses(wrapped(**data, mode='loss'))
    loss.backward()
    return {'loss': loss.detach(), **_gradients(model)}


# -- classification ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def classifier() -> Iterator[None]:
    pytest.importorskip('mmpretrain')
    import_toolbox('mmpretrain')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def _build_classifier() -> nn.Module:
    from mmpretrain.registry import MODELS

    torch.manual_seed(0)
    backbone = dict(type='mmlightvit.LightViT', arch=TEST_ARCH, out_indices=(-1,), out_type='tokens', norm_eval=True)
    head = dict(type='mmlightvit.LightViTHead', num_classes=5, in_channels=32, loss=dict(type='CrossEntropyLoss'))
    model = MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head))
    model.train()
    return model


def _classification_batch(chosen: slice) -> dict:
    from mmpretrain.structures import DataSample

    images = torch.randint(0, 256, (4, 3, 72, 64), generator=_seeded(1), dtype=torch.uint8)
    samples = [DataSample().set_gt_label(label) for label in (0, 3, 1, 4)]
    return dict(inputs=images[chosen], data_samples=samples[chosen])


def _classify_in_rank() -> dict[str, Tensor]:
    launch.init_distributed('pytorch', dict(backend='nccl', timeout=60))
    rank = torch.distributed.get_rank()
    model = _build_classifier()
    wrapped = DistributedDataParallel(model, device_ids=[rank])  # as MMEngine's runner passes them
    found = _loss_and_gradients(model, wrapped, _classification_batch(slice(2 * rank, 2 * rank + 2)))
    torch.distributed.all_reduce(found['loss'])
    found['loss'] /= 2
    launch.leave_distributed()
    return found


def test_classification_over_two_ranks_equals_the_double_batch(classifier):
    model = _build_classifier()
    expected = _loss_and_gradients(model, model, _classification_batch(slice(0, 4)))
    assert set(expected) == {'loss', *(name for name, _ in model.named_parameters())}
    for found in run_forked(2, _classify_in_rank):
        assert set(found) == set(expected)
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f'{n}: {text}'
            )


# -- detection --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def detector(repo) -> Iterator[dict]:
    """Mask R-CNN of the published config, small, with samplers that take every candidate instead of drawing."""
    pytest.importorskip('mmdet')
    import_toolbox('mmdet')
    cfg = load_config(str(repo / 'configs/mask_rcnn_lightvit_t_1x.py'))
    take_all = dict(type='RandomSampler', num=10**6, pos_fraction=0.5, neg_pos_ub=-1)
    cfg.merge_from_dict(
        {
            'model.backbone.arch': dict(_delete_=True, **TEST_ARCH),
            'model.backbone.drop_path_rate': 0.0,
            'model.backbone.init_cfg': None,
            'model.neck.in_channels': [8, 16, 32],
            'model.neck.out_channels': 16,
            'model.rpn_head.in_channels': 16,
            'model.rpn_head.feat_channels': 16,
            'model.roi_head.bbox_roi_extractor.out_channels': 16,
            'model.roi_head.mask_roi_extractor.out_channels': 16,
            'model.roi_head.bbox_head.in_channels': 16,
            'model.roi_head.bbox_head.fc_out_channels': 32,
            'model.roi_head.mask_head.in_channels': 16,
            'model.roi_head.mask_head.conv_out_channels': 16,
            'model.train_cfg.rpn.sampler': take_all,
            'model.train_cfg.rpn_proposal.nms_pre': 64,
            'model.train_cfg.rpn_proposal.max_per_img': 32,
            'model.train_cfg.rcnn.sampler': dict(take_all, add_gt_as_proposals=True),
        }
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield cfg.model


def _build_detector(cfg: dict) -> nn.Module:
    from mmdet.registry import MODELS

    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.train()
    return model


def _detection_batch(index: int) -> dict:
    """One of two images of different sizes, with different numbers of objects."""
    import numpy as np
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    height, width = ((96, 64), (64, 128))[index]
    boxes = ([[4, 8, 40, 60]], [[8, 4, 50, 40], [60, 10, 120, 60], [20, 20, 50, 60]])[index]
    masks = np.zeros((len(boxes), height, width), dtype=np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes):
        mask[top:bottom, left:right] = 1
    sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32),
        labels=torch.arange(len(boxes)),
        masks=BitmapMasks(masks, height, width),
    )
    image = torch.randint(0, 256, (3, height, width), generator=_seeded(index), dtype=torch.uint8)
    return dict(inputs=[image], data_samples=[sample])


def _detect_in_rank(cfg: dict) -> dict[str, Tensor]:
    launch.init_distributed('pytorch')
    model = _build_detector(cfg)
    found = _loss_and_gradients(model, DistributedDataParallel(model), _detection_batch(torch.distributed.get_rank()))
    torch.distributed.all_reduce(found['loss'])
    found['loss'] /= 2
    launch.leave_distributed()
    return found


def test_detection_over_two_ranks_is_the_mean_of_its_images(detector):
    alone = []
    for index in range(2):
        model = _build_detector(detector)
        alone.append(_loss_and_gradients(model, model, _detection_batch(index)))
    assert set(alone[0]) == {'loss', *(name for name, p in model.named_parameters() if p.requires_grad)}
    assert abs(alone[0]['loss'] - alone[1]['loss']) > 1e-3  # a mean of equals would show nothing
    for found in run_forked(2, _detect_in_rank, detector):
        for name, first in alone[0].items():
            expected = (first + alone[1][name]) / 2
            torch.testing.assert_close(
                found[name], expected, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f'{n}: {text}'
            )


# -- what surrounds the model -----------------------------------------------------------------------------------------
def _surroundings() -> list:
    from mmengine.dist import all_gather, broadcast, collect_results, get_dist_info, sync_random_seed

    launch.init_distributed('pytorch', dict(backend='nccl'), dict(mp_start_method='fork'))
    rank, world_size = get_dist_info()
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4))
    wrapped = DistributedDataParallel(layers, device_ids=[rank])
    wrapped(torch.ones(2, 3, 4, 4)).sum().backward()
    kinds = [type(layer).__name__ for layer in wrapped.module]
    seed = torch.tensor(float(sync_random_seed()))
    seeds = [float(value) for value in all_gather(seed)]
    first = torch.tensor([float(rank)])
    broadcast(first)
    results = collect_results([f'sample {rank}', f'sample {rank + 2}'], size=3, device='cpu')
    backend = torch.distributed.get_backend()
    launch.leave_distributed()
    return [rank, world_size, backend, kinds, seeds, first.item(), results]


def _leave_many_times() -> int:
    """Groups of one rank: gloo's threads take part in them as in groups of many."""
    rounds = 300
    for _ in range(rounds):
        torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
        wrapped = DistributedDataParallel(nn.Linear(8, 8))
        wrapped(torch.ones(2, 8)).sum().backward()
        torch.distributed.all_reduce(torch.ones(1))
        launch.leave_distributed()
        del wrapped  # the last holder of the group, if the group is not held for it
    return rounds


def test_leaving_a_group_before_its_model_does_not_hang():
    assert run_forked(1, _leave_many_times, seconds=30) == [300]


def test_mmengine_works_over_gloo_and_synchronised_norms_become_plain_ones():
    first, second = run_forked(2, _surroundings)
    assert first[:3] == [0, 2, 'gloo']
    assert second[:3] == [1, 2, 'gloo']
    assert first[3] == second[3] == ['Conv2d', '_BatchNormXd']
    assert len({*first[4], *second[4]}) == 1
    assert first[5] == second[5] == 0.0
    assert first[6] == ['sample 0', 'sample 1', 'sample 2']
    assert second[6] is None
