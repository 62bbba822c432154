# Mask R-CNN, LightViT-B, 3x: the recipe as the paper states it.
# Train: tools/dist_train.sh configs/mask_rcnn_lightvit_b_3x.py 8
# Published (paper Table 4): box AP 45.0 (AP50 67.9, AP75 48.8), mask AP 41.2 (AP50 64.8, AP75 44.2). Measured: not run.
_base_ = './mask_rcnn_lightvit_t_3x.py'

model = dict(backbone=_base_.lightvit_base, neck=dict(in_channels=_base_.base_channels))
