# Paper Table 6: 4 global tokens; 8 is configs/lightvit_t_imagenet.py.
# Published: top-1 78.3, 0.70 GFLOPs. Measured: not run.
# Train: tools/dist_train.sh configs/ablation/table6_4_global_tokens.py 8
_base_ = '../lightvit_t_imagenet.py'

model = dict(backbone=dict(num_global_tokens=4))
