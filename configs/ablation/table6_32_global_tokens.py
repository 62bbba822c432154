# Paper Table 6: 32 global tokens; 8 is configs/lightvit_t_imagenet.py.
# Published: top-1 78.8, 0.92 GFLOPs. Measured: not run.
# Train: tools/dist_train.sh configs/ablation/table6_32_global_tokens.py 8
_base_ = '../lightvit_t_imagenet.py'

model = dict(backbone=dict(num_global_tokens=32))
