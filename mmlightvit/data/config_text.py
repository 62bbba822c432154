# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The config of a prepared folder: the recipe of ``configs/own_data``, with all that the data say."""

from __future__ import annotations

from pathlib import Path

from mmlightvit.tasks import CLASSIFICATION, DETECTION, INSTANCE, SEGMENTATION

_HEAD = """\
# Written by `mmlightvit data import`, and yours to change.
#   python tools/train.py {config} --auto-scale-lr
# Names, number of classes and files are those of dataset.json beside this file: nothing has to be repeated here.
_base_ = 'mmlightvit::own_data/{task}.py'

import json
import pathlib

data_root = '{{{{ fileDirname }}}}'
prepared = json.loads(pathlib.Path(data_root, 'dataset.json').read_bytes())
classes = tuple(prepared['classes'])
num_classes = len(classes)
images = str(pathlib.Path(data_root, prepared['images']))
files = {{split: str(pathlib.Path(data_root, item['file'])) for split, item in prepared['splits'].items()}}
val = 'val' if 'val' in files else 'train'
test = 'test' if 'test' in files else val
del prepared
work_dir = f'work_dirs/{{pathlib.Path(data_root).name}}'
"""
_COCO = """
metainfo = dict(classes=classes)
common = dict(data_root=data_root, data_prefix=dict(img=images), metainfo=metainfo)
train_dataloader = dict(dataset=dict(ann_file=files['train'], **common))
val_dataloader = dict(dataset=dict(ann_file=files[val], **common))
test_dataloader = dict(dataset=dict(ann_file=files[test], **common))
del common
val_evaluator = dict(ann_file=files[val])
test_evaluator = dict(ann_file=files[test])
"""
_BODY = {
    DETECTION: 'model = dict(bbox_head=dict(num_classes=num_classes))\n' + _COCO,
    INSTANCE: 'model = dict(roi_head=dict(bbox_head=dict(num_classes=num_classes), '
    'mask_head=dict(num_classes=num_classes)))\n' + _COCO,
    CLASSIFICATION: """\
model = dict(head=dict(num_classes=num_classes))
data_preprocessor = dict(num_classes=num_classes)

common = dict(data_root=data_root, data_prefix=images, classes=classes)
train_dataloader = dict(dataset=dict(ann_file=files['train'], **common))
val_dataloader = dict(dataset=dict(ann_file=files[val], **common))
test_dataloader = dict(dataset=dict(ann_file=files[test], **common))
del common
""",
    SEGMENTATION: """\
model = dict(decode_head=dict(num_classes=num_classes))

common = dict(
    data_root=data_root,
    data_prefix=dict(img_path=images, seg_map_path='labels'),
    metainfo=dict(classes=classes),
)
train_dataloader = dict(dataset=dict(ann_file=files['train'], **common))
val_dataloader = dict(dataset=dict(ann_file=files[val], **common))
test_dataloader = dict(dataset=dict(ann_file=files[test], **common))
del common
""",
}


def config_text(task: str, folder: Path) -> str:
    """The text of ``config.py``.

    Args:
        task: Of the folder.
        folder: Where it will be.
    """
    return _HEAD.format(config=folder / 'config.py', task=task) + '\n' + _BODY[task]
