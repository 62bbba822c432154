# Classify your own images: one folder per class, `data/own/train/CLASS/*.jpg` and `data/own/val/CLASS/*.jpg`.
# Copy this file, set the names and the folder, then (docs/own_data.md):
#   python tools/misc/check_dataset.py configs/own_data/classification.py
#   python tools/train.py configs/own_data/classification.py --auto-scale-lr
# Published: none. Measured: not run.
# For LightViT-S or -B: lightvit_s_imagenet.py here, and lightvit_small below.
_base_ = ['../lightvit_t_imagenet.py', '../_base_/lightvit.py']

# The names of the class folders, in alphabetical order. Their number is set nowhere else.
classes = ['cat', 'dog']
data_root = 'data/own'

num_classes = len(classes)
data_preprocessor = dict(num_classes=num_classes)
model = dict(
    # Start from the published ImageNet classifier; None starts from scratch.
    backbone=dict(init_cfg=_base_.lightvit_tiny.init_cfg),
    head=dict(num_classes=num_classes, topk=(1,)),
)

train_dataloader = dict(
    batch_size=64,
    drop_last=False,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root=data_root,
        data_prefix='train',
        classes=classes,
        pipeline=_base_.train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=64,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root=data_root,
        data_prefix='val',
        classes=classes,
        pipeline=_base_.test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator

# Fine-tuning: short, with a tenth of the rate; both are for batches of 64.
max_epochs = 30
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=2, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=64)
