# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit export --triton``: what Triton reads of a model says the same as the file."""

from __future__ import annotations

import json

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from served import info, write_classifier, write_detector

from mmlightvit.cli import main

#: The part of Triton's model_config.proto that is written, by message: fields with their types, ``*`` where repeated.
SCHEMA = {
    'ModelConfig': {
        'name': 'string', 'backend': 'string', 'max_batch_size': 'int32', 'dynamic_batching': 'Batching',
        'input': '*Tensor', 'output': '*Tensor', 'parameters': '*Parameter',
    },
    'Batching': {},
    'Tensor': {'name': 'string', 'data_type': 'DataType', 'dims': '*int64', 'label_filename': 'string'},
    'Parameter': {'key': 'string', 'value': 'Value'},
    'Value': {'string_value': 'string'},
}  # fmt: skip
DATA_TYPES = {'TYPE_INT64': 9, 'TYPE_FP32': 11}
INT64, FP32 = DATA_TYPES.values()
#: Names, types and dimensions of inputs and outputs, without the axis of the batch where Triton makes batches.
CLASSIFIER = [('image', FP32, [3, -1, -1])], [('probs', FP32, [2])]
DETECTOR = (
    [('image', FP32, [1, 3, -1, -1]), ('size', INT64, [2])],
    [('dets', FP32, [2, 5]), ('labels', INT64, [2])],
)


@pytest.fixture(scope='module')
def read_config():
    """A function that reads a config.pbtxt as Triton does: an unknown field or broken text is an error."""
    Field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name='config.proto', syntax='proto3')
    data_type = file.enum_type.add(name='DataType')
    for name, number in {'TYPE_INVALID': 0, **DATA_TYPES}.items():
        data_type.value.add(name=name, number=number)
    for message, fields in SCHEMA.items():
        described = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields.items(), 1):
            plain = kind.lstrip('*')
            scalar = getattr(Field, f'TYPE_{plain.upper()}', None)
            named = None if scalar else plain
            wanted = scalar or (Field.TYPE_ENUM if plain == 'DataType' else Field.TYPE_MESSAGE)
            label = Field.LABEL_REPEATED if kind != plain else Field.LABEL_OPTIONAL
            described.field.add(name=name, number=number, type=wanted, label=label, type_name=named)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName('ModelConfig'))
    return lambda path: text_format.Parse(path.read_text(encoding='utf-8'), config())


@pytest.mark.parametrize(
    ('write', 'batch', 'tensors'), [(write_classifier, 16, CLASSIFIER), (write_detector, 0, DETECTOR)]
)
def test_the_configuration_is_the_graph(write, batch, tensors, tmp_path, read_config, capsys):
    classes = ('cat "tom"', 'chien\\élégant')
    task = 'classification' if batch else 'detection'
    file = write(tmp_path / 'pets.onnx', info(task, classes=classes, thresholds={}))
    assert main(['export', str(file), '--triton', str(tmp_path / 'models')]) == 0
    folder = tmp_path / 'models/pets'
    assert capsys.readouterr().out == f'wrote {folder}\n'
    assert sorted(path.name for path in folder.iterdir()) == ['1', 'README.md', 'config.pbtxt', 'labels.txt']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['models', 'pets.onnx']

    config = read_config(folder / 'config.pbtxt')
    assert (config.name, config.backend, config.max_batch_size) == ('pets', 'onnxruntime', batch)
    assert config.HasField('dynamic_batching') == bool(batch)
    for found, expected in zip((config.input, config.output), tensors):
        assert [(one.name, one.data_type, list(one.dims)) for one in found] == expected
    assert [one.label_filename for one in config.output] == (['labels.txt'] if batch else ['', ''])
    said = json.loads(config.parameters[0].value.string_value)
    assert said['classes'] == list(classes) and said['input']['mean'] == [120.0] * 3
    assert (folder / 'labels.txt').read_text(encoding='utf-8').splitlines() == list(classes)
    assert (folder / '1/model.onnx').read_bytes() == file.read_bytes()
    assert f'-v {tmp_path / "models"}:/models' in (folder / 'README.md').read_text()


def test_a_model_is_replaced_only_when_asked(tmp_path, capsys):
    file = write_detector(tmp_path / 'pets.onnx')
    command = ['export', str(file), '--triton', str(tmp_path / 'models')]
    (tmp_path / 'models/other').mkdir(parents=True)
    assert main(command) == 0
    (tmp_path / 'models/pets/2').mkdir()
    assert main(command) == 1
    assert 'pets is there already: --overwrite replaces it' in capsys.readouterr().err
    assert main([*command, '--overwrite']) == 0
    assert not (tmp_path / 'models/pets/2').exists() and (tmp_path / 'models/other').is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['models', 'pets.onnx']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--format', 'openvino'], '--triton is for --format onnx'),
        (['--int8'], '--int8 would not be read: '),
    ],
)
def test_mistakes_are_one_line(options, message, tmp_path, capsys):
    file = write_detector(tmp_path / 'pets.onnx')
    assert main(['export', str(file), '--triton', str(tmp_path / 'models'), *options]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / 'models').exists()
