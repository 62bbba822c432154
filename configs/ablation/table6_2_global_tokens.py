# Paper Table 6: 2 global tokens; 8 is configs/lightvit_t_imagenet.py.
# Published: top-1 77.8, 0.69 GFLOPs. Measured: not run.
# Train: tools/dist_train.sh configs/ablation/table6_2_global_tokens.py 8
_base_ = '../lightvit_t_imagenet.py'

model = dict(backbone=dict(num_global_tokens=2))
