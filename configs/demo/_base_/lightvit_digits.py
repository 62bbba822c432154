# What the three demos share. The backbone is one and the same, so that any of them can start from another.
_base_ = '../../_base_/adamw.py'

digit_names = tuple('0123456789')

# Small enough for two CPU cores. Digits are small, so the stem has stride 4, half the published one: a canvas of 128 px
# gives grids 32, 16 and 8 tokens wide, which windows of 4 fill without padding; the classifier's canvas of 32 px gives
# 8, 4 and 2.
lightvit_digits = dict(
    _delete_=True,
    type='mmlightvit.LightViT',
    arch=dict(
        embed_dims=[32, 64, 128],
        num_heads=[1, 2, 4],
        num_blocks=[2, 3, 3],
        ffn_ratios=[4, 4, 4],
        num_global_tokens=8,
    ),
    patch_stride=4,
    window_size=4,
)

optim_wrapper = dict(optimizer=dict(lr=8e-4, weight_decay=0.05), clip_grad=dict(max_norm=5.0))
