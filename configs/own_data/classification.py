# Recipe for a class per picture; the config that `mmlightvit data import` writes names the data.
# Published: none. Measured: not run.
# For LightViT-S or -B: lightvit_s_imagenet.py here, and lightvit_small below.
_base_ = ['../lightvit_t_imagenet.py', '../_base_/lightvit.py']

model = dict(
    # Start from the published ImageNet classifier; None starts from scratch.
    backbone=dict(init_cfg=_base_.lightvit_tiny.init_cfg),
    head=dict(topk=(1,)),
)
common = dict(_delete_=True, type='CustomDataset')
train_dataloader = dict(
    batch_size=64,
    drop_last=False,
    dataset=dict(pipeline=_base_.train_pipeline, **common),
)
val_dataloader = dict(batch_size=64, dataset=dict(pipeline=_base_.test_pipeline, test_mode=True, **common))
test_dataloader = val_dataloader
del common
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
