# Depth from one picture: LightViT-T, its pyramid and a small head of this project in mmseg's depth estimator, on NYU
# Depth v2 (mmseg's layout). The recipe is our choice, an example of dense regression: docs/configs.md#a-new-head.
# Train: tools/train.py configs/examples/depth_nyu.py
# Published: none. Measured: not run.
_base_ = [
    __import__('mmseg').__path__[0] + '/.mim/configs/_base_/models/fpn_r50.py',
    '../_base_/lightvit.py',
    __import__('mmseg').__path__[0] + '/.mim/configs/_base_/datasets/nyu.py',
    '../_base_/ade20k_40k.py',
    '../_base_/adamw.py',
    '../_base_/segmentation.py',
]

custom_imports = dict(imports=[*_base_.custom_imports.imports, 'mmlightvit.examples.depth_head'])

model = dict(
    type='DepthEstimator',
    data_preprocessor=dict(size=(480, 480)),
    pretrained=None,
    backbone=_base_.lightvit_tiny,
    neck=dict(_base_.lightvit_fpn, num_outs=4),
    decode_head=dict(_delete_=True, type='mmlightvit.DepthHead', in_channels=256, channels=64, max_depth=10.0),
)

# mmseg's, without the colour changes that need another package.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCrop', crop_size=(480, 480)),
    dict(
        type='PackSegInputs',
        meta_keys=('img_path', 'depth_map_path', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'flip',
                   'flip_direction', 'category_id'),
    ),
]  # fmt: skip
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=0.01))
default_hooks = dict(checkpoint=dict(save_best='rmse', rule='less'))
auto_scale_lr = dict(base_batch_size=8)
