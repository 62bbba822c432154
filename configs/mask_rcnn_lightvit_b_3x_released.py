# Mask R-CNN, LightViT-B, 3x: the values of the released code, where they differ from the paper's text.
# Train: tools/dist_train.sh configs/mask_rcnn_lightvit_b_3x_released.py 8
# Published (paper Table 4): box AP 45.0 (AP50 67.9, AP75 48.8), mask AP 41.2 (AP50 64.8, AP75 44.2). Measured: not run.
_base_ = './mask_rcnn_lightvit_t_3x_released.py'

model = dict(
    backbone=dict(_base_.lightvit_base, num_global_tokens=24, drop_path_rate=0.1),
    neck=dict(in_channels=_base_.base_channels),
)
