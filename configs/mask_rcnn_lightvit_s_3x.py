# Mask R-CNN, LightViT-S, 3x: the recipe as the paper states it.
# Train: tools/dist_train.sh configs/mask_rcnn_lightvit_s_3x.py 8
# Published (paper Table 4): box AP 43.2 (AP50 66.0, AP75 47.4), mask AP 39.9 (AP50 63.0, AP75 42.7). Measured: not run.
_base_ = './mask_rcnn_lightvit_t_3x.py'

model = dict(backbone=_base_.lightvit_small, neck=dict(in_channels=_base_.small_channels))
