# Semantic FPN with a small LightViT labels the pixels of handwritten digits: the segmentation demo.
# Run: make demo-segmentation
# Measured: docs/demo.md
_base_ = [
    __import__('mmseg').__path__[0] + '/.mim/configs/_base_/models/fpn_r50.py',
    './_base_/lightvit_digits.py',
    '../_base_/segmentation.py',
]

width = 64
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    pretrained=None,
    backbone=_base_.lightvit_digits,
    neck=dict(
        _delete_=True,
        type='mmlightvit.LightViTFPN',
        in_channels=_base_.lightvit_digits.arch.embed_dims,
        out_channels=width,
        num_outs=3,
        num_transposed=0,
    ),
    decode_head=dict(
        in_channels=[width] * 3,
        in_index=[0, 1, 2],
        feature_strides=[4, 8, 16],
        channels=width,
        num_classes=11,
        norm_cfg=norm_cfg,
    ),
)

data_root = 'data/digits/segmentation/'
# The canvas is a class of its own, label 0, so labels are not shifted (reduce_zero_label=False).
metainfo = dict(
    classes=('canvas', *_base_.digit_names),
    palette=[
        [0, 0, 0], [31, 119, 180], [255, 127, 14], [44, 160, 44], [214, 39, 40], [148, 103, 189], [140, 86, 75],
        [227, 119, 194], [127, 127, 127], [188, 189, 34], [23, 190, 207],
    ],
)  # fmt: skip
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=False),
    dict(type='PackSegInputs'),
]
test_pipeline = train_pipeline
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        metainfo=metainfo,
        reduce_zero_label=False,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        metainfo=metainfo,
        reduce_zero_label=False,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

max_iters = 1000
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.01, T_max=max_iters, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=250)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=32)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_iters, save_best=None))
randomness = dict(seed=0)
