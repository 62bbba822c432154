# Mask R-CNN with a small LightViT on handwritten digits: the detection demo.
# Run: make demo
# Measured: docs/demo.md
# From the classifier of the classification demo:
# --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=CHECKPOINT
_base_ = ['../_base_/mask_rcnn_lightvit.py', './_base_/lightvit_digits.py', '../_base_/detection.py']

# mmdet's model, with everything behind the backbone made small.
width = 64
strides = [4, 8, 16, 32]
roi_extractor = dict(out_channels=width, featmap_strides=strides)
model = dict(
    backbone=_base_.lightvit_digits,
    neck=dict(
        in_channels=_base_.lightvit_digits.arch.embed_dims,
        out_channels=width,
        num_outs=len(strides),
        num_transposed=0,  # the backbone has stride 4 already
    ),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(scales=[6], ratios=[1.0, 1.6, 2.6], strides=strides),  # digits are taller than wide
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_extractor, roi_layer=dict(sampling_ratio=1), finest_scale=21),
        bbox_head=dict(
            in_channels=width,
            fc_out_channels=256,
            num_classes=10,
            reg_class_agnostic=True,
            loss_bbox=dict(loss_weight=2.0),
        ),
        mask_roi_extractor=dict(roi_extractor, roi_layer=dict(sampling_ratio=1)),
        mask_head=dict(
            num_convs=2,
            in_channels=width,
            conv_out_channels=width // 2,
            num_classes=10,
            class_agnostic=True,
            loss_mask=dict(loss_weight=2.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=50), rcnn=dict(max_per_img=20)),
)

data_root = 'data/digits/detection/'
dataset_type = 'CocoDataset'
metainfo = dict(classes=_base_.digit_names)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        metainfo=metainfo,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmlightvit.CocoMetric', ann_file=data_root + 'annotations/val.json', metric=['bbox', 'segm'])
test_evaluator = val_evaluator

max_epochs = 3
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=120),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.01, T_max=max_epochs, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=4)
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(save_best=None))
randomness = dict(seed=0)
