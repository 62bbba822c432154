# LightViT-T on CIFAR-10 at 32 px: small images, so that the stem has stride 4 and the grids are 8, 4 and 2 tokens wide.
# The recipe is our choice, an example of training on small images; downloads the data set where it is missing.
# Train: tools/train.py configs/lightvit_t_cifar10.py
# Published: none. Measured: not run.
_base_ = [
    './_base_/lightvit_classifier.py',
    'mmpretrain::_base_/datasets/cifar10_bs16.py',
    './_base_/imagenet_300e.py',
    './_base_/adamw_imagenet.py',
    './_base_/classification.py',
]

model = dict(
    backbone=dict(patch_stride=4),
    head=dict(num_classes=10),
)

train_dataloader = dict(batch_size=128, drop_last=True)
val_dataloader = dict(batch_size=128)
test_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
auto_scale_lr = dict(base_batch_size=128)

tta_pipeline = [
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='PackInputs')],
        ],
    ),
]
