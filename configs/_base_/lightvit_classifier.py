# LightViT-T with its own head in mmpretrain's classifier.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlightvit.LightViT', arch='tiny', drop_path_rate=0.1, out_indices=(-1,), out_type='tokens'),
    head=dict(
        type='mmlightvit.LightViTHead',
        num_classes=1000,
        in_channels=256,
        # Smoothing is affine in the target, so that smoothing after the mix equals the published smoothing before it.
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        topk=(1, 5),
    ),
    # One of the two for every batch, with even odds.
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2), dict(type='CutMix', alpha=1.0)]),
)
