# Paper Table 5, row 1: vanilla attention over all tokens, no gates in the FFN.
# Published: top-1 76.5, 8.0 M parameters, 0.88 GFLOPs. Measured: not run.
# Train: tools/dist_train.sh configs/ablation/table5_vanilla_attention.py 8
_base_ = '../lightvit_t_imagenet.py'

model = dict(backbone=dict(window_size=None, num_global_tokens=0, spatial_attention=False, channel_attention=False))
