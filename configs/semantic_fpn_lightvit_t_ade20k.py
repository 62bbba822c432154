# Semantic FPN, LightViT-T, ADE20K, in PVT's recipe: 40k iterations of 32 images, AdamW, poly rate.
# Train: tools/dist_train.sh configs/semantic_fpn_lightvit_t_ade20k.py 8
# Published: none. For orientation, mIoU of Semantic FPN: PVT-T 35.7, PVT-S 39.8, PVTv2-B0 37.2, PVTv2-B1 42.5.
# Measured: not run.
_base_ = [
    __import__('mmseg').__path__[0] + '/.mim/configs/_base_/models/fpn_r50.py',
    './_base_/lightvit.py',
    './_base_/ade20k.py',
    './_base_/ade20k_40k.py',
    './_base_/adamw.py',
    './_base_/segmentation.py',
]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=_base_.lightvit_tiny,
    neck=dict(_base_.lightvit_fpn, num_outs=4),
    decode_head=dict(num_classes=150),
)
# PVT's recipe tests at multiples of 32, where the grids of all levels cover the image exactly.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=4)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# PVT's recipe decays every parameter.
optim_wrapper = dict(optimizer=dict(lr=2e-4, weight_decay=1e-4), paramwise_cfg=dict(_delete_=True))
