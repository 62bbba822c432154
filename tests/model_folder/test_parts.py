# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What a model folder may ask for: every ordinary model, and no part or setting that opens a file or runs code."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path

import pytest
from mmengine.config import Config

from mmlightvit.errors import UserError
from mmlightvit.model_folder.describe import plain
from mmlightvit.model_folder.info import InputSpec, ModelInfo
from mmlightvit.model_folder.parts import checked_model, without_files
from mmlightvit.toolboxes import TOOLBOXES

for toolbox in TOOLBOXES:
    pytest.importorskip(toolbox)

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
CLASSIFIER = {
    'type': 'ImageClassifier',
    'backbone': {'type': 'mmlightvit.LightViT', 'arch': 'tiny', 'out_type': 'tokens'},
    'neck': {'type': 'GlobalAveragePooling'},
    'head': {'type': 'LinearClsHead', 'num_classes': 3, 'in_channels': 256, 'loss': {'type': 'CrossEntropyLoss'}},
}
DETECTOR = {
    'type': 'RetinaNet',
    'backbone': {'type': 'mmlightvit.LightViT', 'arch': 'tiny'},
    'neck': [{'type': 'mmlightvit.LightViTFPN', 'in_channels': [64, 128, 256]}],
    'bbox_head': {'type': 'RetinaHead', 'num_classes': 3, 'anchor_generator': {'type': 'AnchorGenerator'}},
    'test_cfg': {'nms': {'type': 'nms', 'iou_threshold': 0.5}, 'rcnn': {'deep': [[{'type': 'FPN'}]]}},
}
SEGMENTER = {
    'type': 'EncoderDecoder',
    'backbone': {'type': 'mmpretrain.TIMMBackbone', 'model_name': 'resnet18.a1_in1k', 'features_only': True,
                 'out_indices': [1, 2]},
    'decode_head': {'type': 'FCNHead', 'norm_cfg': {'type': 'SyncBN'}, 'loss_decode': {'type': 'CrossEntropyLoss'}},
}  # fmt: skip
MODELS = {'mmpretrain': CLASSIFIER, 'mmdet': DETECTOR, 'mmseg': SEGMENTER}


def checked(model, scope):
    task = TOOLBOXES[scope].task
    return checked_model(ModelInfo(task, 'm', ('a',), scope, model, InputSpec((0, 0, 0), (1, 1, 1))))


@pytest.mark.parametrize('scope', MODELS)
def test_an_ordinary_model_is_taken_as_it_is(scope):
    assert checked(MODELS[scope], scope) == MODELS[scope]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_model_that_is_trained_here_is_taken_whole(path):
    cfg = Config.fromfile(path)
    model = without_files(plain(cfg.model))
    assert checked(model, cfg.default_scope) == model


@pytest.mark.parametrize(
    'name',
    [
        'mmdet/rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
        'mmdet/dino/dino-4scale_r50_8xb2-12e_coco.py',
        'mmdet/mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
        'mmdet/solov2/solov2_r50_fpn_1x_coco.py',
        'mmdet/point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py',
        'mmdet/htc/htc_r50_fpn_1x_coco.py',
        'mmdet/yolox/yolox_tiny_8xb8-300e_coco.py',
        'mmdet/centernet/centernet_r18_8xb16-crop512-140e_coco.py',
        'mmdet/carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py',
        'mmdet/dyhead/atss_r50_fpn_dyhead_1x_coco.py',
        'mmseg/mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
        'mmseg/upernet/upernet_r50_4xb4-160k_ade20k-512x512.py',
        'mmseg/ocrnet/ocrnet_hr18_4xb4-160k_ade20k-512x512.py',
        'mmseg/segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
        'mmpretrain/arcface/resnet50-arcface_8xb32_inshop.py',
        'mmpretrain/swin_transformer/swin-tiny_16xb64_in1k.py',
        'mmpretrain/regnet/regnetx-1.6gf_8xb128_in1k.py',
        'mmpretrain/mobilevit/mobilevit-small_8xb128_in1k.py',
    ],
)
def test_models_of_the_toolboxes_are_taken_whole(name):
    scope, _, file = name.partition('/')
    path = Path(importlib.import_module(scope).__file__).parent / '.mim' / 'configs' / file
    if not path.is_file():
        pytest.skip(f'{scope} was installed without its configs')
    cfg = Config.fromfile(path)
    model = plain(cfg.model)
    if isinstance(model.get('image_encoder'), list):  # a retriever of mmpretrain: its encoder is what is looked at
        model = dict(CLASSIFIER, backbone=model['image_encoder'][0], neck=model['image_encoder'][1], head=model['head'])
    model = without_files(model)
    assert checked(model, scope) == model


#: What is put in, where a model has its backbone, and the words of the refusal.
REFUSED = {
    'code of the hub': (
        {'type': 'mmpretrain.HuggingFaceClassifier', 'model_name': 'x', 'trust_remote_code': True},
        'asks for .*HuggingFaceClassifier',
    ),
    'another package': ({'type': 'mmpretrain.TimmClassifier', 'model_name': 'resnet18'}, 'asks for .*TimmClassifier'),
    'detectron2': ({'type': 'mmdet.Detectron2Wrapper', 'detector': {}}, 'asks for .*Detectron2Wrapper'),
    'text that is evaluated': (
        {'type': 'mmdet.CameraMotionCompensation', 'warp_mode': '__import__("os")'},
        'asks for .*CameraMotionCompensation',
    ),
    'a teacher': ({'type': 'mmdet.LAD', 'teacher_ckpt': 'x'}, 'asks for .*LAD'),
    'a language model': ({'type': 'mmdet.BertModel', 'name': 'x'}, 'asks for .*BertModel'),
    'a codebook': ({'type': 'mmpretrain.VQKD', 'codebook_ckpt': 'x'}, 'asks for .*VQKD'),
    'a dotted name': ({'type': 'os.system', 'command': 'true'}, r"asks for 'os\.system'"),
    'a scope with a dotted name': ({'type': 'mmdet.os.system'}, r"asks for 'mmdet\.os\.system'"),
    'a class of a scope': ({'type': 'mmengine.Config'}, 'asks for .*mmengine.Config'),
    'a type that is no text': ({'type': ['ResNet']}, 'asks for .*ResNet'),
    'a foreign scope': ({'type': 'ResNet', '_scope_': 'evil'}, "asks for 'evil'"),
    'timm, from a file': (
        {'type': 'mmpretrain.TIMMBackbone', 'model_name': 'resnet18', 'checkpoint_path': 'w'},
        r'checkpoint_path',
    ),
    'timm, from the net': (
        {'type': 'mmpretrain.TIMMBackbone', 'model_name': 'resnet18', 'pretrained': True},
        'pretrained',
    ),
    'timm, from the hub': ({'type': 'mmpretrain.TIMMBackbone', 'model_name': 'hf-hub:a/b'}, 'hf-hub'),
    'timm, a folder': ({'type': 'mmpretrain.TIMMBackbone', 'model_name': 'local-dir:evil'}, 'local-dir'),
    'timm, a description': (
        {'type': 'mmpretrain.TIMMBackbone', 'model_name': 'resnet18', 'pretrained_cfg': {'file': 'w'}},
        'pretrained_cfg',
    ),
    'a module by another key': (
        {'type': 'mmpretrain.TIMMBackbone', 'model_name': 'resnet18', 'norm_layer': 'antigravity'},
        "asks for 'antigravity'",
    ),
    'a module as padding': ({'type': 'ConvModule', 'padding_mode': 'antigravity'}, "asks for 'antigravity'"),
    'weights of init_cfg': (
        {'type': 'mmlightvit.LightViT', 'init_cfg': {'type': 'Pretrained', 'checkpoint': 'w.pth'}},
        r'w\.pth.*init_cfg',
    ),
    'weights of a list': (
        {'type': 'ResNet', 'init_cfg': [{'type': 'Kaiming'}, {'type': 'Pretrained', 'checkpoint': 'w'}]},
        'init_cfg',
    ),
    'pretrained': ({'type': 'ResNet', 'depth': 50, 'pretrained': 'torchvision'}, 'pretrained'),
    'a pickle of weights of classes': ({'type': 'CrossEntropyLoss', 'class_weight': 'w.pkl'}, r'w\.pkl.*class_weight'),
    'a pickle without an ending': ({'type': 'CrossEntropyLoss', 'class_weight': 'pkl'}, r'pkl.*class_weight'),
    'a path': ({'type': 'ResNet', 'depth': 50, 'where': '/etc/passwd'}, 'etc/passwd.*where'),
    'an address in a list': ({'type': 'ResNet', 'where': [['http://127.0.0.1:9']]}, 'http'),
}


@pytest.mark.parametrize('what', REFUSED)
@pytest.mark.parametrize('scope', MODELS)
def test_what_opens_files_or_runs_code_is_refused_by_name_at_every_depth(scope, what):
    part, words = REFUSED[what]
    places = {
        'itself': lambda model: part,
        'a part': lambda model: {**model, 'backbone': part},
        'a part of a part': lambda model: {**model, 'head': {'type': 'ConvModule', 'more': {'a': [[part]]}}},
        'an unnamed setting': lambda model: {**model, 'test_cfg': {'rcnn': [{'deep': (part,)}]}},
    }
    for name, put in places.items():
        with pytest.raises(UserError, match=words) as caught:
            checked(put(copy.deepcopy(MODELS[scope])), scope)
        assert '\n' not in str(caught.value), name


@pytest.mark.parametrize('place', ['nms', 'roi_layer'])
def test_names_that_are_no_parts_stand_in_their_places_alone(place):
    good = {'nms': 'soft_nms', 'roi_layer': 'RoIAlign'}[place]
    model = {**DETECTOR, 'test_cfg': {place: {'type': good}}}
    assert checked(model, 'mmdet') == model
    for wrong in ('__import__("os").system("true")', 'eval', 'nms_match'):
        with pytest.raises(UserError, match='which is no model part'):
            checked({**DETECTOR, 'test_cfg': {place: {'type': wrong}}}, 'mmdet')
    with pytest.raises(UserError, match='which is no model part'):
        checked({**DETECTOR, 'test_cfg': {'elsewhere': {'type': good}}}, 'mmdet')


def test_how_weights_start_is_left_out_and_so_is_what_is_unset():
    part = {'type': 'ResNet', 'depth': 50, 'init_cfg': {'type': 'Kaiming', 'layer': 'Conv2d'}, 'pretrained': None}
    model = {**CLASSIFIER, 'backbone': part, 'train_cfg': {'augments': [{'type': 'os.system'}]}}
    assert checked(model, 'mmpretrain') == {
        **CLASSIFIER,
        'backbone': {'type': 'ResNet', 'depth': 50},
        'train_cfg': None,
    }


def test_what_is_written_can_be_read():
    """A config's files do not come into its folder."""
    model = copy.deepcopy(SEGMENTER)
    model['backbone'].update(checkpoint_path='/elsewhere/w.pth', init_cfg={'type': 'Pretrained', 'checkpoint': 'w'})
    model['decode_head']['loss_decode']['class_weight'] = 'data/weights.npy'
    assert without_files(model) == SEGMENTER
    assert checked(without_files(model), 'mmseg') == SEGMENTER
