# What the three demos share. The backbone is one and the same, so that any of them can start from another.
_base_ = '../../_base_/adamw.py'

digit_names = tuple('0123456789')

# Small enough for two CPU cores. A canvas of 128 px gives grids 16, 8 and 4 tokens wide, so windows of 8 leave less to
# pad than the published 7.
lightvit_digits = dict(
    _delete_=True,
    type='mmlightvit.LightViT',
    arch=dict(
        embed_dims=[64, 128, 192], num_heads=[2, 4, 6], num_blocks=[2, 3, 2], ffn_ratios=[4, 4, 4], num_global_tokens=8
    ),
    window_size=8,
)

optim_wrapper = dict(optimizer=dict(lr=8e-4, weight_decay=0.05), clip_grad=dict(max_norm=5.0))
