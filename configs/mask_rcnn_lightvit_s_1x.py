# Mask R-CNN, LightViT-S, 1x: the recipe as the paper states it.
# Train: tools/dist_train.sh configs/mask_rcnn_lightvit_s_1x.py 8
# Published (paper Table 4): box AP 40.0 (AP50 62.9, AP75 42.6), mask AP 37.4 (AP50 60.0, AP75 39.3). Measured: not run.
_base_ = './mask_rcnn_lightvit_t_1x.py'

model = dict(backbone=_base_.lightvit_small, neck=dict(in_channels=_base_.small_channels))
