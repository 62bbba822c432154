# Find your own objects: images with a COCO-format file of boxes and masks, `data/own/annotations/{train,val}.json`.
# Copy this file, set the names and the paths, then (docs/own_data.md):
#   python tools/misc/check_dataset.py configs/own_data/detection.py
#   python tools/train.py configs/own_data/detection.py --auto-scale-lr
# With boxes but no masks, build on '../retinanet_lightvit_t_1x.py' instead; docs/own_data.md shows the changes.
# Published: none. Measured: not run.
_base_ = '../mask_rcnn_lightvit_t_1x.py'

# The categories in the order in which the annotation files list them. Their number is set nowhere else.
classes = ['cat', 'dog']
data_root = 'data/own/'

num_classes = len(classes)
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=num_classes), mask_head=dict(num_classes=num_classes)),
)

metainfo = dict(classes=classes)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        metainfo=metainfo,
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        metainfo=metainfo,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

# Fine-tuning: half the rate, for batches of 8 images. Few images want more epochs: 12 epochs of 500 are 750 steps, and
# the warm-up is short enough for them.
max_epochs = 12
optim_wrapper = dict(optimizer=dict(lr=5e-5))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_epochs,
        by_epoch=True,
        milestones=[max_epochs * 3 // 4, max_epochs * 11 // 12],
        gamma=0.1,
    ),
]
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=8)
