# Cascade Mask R-CNN, LightViT-T, 3x, in Swin's recipe: heads of 4 convolutions and 1 linear layer with SyncBN and
# GIoU loss, AdamW, rate 1e-4, decay 0.05, 36 epochs of 16 images, multi-scale training.
# Train: tools/dist_train.sh configs/cascade_mask_rcnn_lightvit_t_3x.py 8
# Published: none. For orientation, box / mask AP of Cascade Mask R-CNN 3x: Swin-T 50.5 / 43.7.
# Measured: not run.
_base_ = [
    'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py',
    './_base_/lightvit.py',
    './_base_/coco_instance_multiscale.py',
    './_base_/coco_3x.py',
    './_base_/adamw_coco.py',
    './_base_/detection.py',
]

model = dict(
    backbone=_base_.lightvit_tiny,
    neck=_base_.lightvit_fpn,
    roi_head=dict(
        bbox_head=[
            dict(
                type='ConvFCBBoxHead',
                num_shared_convs=4,
                num_shared_fcs=1,
                in_channels=256,
                conv_out_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=stds),
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                norm_cfg=dict(type='SyncBN', requires_grad=True),
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
            )
            for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
        ],
    ),
)

# mmdet's Swin configs warm up over 1000 iterations.
_base_.param_scheduler[0].end = 1000
