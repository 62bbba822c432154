# Recipe for objects with masks; the config that `mmlightvit data import` writes names the data.
# Published: none. Measured: not run.
# For LightViT-S or -B: '../mask_rcnn_lightvit_s_1x.py' here.
_base_ = '../mask_rcnn_lightvit_t_1x.py'

# Fine-tuning: half the rate, for batches of 8, and a warm-up short enough for few images.
_base_.param_scheduler[0].end = 100
# Pictures without objects are kept: they say where nothing is.
train_dataloader = dict(batch_size=8, dataset=dict(filter_cfg=dict(filter_empty_gt=False, min_size=1)))
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(base_batch_size=8)
