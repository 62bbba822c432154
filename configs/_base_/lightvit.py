# The variants and the pyramid as detection and segmentation use them: `backbone=_base_.lightvit_tiny` in a config that
# inherits this file. The start weights are the published ImageNet classifiers; drop path is as in pre-training.
tiny_channels = [64, 128, 256]
lightvit_tiny = dict(
    _delete_=True,
    type='mmlightvit.LightViT',
    arch='tiny',
    drop_path_rate=0.1,
    norm_eval=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/hunto/LightViT/releases/download/v0.0.1/lightvit_tiny_78.7.ckpt',
    ),
)

# Put over T's by a config that inherits one for T; the channels, of the neck or of the heads, go along.
small_channels = [96, 192, 384]
lightvit_small = dict(
    arch='small',
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/hunto/LightViT/releases/download/v0.0.1/lightvit_small_80.9.ckpt',
    ),
)
base_channels = [128, 256, 512]
lightvit_base = dict(
    arch='base',
    drop_path_rate=0.3,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/hunto/LightViT/releases/download/v0.0.1/lightvit_base_82.1.ckpt',
    ),
)

# Paper Figure 5b: strides 4 to 64, the finest by a transposed convolution, the coarsest by subsampling.
lightvit_fpn = dict(
    _delete_=True,
    type='mmlightvit.LightViTFPN',
    in_channels=tiny_channels,
    out_channels=256,
    num_outs=5,
    num_transposed=1,
)
