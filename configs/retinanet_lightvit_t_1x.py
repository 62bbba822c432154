# RetinaNet, LightViT-T, 1x, in mmdet's recipe for PVT: AdamW, rate and decay 1e-4, 12 epochs of 16 images.
# Train: tools/dist_train.sh configs/retinanet_lightvit_t_1x.py 8
# Published: none. For orientation, box AP of RetinaNet 1x: PVT-T 36.7, PVT-S 40.4, PVTv2-B0 37.2, PVTv2-B1 41.2.
# Measured: not run.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    './_base_/lightvit.py',
    './_base_/coco_detection.py',
    'mmdet::retinanet/retinanet_tta.py',
    './_base_/coco_1x.py',
    './_base_/adamw.py',
    './_base_/detection.py',
]

model = dict(
    backbone=_base_.lightvit_tiny,
    # The three stages are levels 3 to 5 as they come; 6 and 7 start from the last stage, as in mmdet's RetinaNet.
    neck=dict(_base_.lightvit_fpn, num_transposed=0, extra_convs_on='input'),
)

# PVT's recipe drops the rate as mmdet's 1x does and decays every parameter.
_base_.param_scheduler[1].milestones = [8, 11]
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(_delete_=True),
)
