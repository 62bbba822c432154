# UPerNet, LightViT-T, ADE20K, in Swin's recipe: 160k iterations of 16 images, AdamW, linear decay after warm-up.
# Train: tools/dist_train.sh configs/upernet_lightvit_t_ade20k.py 8
# Published: none. For orientation, mIoU of UPerNet: Swin-T 44.5. Measured: not run.
_base_ = [
    __import__('mmseg').__path__[0] + '/.mim/configs/_base_/models/upernet_swin.py',
    './_base_/lightvit.py',
    './_base_/ade20k.py',
    './_base_/ade20k_160k.py',
    './_base_/adamw.py',
    './_base_/segmentation.py',
]

# UPerHead is a pyramid itself, so that it takes the three stages as they come and decides at stride 8. A fourth level
# in front of it (LightViTFPN) would put one pyramid on another and make the head's widest convolution 4 times as dear.
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=_base_.lightvit_tiny,
    decode_head=dict(in_channels=_base_.tiny_channels, in_index=[0, 1, 2], num_classes=150),
    auxiliary_head=dict(in_channels=_base_.tiny_channels[1], in_index=1, num_classes=150),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=6e-5, weight_decay=0.01))
