# Mask R-CNN, LightViT-T, 3x: the recipe as the paper states it.
# Train: tools/dist_train.sh configs/mask_rcnn_lightvit_t_3x.py 8
# Published (paper Table 4): box AP 41.5 (AP50 64.4, AP75 45.1), mask AP 38.4 (AP50 61.2, AP75 40.8). Measured: not run.
_base_ = [
    './_base_/mask_rcnn_lightvit.py',
    './_base_/coco_instance_multiscale.py',
    './_base_/coco_3x.py',
    './_base_/adamw_coco.py',
    './_base_/detection.py',
]
