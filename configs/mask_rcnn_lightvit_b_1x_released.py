# Mask R-CNN, LightViT-B, 1x: the values of the released code, where they differ from the paper's text.
# Train: tools/dist_train.sh configs/mask_rcnn_lightvit_b_1x_released.py 8
# Published (paper Table 4): box AP 41.7 (AP50 64.5, AP75 45.1), mask AP 38.8 (AP50 61.4, AP75 41.4). Measured: not run.
_base_ = './mask_rcnn_lightvit_t_1x_released.py'

model = dict(
    backbone=dict(_base_.lightvit_base, num_global_tokens=24, drop_path_rate=0.1),
    neck=dict(in_channels=_base_.base_channels),
)
