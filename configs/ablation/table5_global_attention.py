# Paper Table 5, row 3: local and global attention, no gates in the FFN. The paper does not give the gates' layers in
# the middle rows; that each gate takes its own layers along is our reading.
# Published: top-1 78.0, 8.8 M parameters, 0.71 GFLOPs. Measured: not run.
# Train: tools/dist_train.sh configs/ablation/table5_global_attention.py 8
_base_ = '../lightvit_t_imagenet.py'

model = dict(backbone=dict(spatial_attention=False, channel_attention=False))
