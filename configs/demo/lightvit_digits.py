# A small LightViT classifies handwritten digits: the classification demo.
# Run: make demo-classification
# Measured: docs/demo.md
_base_ = ['../_base_/lightvit_classifier.py', './_base_/lightvit_digits.py', '../_base_/classification.py']

model = dict(
    # mmpretrain's own scale: the detector and the segmenter bring the same mean and standard deviation.
    data_preprocessor=dict(num_classes=10, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(_base_.lightvit_digits, out_indices=(-1,), out_type='tokens'),
    head=dict(
        num_classes=10,
        in_channels=_base_.lightvit_digits.arch.embed_dims[-1],
        hidden_channels=384,
        topk=(1,),
    ),
    train_cfg=dict(_delete_=True),  # digits are not mixed
)

data_root = 'data/digits/classification/'
metainfo = dict(classes=_base_.digit_names)
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
# Crops anew in each epoch; without them the model learns the 12000 images by heart.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.8, 1.0), aspect_ratio_range=(0.85, 1.18)),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='train',
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='val',
        metainfo=metainfo,
        pipeline=pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=3e-3))
max_epochs = 8
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.01, T_max=max_epochs, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=128)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(save_best=None))
randomness = dict(seed=0)
