# Label every pixel of your own images: `data/own/images/{train,val}/NAME.jpg` and, of the same size and name,
# `data/own/labels/{train,val}/NAME.png`, 8-bit, with the class index of each pixel; 255 is ignored.
# Copy this file, set the names and the folder, then (docs/own_data.md):
#   python tools/misc/check_dataset.py configs/own_data/segmentation.py
#   python tools/train.py configs/own_data/segmentation.py --auto-scale-lr
# Published: none. Measured: not run.
_base_ = '../semantic_fpn_lightvit_t_ade20k.py'

# What the values 0, 1, 2, ... of the label images mean. Their number is set nowhere else.
classes = ['background', 'cat', 'dog']
data_root = 'data/own'

model = dict(decode_head=dict(num_classes=len(classes)))

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
dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
    img_suffix='.jpg',
    seg_map_suffix='.png',
)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        _delete_=True,
        data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        pipeline=train_pipeline,
        **dataset,
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        data_prefix=dict(img_path='images/val', seg_map_path='labels/val'),
        pipeline=test_pipeline,
        test_mode=True,
        **dataset,
    ),
)
test_dataloader = val_dataloader

# Fine-tuning: 4000 iterations of 8 images.
max_iters = 4000
optim_wrapper = dict(optimizer=dict(lr=5e-5))
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=max_iters, by_epoch=False)]
train_cfg = dict(max_iters=max_iters, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))
auto_scale_lr = dict(base_batch_size=8)
