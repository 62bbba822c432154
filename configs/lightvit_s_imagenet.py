# LightViT-S on ImageNet-1k, 224 px, 300 epochs (paper Table 2).
# Train: tools/dist_train.sh configs/lightvit_s_imagenet.py 8
# Published (paper Table 3): top-1 80.8 (the repository: 80.9), 19.2 M parameters, 1.7 GFLOPs. Measured: not run.
_base_ = './lightvit_t_imagenet.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))
