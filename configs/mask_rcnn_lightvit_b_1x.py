# Mask R-CNN, LightViT-B, 1x: the recipe as the paper states it.
# Train: tools/dist_train.sh configs/mask_rcnn_lightvit_b_1x.py 8
# Published (paper Table 4): box AP 41.7 (AP50 64.5, AP75 45.1), mask AP 38.8 (AP50 61.4, AP75 41.4). Measured: not run.
_base_ = './mask_rcnn_lightvit_t_1x.py'

model = dict(backbone=_base_.lightvit_base, neck=dict(in_channels=_base_.base_channels))
