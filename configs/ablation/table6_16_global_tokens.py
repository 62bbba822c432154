# Paper Table 6: 16 global tokens; 8 is configs/lightvit_t_imagenet.py.
# Published: top-1 78.8, 0.80 GFLOPs. Measured: not run.
# Train: tools/dist_train.sh configs/ablation/table6_16_global_tokens.py 8
_base_ = '../lightvit_t_imagenet.py'

model = dict(backbone=dict(num_global_tokens=16))
