# COCO of mmdet; the metric gives its table also while a detector finds nothing.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

val_evaluator = dict(type='mmlightvit.CocoMetric')
test_evaluator = dict(type='mmlightvit.CocoMetric')
