# LightViT-B on ImageNet-1k, 224 px, 300 epochs (paper Table 2).
# Train: tools/dist_train.sh configs/lightvit_b_imagenet.py 8
# Published (paper Table 3): top-1 82.1, 35.2 M parameters, 3.9 GFLOPs. Measured: not run.
_base_ = './lightvit_t_imagenet.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.3), head=dict(in_channels=512))
# Mixed precision for B only, as published.
optim_wrapper = dict(type='mmlightvit.AmpOptimWrapper')
