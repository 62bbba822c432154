# Rate and decay of the paper's section 5.2, for 16 images.
_base_ = './adamw.py'

optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=0.05))
