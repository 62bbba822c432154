# SGD in place of AdamW: mmdet's rate for 16 images, its momentum and decay. No recipe of ours uses it; docs/configs.md
# says how yours does.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4),
)
