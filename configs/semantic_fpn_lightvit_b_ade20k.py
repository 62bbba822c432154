# Semantic FPN, LightViT-B, ADE20K, in PVT's recipe: 40k iterations of 32 images, AdamW, poly rate.
# Train: tools/dist_train.sh configs/semantic_fpn_lightvit_b_ade20k.py 8
# Published: none. For orientation, mIoU of Semantic FPN: PVT-T 35.7, PVT-S 39.8, PVTv2-B0 37.2, PVTv2-B1 42.5.
# Measured: not run.
_base_ = './semantic_fpn_lightvit_t_ade20k.py'

model = dict(backbone=_base_.lightvit_base, neck=dict(in_channels=_base_.base_channels))
