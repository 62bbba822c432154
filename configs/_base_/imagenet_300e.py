# Schedule of the paper's Table 2: 300 epochs of 1024 images, rate 1e-7 -> 1e-3 over 20 of them, then cosine to 1e-6.
param_scheduler = [
    # One step per epoch, as published. It reaches the full rate one epoch before `end`, that is, at epoch 20.
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=21),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=20, end=300, convert_to_iter_based=True),
]

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=1024)
