# ImageNet-1k of mmpretrain for 8 GPUs with 128 images each. RandAugment draws 2 of mmpretrain's timm-style policies
# with magnitude 9; the published code has a list of 19 operations of its own. Table 2's color jitter 0.3 is left out:
# the published code applies it only without RandAugment.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

# Side of the network's input in pixels; in tests the centre of an image whose short side is 8/7 of it.
resolution = 224
short_side = int(resolution / 0.875)
for each in (_base_.train_pipeline, _base_.train_dataloader.dataset.pipeline):
    each[1].scale = resolution
for each in (_base_.test_pipeline, _base_.val_dataloader.dataset.pipeline, _base_.test_dataloader.dataset.pipeline):
    each[1].scale, each[2].crop_size = short_side, resolution
del each

train_dataloader = dict(batch_size=128, drop_last=True)
val_dataloader = dict(batch_size=128)
test_dataloader = dict(batch_size=128)

tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='ResizeEdge', scale=short_side, edge='short', backend='pillow', interpolation='bicubic')],
            [dict(type='CenterCrop', crop_size=resolution)],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='PackInputs')],
        ],
    ),
]
