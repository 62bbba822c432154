# Mask R-CNN, LightViT-T, 1x: the recipe as the paper states it.
# Train: tools/dist_train.sh configs/mask_rcnn_lightvit_t_1x.py 8
# Published (paper Table 4): box AP 37.8 (AP50 60.7, AP75 40.4), mask AP 35.9 (AP50 57.8, AP75 38.0). Measured: not run.
_base_ = [
    './_base_/mask_rcnn_lightvit.py',
    './_base_/coco_instance.py',
    './_base_/coco_1x.py',
    './_base_/adamw_coco.py',
    './_base_/detection.py',
]
