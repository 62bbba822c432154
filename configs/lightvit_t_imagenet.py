# LightViT-T on ImageNet-1k, 224 px, 300 epochs (paper Table 2).
# Train: tools/dist_train.sh configs/lightvit_t_imagenet.py 8
# Published (paper Table 3): top-1 78.7, 9.4 M parameters, 0.7 GFLOPs. Measured: not run.
_base_ = [
    './_base_/lightvit_classifier.py',
    './_base_/imagenet.py',
    './_base_/imagenet_300e.py',
    './_base_/adamw_imagenet.py',
    './_base_/classification.py',
]
