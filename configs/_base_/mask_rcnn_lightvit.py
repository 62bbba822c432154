# Mask R-CNN of mmdet with LightViT-T and its pyramid (paper section 5.2, Figure 5b).
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', './lightvit.py']

model = dict(backbone=_base_.lightvit_tiny, neck=_base_.lightvit_fpn)
