# Mask R-CNN of mmdet with LightViT-T and its pyramid (paper section 5.2, Figure 5b).
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmlightvit.LightViT',
        arch='tiny',
        drop_path_rate=0.1,
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/hunto/LightViT/releases/download/v0.0.1/lightvit_tiny_78.7.ckpt',
        ),
    ),
    neck=dict(
        _delete_=True,
        type='mmlightvit.LightViTFPN',
        in_channels=[64, 128, 256],
        out_channels=256,
        num_outs=5,
        num_transposed=1,
    ),
)
