# Rate and decay of the paper's Table 2, for 1024 images.
_base_ = './adamw.py'

optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=0.04),
    paramwise_cfg=dict(flat_decay_mult=0.0),  # biases too
)
