# Runtime of image classification (mmpretrain).
_base_ = './runtime.py'
default_scope = 'mmpretrain'

default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(save_best='accuracy/top1'),
    visualization=dict(type='VisualizationHook', enable=False),
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
tta_model = dict(type='AverageClsScoreTTA')
