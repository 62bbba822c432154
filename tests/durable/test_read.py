# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Checkpoints are read without executing them; whatever is wrong with one is said in one line."""

from __future__ import annotations

import argparse
import builtins
import collections
import email.message
import http.client
import io
import os
import pathlib
import pickle
import tarfile
import urllib.request
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint, load_checkpoint
from variants import TEST_ARCH

from mmlightvit.checkpoint.install import install as install_loading
from mmlightvit.durable.safe_loading import unpickle as restricted
from mmlightvit.durable.safe_loading.read import CheckpointUnavailable, read_checkpoint
from mmlightvit.errors import UserError

install_loading()


class Payload:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


class HiddenGetattr:
    """Reaches a function through the one attribute access that genuine files need."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def payloads(marker):
    return {
        'os.system': Payload(os.system, f'touch {marker}'),
        'eval': Payload(builtins.eval, f'open({str(marker)!r}, "w")'),
        'exec': Payload(builtins.exec, f'open({str(marker)!r}, "w")'),
        'Path.touch': Payload(pathlib.Path.touch, pathlib.PurePosixPath(marker)),
        'getattr': HiddenGetattr(),
        'torch.load': Payload(torch.load, str(marker)),
    }


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', payloads(pathlib.PurePath('.')))
def test_payloads_are_refused_and_do_not_run(tmp_path, name, legacy):
    marker, file = tmp_path / 'ran', tmp_path / 'evil.pth'
    checkpoint = {'state_dict': {'weight': torch.zeros(2)}, 'meta': payloads(marker)[name]}
    torch.save(checkpoint, file, _use_new_zipfile_serialization=not legacy)
    for load in (read_checkpoint, _load_checkpoint, CheckpointLoader.load_checkpoint):
        with pytest.raises(UserError, match=r'evil\.pth: refused\. It asks for .*nothing in it was executed'):
            load(str(file))
    assert not marker.exists()


def test_the_payload_of_these_tests_would_run(tmp_path):
    torch.save(Payload(os.system, f'touch {tmp_path / "ran"}'), tmp_path / 'evil.pth')
    torch.load(tmp_path / 'evil.pth', weights_only=False)
    assert (tmp_path / 'ran').exists()


def test_array_state_cannot_pass_bytes_for_objects(tmp_path):
    class Objects:
        def __reduce__(self):
            forged = (4, '|', None, None, None, 8, 8, 0)  # an object dtype that claims to hold plain bytes
            dtype = Dtype('O8', forged)
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b'b'), (1, (1,), dtype, False, b'A' * 8)

    class Dtype:
        def __init__(self, code, state):
            self.code, self.state = code, state

        def __reduce__(self):
            return np.dtype, (self.code, False, True), self.state

    torch.save({'state_dict': {}, 'x': Objects()}, tmp_path / 'forged.pth')
    with pytest.raises(UserError, match=r"forged\.pth: not a readable checkpoint.*'O8'"):
        read_checkpoint(tmp_path / 'forged.pth')


def era_checkpoint() -> dict:
    history = HistoryBuffer()
    for value in (3.0, 2.0, 1.5):
        history.update(value)
    attributed = collections.OrderedDict(a=torch.ones(2))
    attributed._metadata = {'': {'version': 1}}
    attributed.copy = 'shadows a method'
    return {
        'state_dict': attributed,
        'meta': {
            'config': 'raise SystemExit("config text ran")',
            'CLASSES': ('cat', 'dog'),
            'PALETTE': [(220, 20, 60)],
            'best_score': np.float64(0.378),
            'epoch': np.int64(12),
            'flag': np.bool_(True),
            'name': np.str_('lightvit'),
            'anchors': np.arange(6, dtype='>f4').reshape(2, 3),
            'columns': np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
            'args': argparse.Namespace(lr=1e-3, stages=[1, 2]),
            'work_dir': pathlib.PurePosixPath('a') / 'b',
            'counts': collections.defaultdict(list, x=[1]),
            'hooks': ConfigDict(type='EMAHook', momentum=0.1),
            'nested': {'t': (np.float32(1), [np.ones(2)])},
        },
        'message_hub': {'log_scalars': {'train/loss': history}, 'runtime_info': {'cfg': 'raise SystemExit'}},
        'optimizer': {'state': {0: {'step': torch.tensor(3.0)}}, 'param_groups': [{'lr': 0.1}]},
    }


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('core', [b'numpy._core', b'numpy.core'], ids=['numpy2', 'numpy1'])
def test_genuine_files_of_the_era_load(tmp_path, legacy, core):
    checkpoint = era_checkpoint()
    file = tmp_path / 'era.pth'
    torch.save(checkpoint, file, _use_new_zipfile_serialization=not legacy)
    if core == b'numpy.core':
        rename_numpy(file)
    content = file.read_bytes() if legacy else zipfile.ZipFile(file).read('era/data.pkl')
    assert b'c' + core + b'.multiarray\n' in content
    got = read_checkpoint(file)
    meta, expected = got['meta'], checkpoint['meta']
    for key in ('config', 'CLASSES', 'PALETTE', 'best_score', 'epoch', 'flag', 'name', 'args'):
        assert meta[key] == expected[key]
        assert type(meta[key]) is type(expected[key])
    for key in ('anchors', 'columns'):
        assert type(meta[key]) is np.ndarray
        assert meta[key].dtype == expected[key].dtype
        np.testing.assert_array_equal(meta[key], expected[key])
    assert meta['counts'] == {'x': [1]}
    assert meta['hooks'] == {'type': 'EMAHook', 'momentum': 0.1}
    assert type(meta['nested']['t'][1][0]) is np.ndarray
    history = got['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    assert history.mean() == pytest.approx(6.5 / 3)
    assert history.statistics('min') == 1.5
    assert got['state_dict'].copy()['a'].equal(torch.ones(2))
    assert meta['work_dir'] == 'a/b'
    assert got['state_dict']._metadata == {'': {'version': 1}}
    assert got['optimizer']['state'][0]['step'] == 3


def rename_numpy(file):
    """Give a file the module names that NumPy 1 wrote; protocol 2 ends names with a line break and counts nothing."""

    def rename(content: bytes) -> bytes:
        return content.replace(b'cnumpy._core.multiarray\n', b'cnumpy.core.multiarray\n')

    if not zipfile.is_zipfile(file):
        file.write_bytes(rename(file.read_bytes()))
        return
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, 'w') as archive:
        for name, content in entries.items():
            archive.writestr(name, rename(content) if name.endswith('data.pkl') else content)


def test_config_text_reaches_neither_runner_nor_inferencer(tmp_path):
    torch.save(era_checkpoint() | {'state_dict': {}}, tmp_path / 'era.pth')
    assert 'config' not in _load_checkpoint(str(tmp_path / 'era.pth'))['meta']
    from mmengine.infer import infer

    checkpoint = infer._load_checkpoint(str(tmp_path / 'era.pth'))
    assert 'cfg' not in checkpoint['message_hub']['runtime_info']


def test_stock_models_load_as_before(tmp_path):
    torch.save({'state_dict': {'weight': torch.ones(1, 2), 'other': torch.ones(1)}}, tmp_path / 'linear.pth')
    model = torch.nn.Linear(2, 1)
    load_checkpoint(model, str(tmp_path / 'linear.pth'))  # a warning in the log, as ever
    assert model.weight.equal(torch.ones(1, 2))


def test_a_small_file_of_nested_tuples_is_read_at_once(tmp_path):
    nested = (np.float64(1.0),)
    for _ in range(60):
        nested = (nested, nested)
    torch.save({'state_dict': {}, 'x': nested}, tmp_path / 'nested.pth')
    found = read_checkpoint(tmp_path / 'nested.pth')['x']
    for _ in range(60):
        assert found[0] is found[1]
        found = found[0]
    assert found == (1.0,)


def test_an_older_torch_reads_its_zip_format_alone(tmp_path, monkeypatch):
    """CVE-2025-32434: there, torch.load can be made to execute code by older formats and by TorchScript programs."""
    monkeypatch.setattr(restricted, '_IS_CURRENT', False)
    content = {'state_dict': {'weight': torch.ones(2)}}
    torch.save(content, tmp_path / 'zip.pth')
    torch.save(content, tmp_path / 'legacy.pth', _use_new_zipfile_serialization=False)
    with tarfile.open(tmp_path / 'tar.pth', 'w') as archive:
        archive.add(tmp_path / 'zip.pth', 'storages')
    assert read_checkpoint(tmp_path / 'zip.pth')['state_dict']['weight'].equal(torch.ones(2))
    for name in ('legacy', 'tar'):
        with pytest.raises(UserError, match=rf"{name}\.pth: not a readable checkpoint.*torch's zip format"):
            read_checkpoint(tmp_path / f'{name}.pth')
    with zipfile.ZipFile(tmp_path / 'zip.pth') as ours, zipfile.ZipFile(tmp_path / 'program.pth', 'w') as program:
        for name in ours.namelist():
            program.writestr(name, ours.read(name))
        program.writestr(f'{ours.namelist()[0].split("/")[0]}/constants.pkl', b'')  # by this torch knows a program
    monkeypatch.setattr(torch, 'load', lambda *_, **__: pytest.fail('torch.load was called'))
    with pytest.raises(UserError, match=r'program\.pth: not a readable checkpoint.*TorchScript program'):
        read_checkpoint(tmp_path / 'program.pth')


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('share', [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files(tmp_path, share, legacy):
    file = tmp_path / 'cut.pth'
    state = {f'layer{i}.weight': torch.rand(50, 50) for i in range(5)}
    torch.save({'state_dict': state}, file, _use_new_zipfile_serialization=not legacy)
    cut(file, share)
    with pytest.raises(UserError, match=r'cut\.pth: (the checkpoint file is empty|not a readable checkpoint)') as error:
        read_checkpoint(file)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('share', [0.1, 0.9])
def test_truncated_safetensors(tmp_path, share):
    from safetensors.torch import save_file

    save_file({'weight': torch.rand(50, 50)}, tmp_path / 'cut.safetensors')
    cut(tmp_path / 'cut.safetensors', share)
    with pytest.raises(UserError, match=r'cut\.safetensors: not a readable checkpoint'):
        read_checkpoint(tmp_path / 'cut.safetensors')


def test_something_else_under_the_name(tmp_path):
    (tmp_path / 'page.pth').write_text('<html>404 not found</html>')
    (tmp_path / 'list.pth').write_bytes(pickle.dumps([1, 2], protocol=2))
    with zipfile.ZipFile(tmp_path / 'archive.pth', 'w') as archive:
        archive.writestr('a.txt', 'text')
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(tmp_path / 'script.pth'))
    torch.save([torch.ones(1)], tmp_path / 'tensors.pth')
    for name in ('page', 'list', 'archive', 'script', 'tensors'):
        with pytest.raises(UserError, match=rf'{name}\.pth: (not a readable|refused|expected a checkpoint dict)'):
            read_checkpoint(tmp_path / f'{name}.pth')
    with pytest.raises(UserError, match='got a directory'):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointUnavailable, match='no such checkpoint file'):
        read_checkpoint(tmp_path / 'missing.pth')
    with pytest.raises(UserError, match='expected a path'):
        read_checkpoint('ftp://host/file.pth')


class Response(io.BytesIO):
    """What ``urlopen`` gives."""

    def __init__(self, content: bytes, announced: int):
        super().__init__(content)
        self.headers = email.message.Message()
        self.headers['Content-Length'] = str(announced)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    return tmp_path / 'hub' / 'checkpoints'


ADDRESS = 'https://example.org/releases/lightvit_tiny_78.7.ckpt'


def test_download_is_kept_by_the_rules_of_torch_hub(hub, monkeypatch, tmp_path):
    torch.save({'state_dict': {'weight': torch.ones(3)}}, tmp_path / 'file')
    content = (tmp_path / 'file').read_bytes()
    calls = []
    monkeypatch.setattr(
        urllib.request, 'urlopen', lambda address, timeout: calls.append(address) or Response(content, len(content))
    )
    for _ in range(2):
        assert read_checkpoint(ADDRESS)['state_dict']['weight'].equal(torch.ones(3))
    assert calls == [ADDRESS]
    assert (hub / 'lightvit_tiny_78.7.ckpt').read_bytes() == content


def test_a_broken_download_leaves_nothing_under_the_name(hub, monkeypatch):
    monkeypatch.setattr(urllib.request, 'urlopen', lambda address, timeout: Response(b'half', 8))
    with pytest.raises(CheckpointUnavailable, match='after 4 of 8 bytes'):
        read_checkpoint(ADDRESS)
    assert [path.name for path in hub.iterdir() if not path.name.endswith('.lock')] == []


def test_a_server_that_speaks_no_http_is_said(hub, monkeypatch):
    def refuse(address, timeout):
        raise http.client.BadStatusLine('no status')

    monkeypatch.setattr(urllib.request, 'urlopen', refuse)
    with pytest.raises(CheckpointUnavailable, match='no status'):
        read_checkpoint(ADDRESS)


def test_offline_nothing_is_fetched(hub, monkeypatch):
    monkeypatch.setenv('MMLIGHTVIT_OFFLINE', '1')
    monkeypatch.setattr(urllib.request, 'urlopen', lambda *_, **__: pytest.fail('a connection was opened'))
    with pytest.raises(
        CheckpointUnavailable, match=f'MMLIGHTVIT_OFFLINE is set. Put it at {hub}/lightvit_tiny_78.7.ckpt'
    ):
        read_checkpoint(ADDRESS)


def test_unreachable_start_weights_name_path_address_and_override(hub, monkeypatch):
    from mmlightvit.models.backbones import LightViT

    def refuse(address, timeout):
        raise urllib.error.URLError('Name or service not known')

    monkeypatch.setattr(urllib.request, 'urlopen', refuse)
    model = LightViT(TEST_ARCH, init_cfg=dict(type='Pretrained', checkpoint=ADDRESS))
    with pytest.raises(CheckpointUnavailable) as error:
        model.init_weights()
    line = str(error.value)
    assert '\n' not in line
    for part in (ADDRESS, str(hub / 'lightvit_tiny_78.7.ckpt'), 'Name or service not known', 'init_cfg=None'):
        assert part in line
