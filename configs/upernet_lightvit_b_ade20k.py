# UPerNet, LightViT-B, ADE20K, in Swin's recipe: 160k iterations of 16 images, AdamW, linear decay after warm-up.
# Train: tools/dist_train.sh configs/upernet_lightvit_b_ade20k.py 8
# Published: none. For orientation, mIoU of UPerNet: Swin-T 44.5. Measured: not run.
_base_ = './upernet_lightvit_t_ade20k.py'

model = dict(
    backbone=_base_.lightvit_base,
    decode_head=dict(in_channels=_base_.base_channels),
    auxiliary_head=dict(in_channels=_base_.base_channels[1]),
)
