# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Exported files answer as the model does, carry their proof, and are not there where they do not."""

from __future__ import annotations

import json

import minute
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from mmlightvit.deploy.export import Plan, export
from mmlightvit.deploy.export_modules import TRACED
from mmlightvit.deploy.formats import FORMATS
from mmlightvit.deploy.runtime import load_exported
from mmlightvit.deploy.verify import EXACT, SIZES, compare
from mmlightvit.errors import UserError

TASKS = ['classification', 'instance', 'segmentation']


@pytest.mark.parametrize('task', TASKS)
class TestFile:
    def test_answers_as_the_model_does(self, task, exported, pictures):
        model, _, opened = exported(task)
        for want, got in zip(model.predict(pictures, score_thr=0.05), opened.predict(pictures, score_thr=0.05)):
            assert (got.task, got.classes, got.height, got.width) == (want.task, want.classes, want.height, want.width)
            if task == 'classification':
                np.testing.assert_allclose(got.probs, want.probs, atol=1e-4)
            elif task == 'segmentation':
                assert (got.label_map == want.label_map).mean() >= 0.9999
            else:
                assert len(want) > 3
                assert compare(want, got, EXACT, 'here') <= 1e-4

    def test_one_file_of_standard_operators(self, task, exported):
        path = exported(task).path
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        graph = onnx.load(path)
        onnx.checker.check_model(graph)
        assert {node.domain for node in graph.graph.node} <= {''}
        assert not graph.functions
        assert [(item.domain, item.version) for item in graph.opset_import] == [('', 20)]

    def test_carries_its_proof(self, task, exported, pictures):
        certificate = exported(task).opened.info.extra['certificate']
        sizes = [tuple(row['size']) for row in certificate['verified']]
        assert len(sizes) >= 5 and TRACED not in sizes
        assert certificate['pictures'] == len(pictures)
        assert max(row['max_error'] for row in certificate['verified']) <= 1e-3


def test_a_file_without_metadata_is_not_ours(exported, tmp_path):
    graph = onnx.load(exported('classification').path)
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / 'other.onnx')
    with pytest.raises(UserError, match='was not written by mmlightvit export'):
        load_exported(tmp_path / 'other.onnx')


def test_wrong_weights_are_found_and_leave_no_file(tmp_path, pictures, monkeypatch, exported):
    model = exported('classification').model
    monkeypatch.setattr('mmlightvit.deploy.export.load_exported', _with_other_bias)
    _trace_is(exported('classification').path, monkeypatch)
    with pytest.raises(UserError, match='the exported model is not the model: at 224x224'):
        export(model, tmp_path / 'model.onnx', Plan(), pictures)
    assert not list(tmp_path.iterdir())


def test_a_detector_that_finds_nothing_is_not_proven(tmp_path, pictures, monkeypatch, exported):
    model, path, _ = exported('instance')
    _trace_is(path, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr('mmlightvit.deploy.verify._objects', lambda raw: 0)
        with pytest.raises(UserError, match='finds no object in any of the pictures'):
            export(model, tmp_path / 'model.onnx', Plan(), pictures)
        assert not list(tmp_path.iterdir())
        info = export(model, tmp_path / 'model.onnx', Plan(), pictures, may_lack_proof=True)
    assert info.extra['certificate']['objects'] == 0


def test_of_8_bit_weights_the_metric_is_the_proof(tmp_path, pictures, monkeypatch, exported):
    """The graph is proven before; what they cost, labelled pictures say."""
    model, path, _ = exported('classification')
    _trace_is(path, monkeypatch)
    out = tmp_path / 'model.onnx'
    with pytest.raises(UserError, match='int8 needs --data'):
        export(model, out, Plan(int8=True), pictures)

    def measure(draft):
        found = load_exported(draft).predict(pictures[0]).probs
        return {'cost': float(np.abs(found - model.predict(pictures[0]).probs).max())}

    info = export(model, out, Plan(int8=True), pictures, measure)
    certificate = info.extra['certificate']
    assert certificate['max_error_of_pictures'] < 1e-3 and 0 < certificate['cost'] < 0.1
    assert certificate['note'] == 'verified before its weights became 8-bit numbers'
    assert load_exported(out).info.extra['certificate'] == certificate
    assert any(value.data_type == onnx.TensorProto.INT8 for value in onnx.load(out).graph.initializer)

    def refuse(draft):
        raise UserError('top-1 falls')

    with pytest.raises(UserError, match='top-1 falls'):
        export(model, tmp_path / 'other.onnx', Plan(int8=True), pictures, refuse)
    assert list(tmp_path.iterdir()) == [out]


def _trace_is(path, monkeypatch):
    """No model is traced; the graph is that of a file."""
    formats = {**FORMATS, 'onnx': FORMATS['onnx']._replace(trace=lambda *_: ir.load(path))}
    monkeypatch.setattr('mmlightvit.deploy.export.FORMATS', formats)


def _with_other_bias(path, trust):
    graph = onnx.load(path)
    bias = next(value for value in graph.graph.initializer if value.name.endswith('fc.bias'))
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.eye(5, dtype='f')[0], bias.name))
    onnx.save(graph, path)
    return load_exported(path)


@pytest.mark.parametrize(
    ('plan', 'message'),
    [
        (dict(format='tflite'), 'expected one of onnx'),
        (dict(cut='neck'), 'end2end'),
        (dict(format='pt2', int8=True), 'int8 is for onnx'),
        (dict(cut='features', int8=True), 'a whole model'),
        (dict(static=(0, 224)), 'height and width in pixels'),
    ],
)
def test_plans_that_cannot_be(plan, message):
    with pytest.raises(UserError, match=message):
        Plan(**plan)


def test_an_ending_that_belongs_to_another_format(exported, tmp_path):
    with pytest.raises(UserError, match=r'expected the ending \.pt2'):
        export(exported('classification').model, tmp_path / 'model.onnx', Plan(format='pt2'))


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:To copy construct from a tensor:UserWarning')
@pytest.mark.parametrize(
    ('config', 'plan'),
    [
        ('cascade_mask_rcnn_lightvit_t_3x', {}),
        ('retinanet_lightvit_t_1x', {}),
        ('upernet_lightvit_t_ade20k', {}),
        ('mask_rcnn_lightvit_t_1x', dict(cut='features')),
        ('lightvit_t_imagenet', dict(cut='features')),
        ('lightvit_t_imagenet', dict(cut='backbone')),
        ('semantic_fpn_lightvit_t_ade20k', dict(cut='features')),
        ('mask_rcnn_lightvit_t_1x', dict(normalise=True)),
        ('lightvit_t_imagenet', dict(normalise=True)),
        ('mask_rcnn_lightvit_t_1x', dict(static=(128, 160))),
        ('lightvit_t_imagenet', dict(static=(224, 224))),
        ('lightvit_t_imagenet', dict(format='openvino')),
        ('mask_rcnn_lightvit_t_1x', dict(format='openvino')),
        ('lightvit_t_imagenet', dict(format='pt2')),
        ('semantic_fpn_lightvit_t_ade20k', dict(format='pt2')),
        ('mask_rcnn_lightvit_t_1x', dict(format='pt2')),
    ],
    ids=str,
)
def test_every_kind_is_proven(config, plan, tmp_path, pictures):
    """The export verifies itself, and raises where the file is not the model."""
    plan = Plan(**plan)
    info = export(minute.model(config), tmp_path / f'model{FORMATS[plan.format].ending}', plan, pictures)
    assert len(info.extra['certificate']['verified']) >= 5
    json.dumps(info.extra)
    assert (plan.static is None) == (len(info.extra['certificate']['verified']) == len(SIZES))
