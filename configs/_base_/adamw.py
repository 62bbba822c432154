# The optimizer of every recipe and its weight-decay exceptions; rate and decay are set by adamw_*.py beside this file,
# or by the config. SGD: sgd.py in its place.
# Not decayed: norms (by layer type, the stem's BatchNorms included), global tokens and position-bias tables.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', betas=(0.9, 0.999), eps=1e-8),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys=dict(
            global_token=dict(decay_mult=0.0),
            relative_position_bias_table=dict(decay_mult=0.0),
        ),
    ),
)
