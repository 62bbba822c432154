# Paper Table 5, row 2: local window attention alone, no gates in the FFN.
# Published: top-1 76.9, 8.0 M parameters, 0.66 GFLOPs. Measured: not run.
# Train: tools/dist_train.sh configs/ablation/table5_local_attention.py 8
_base_ = '../lightvit_t_imagenet.py'

model = dict(backbone=dict(num_global_tokens=0, spatial_attention=False, channel_attention=False))
