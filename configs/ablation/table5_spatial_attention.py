# Paper Table 5, row 4: local and global attention, spatial gate alone; row 5 is configs/lightvit_t_imagenet.py.
# The layers of a lone spatial gate are our reading.
# Published: top-1 78.4, 9.1 M parameters, 0.73 GFLOPs. Measured: not run.
# Train: tools/dist_train.sh configs/ablation/table5_spatial_attention.py 8
_base_ = '../lightvit_t_imagenet.py'

model = dict(backbone=dict(channel_attention=False))
