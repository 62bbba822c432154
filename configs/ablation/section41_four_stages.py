# Paper section 4.1: four stages, the first at stride 4.
# Published: top-1 77.9, 9.2 M parameters, 0.73 GFLOPs. Measured: not run.
# The paper does not give the variant's sizes: these are our choice, nearest to its size and cost (9.1 M, 0.73 GFLOPs
# in its convention). The stem's stride is 4.
# Train: tools/dist_train.sh configs/ablation/section41_four_stages.py 8
_base_ = '../lightvit_t_imagenet.py'

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=[32, 64, 128, 256],
            num_heads=[1, 2, 4, 8],
            num_blocks=[1, 2, 5, 6],
            ffn_ratios=[4, 8, 4, 4],
            num_global_tokens=8,
        ),
        patch_stride=4,
    ),
)
