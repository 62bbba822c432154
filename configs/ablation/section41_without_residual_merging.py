# Paper section 4.1: patch merging without its residual branch.
# Published: top-1 78.4, 9.3 M parameters, 0.73 GFLOPs. Measured: not run.
# Train: tools/dist_train.sh configs/ablation/section41_without_residual_merging.py 8
_base_ = '../lightvit_t_imagenet.py'

model = dict(backbone=dict(residual_merging=False))
