# Schedule of the paper's section 5.2, 1x: 12 epochs of 16 images, rate x 0.1 after 3/4 and 11/12 of them.
# The paper does not mention a warm-up; 500 iterations are the released configs' and mmdet's.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[9, 11], gamma=0.1),
]

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
