# The runtime of every task; detection.py, classification.py and segmentation.py beside this file add what a task needs.
# Puts safe and exactly resumable parts in the place of MMEngine's loops, checkpoint hook and optimizer wrappers; they
# take the same arguments. See docs/reliability.md.
runner_type = 'mmlightvit.Runner'
# In other programs too, mmcv without compiled operators takes torchvision's (docs/configs.md), and checkpoints are read
# without executing them and load strictly (docs/checkpoints.md).
custom_imports = dict(
    imports=['mmlightvit.operators.installed', 'mmlightvit.checkpoint.install'], allow_failed_imports=False
)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # Names and counts bad files; more than this share of them stops training. See docs/data.md.
    data_guard=dict(
        type='mmlightvit.DataGuardHook',
        max_bad_share=0.05,
        annotation_check='mmlightvit.data.check:check_annotations',
    ),
    # WORK_DIR/results.csv: a row for each validation.
    results=dict(type='mmlightvit.ResultsHook'),
    # At the end, WORK_DIR/model/, which `mmlightvit predict` takes. See docs/predict.md.
    model_folder=dict(type='mmlightvit.ModelFolderHook'),
)
custom_hooks = []

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
# Works with GPUs and, where none is visible, with gloo on the CPU.
model_wrapper_cfg = dict(type='mmlightvit.DistributedDataParallel')
randomness = dict(seed=None, deterministic=False)

log_level = 'INFO'
load_from = None
resume = False
