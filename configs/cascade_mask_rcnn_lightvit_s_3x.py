# Cascade Mask R-CNN, LightViT-S, 3x, in Swin's recipe: heads of 4 convolutions and 1 linear layer with SyncBN and
# GIoU loss, AdamW, rate 1e-4, decay 0.05, 36 epochs of 16 images, multi-scale training.
# Train: tools/dist_train.sh configs/cascade_mask_rcnn_lightvit_s_3x.py 8
# Published: none. For orientation, box / mask AP of Cascade Mask R-CNN 3x: Swin-T 50.5 / 43.7.
# Measured: not run.
_base_ = './cascade_mask_rcnn_lightvit_t_3x.py'

model = dict(backbone=_base_.lightvit_small, neck=dict(in_channels=_base_.small_channels))
