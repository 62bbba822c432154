# Paper section 4.1: one 8x8 convolution of stride 8 instead of the overlapping patch embedding.
# Published: top-1 77.4, 9.5 M parameters, 0.74 GFLOPs. Measured: not run.
# The paper rescales the channels without saying how: [68, 132, 256] is our choice, nearest to its size and cost
# (9.5 M, 0.74 GFLOPs in its convention; T's own channels give 9.4 M and 0.71).
# Train: tools/dist_train.sh configs/ablation/section41_without_overlapping_patches.py 8
_base_ = '../lightvit_t_imagenet.py'

model = dict(
    backbone=dict(
        overlapping_patches=False,
        arch=dict(
            _delete_=True,
            embed_dims=[68, 132, 256],
            num_heads=[2, 4, 8],
            num_blocks=[2, 6, 6],
            ffn_ratios=[8, 4, 4],
            num_global_tokens=8,
        ),
    ),
)
