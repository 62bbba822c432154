# Recipe for a class per pixel; the config that `mmlightvit data import` writes names the data.
# Published: none. Measured: not run.
# For LightViT-S or -B: '../semantic_fpn_lightvit_s_ade20k.py' here.
_base_ = '../semantic_fpn_lightvit_t_ade20k.py'

# ADE20K's value 0 means "no class"; here it is the first class.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
# The lists name pictures with their endings; the label map of a.jpg is a.jpg.png.
common = dict(_delete_=True, type='BaseSegDataset', img_suffix='', seg_map_suffix='.png')
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline, **common))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, test_mode=True, **common))
test_dataloader = val_dataloader
del common

# Fine-tuning: 4000 iterations of 8 images.
max_iters = 4000
optim_wrapper = dict(optimizer=dict(lr=5e-5))
_base_.param_scheduler[0].end = max_iters
train_cfg = dict(max_iters=max_iters, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))
auto_scale_lr = dict(base_batch_size=8)
