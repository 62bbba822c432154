# RetinaNet, LightViT-S, 1x, in mmdet's recipe for PVT: AdamW, rate and decay 1e-4, 12 epochs of 16 images.
# Train: tools/dist_train.sh configs/retinanet_lightvit_s_1x.py 8
# Published: none. For orientation, box AP of RetinaNet 1x: PVT-T 36.7, PVT-S 40.4, PVTv2-B0 37.2, PVTv2-B1 41.2.
# Measured: not run.
_base_ = './retinanet_lightvit_t_1x.py'

model = dict(backbone=_base_.lightvit_small, neck=dict(in_channels=_base_.small_channels))
