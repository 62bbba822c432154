# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""tools/convert_checkpoint.py and what it calls."""

from __future__ import annotations

import os
import runpy
import sys

import golden
import pytest
import torch
from safetensors.torch import load_file

from mmlightvit.checkpoint.convert import LayoutError, convert
from mmlightvit.checkpoint.identify import find_state_dict, recognise
from mmlightvit.durable.safe_loading.read import read_checkpoint
from mmlightvit.errors import UserError
from mmlightvit.published import INDEX, rename_to_published

NAMES = ['cls_tiny', 'backbone_tiny', 'detector_tiny']


@pytest.fixture
def tool(repo, monkeypatch, capsys):
    """Run the tool; gives its exit code, output and error output."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', ['convert_checkpoint.py', *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(repo / 'tools' / 'convert_checkpoint.py'), run_name='__main__')
        return stop.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize('name', NAMES)
def test_round_trips_give_identical_bytes_of_every_tensor(published_files, tmp_path, name):
    steps = ['own.pth', 'own.safetensors', 'own2.pth', 'published.safetensors', 'published.pth']
    previous = published_files[name]
    for step in steps:
        convert(previous, tmp_path / step, to='published' if step.startswith('published') else 'own')
        previous = tmp_path / step
    original = torch.load(published_files[name])['state_dict']
    final = torch.load(tmp_path / 'published.pth')['state_dict']
    assert final.keys() == original.keys()
    for key, value in original.items():
        assert (final[key].dtype, final[key].shape) == (value.dtype, value.shape)
        assert final[key].numpy().tobytes() == value.numpy().tobytes(), key
    own, tensors = torch.load(tmp_path / 'own.pth')['state_dict'], load_file(tmp_path / 'own.safetensors')
    assert own.keys() == tensors.keys()
    for key, value in own.items():
        assert tensors[key].numpy().tobytes() == value.numpy().tobytes()


def test_what_it_is_given_may_have_any_form(tmp_path):
    state = golden.state_dict('backbone_tiny')
    expected = recognise(state).state
    forms = {
        'bare': state,
        'trainer': {'model': {f'module.{key}': value for key, value in state.items()}, 'epoch': 3},
        'prefixed': {'state_dict': {f'backbone.{key}': value for key, value in state.items()}, 'meta': {'CLASSES': 1}},
        'parameters': {'state_dict': {k: torch.nn.Parameter(v, False) for k, v in state.items()}},
    }
    for form, content in forms.items():
        torch.save(content, tmp_path / form)
        source, _ = convert(tmp_path / form, tmp_path / 'out.pth')
        written = torch.load(tmp_path / 'out.pth')['state_dict']
        prefix = 'backbone.' if form == 'prefixed' else ''
        assert written.keys() == {prefix + key for key in expected}
        assert source.architecture.arch == 'tiny'


@pytest.mark.parametrize('name', NAMES)
def test_tool_says_what_it_recognised(tool, published_files, tmp_path, name):
    code, out, error = tool(published_files[name], tmp_path / 'out.pth')
    kind = {'cls': 'classifier', 'bac': 'backbone', 'det': 'detector'}[name[:3]]
    assert (code, error) == (0, '')
    assert f'recognised: published {kind}, LightViT tiny (channels [64, 128, 256]' in out
    assert '8 global tokens, window 7' in out
    assert 'missing (0): none\nunexpected (0): none\nreshaped (0): none\n' in out
    assert not any(key.endswith(INDEX) for key in torch.load(tmp_path / 'out.pth')['state_dict'])


def departures(state):
    state = dict(state)
    key = 'stages.1.3.attn.qkv.weight'
    missing = {k: v for k, v in state.items() if k != key}
    half = dict(list(state.items())[: len(state) // 2])
    return {
        'missing': (missing, 'missing (1): backbone.stages.1.blocks.2.attn.qkv.weight\nunexpected (0)'),
        'unexpected': (
            state | {'stages.0.0.attn.extra': torch.ones(1)},
            'unexpected (1): backbone.stages.0.blocks.0.attn',
        ),
        'reshaped': (state | {key: torch.ones(3, 128)}, 'blocks.2.attn.qkv.weight [3, 128], expected [384, 128]'),
        'half': (half, None),
    }


@pytest.mark.parametrize('what', ['missing', 'unexpected', 'reshaped', 'half'])
def test_a_file_that_does_not_fit_stops_with_the_list_and_writes_nothing(tool, tmp_path, what):
    state, listed = departures(golden.state_dict('cls_tiny'))[what]
    torch.save({'state_dict': state}, tmp_path / 'file.ckpt')
    (tmp_path / 'out.pth').write_bytes(b'kept')
    code, out, error = tool(tmp_path / 'file.ckpt', tmp_path / 'out.pth', '--overwrite')
    assert code == 1
    assert error.startswith('error: ')
    assert error.count('\n') == 1
    assert listed is None or listed in out
    assert (tmp_path / 'out.pth').read_bytes() == b'kept'
    assert sorted(os.listdir(tmp_path)) == ['file.ckpt', 'out.pth']


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 cut off', b'no checkpoint at all'])
def test_unreadable_files_stop_the_tool(tool, tmp_path, content):
    (tmp_path / 'file.ckpt').write_bytes(content)
    code, out, error = tool(tmp_path / 'file.ckpt', tmp_path / 'out.pth')
    assert (code, out) == (1, '')
    assert error.startswith(f'error: {tmp_path}/file.ckpt: ')
    assert os.listdir(tmp_path) == ['file.ckpt']


def test_a_target_that_cannot_be_written(tool, published_files, tmp_path):
    code, _, error = tool(published_files['backbone_tiny'], tmp_path / 'none' / 'out.pth')
    assert code == 1
    assert 'out.pth cannot be written: ' in error


def test_published_names_only_for_what_was_published(backbone, published_files, tmp_path):
    state = backbone(1, 'tiny').state_dict() | {'head': torch.ones(1)}
    torch.save(state, tmp_path / 'file.pth')
    with pytest.raises(LayoutError, match='unexpected: head'):
        convert(tmp_path / 'file.pth', tmp_path / 'out.pth', to='published')
    detector = find_state_dict(read_checkpoint(published_files['detector_tiny']))
    own = dict(recognise(detector).state)
    own.pop('neck.transposed_convs.0.weight')
    torch.save(own, tmp_path / 'file.pth')
    with pytest.raises(LayoutError, match=r'missing: neck\.transposed_convs\.0\.weight'):
        convert(tmp_path / 'file.pth', tmp_path / 'out.pth', to='published')
    detector.pop('neck.extra_trans_convs.0.conv.bias')
    torch.save(detector, tmp_path / 'file.pth')
    with pytest.raises(LayoutError, match=r'missing: neck\.transposed_convs\.0\.bias'):
        convert(tmp_path / 'file.pth', tmp_path / 'out.pth')


@pytest.mark.parametrize(
    'ablation',
    [
        dict(spatial_attention=False),
        dict(channel_attention=False, spatial_attention=False),
        dict(residual_merging=False),
        dict(overlapping_patches=False),
        dict(num_global_tokens=0),
        dict(num_global_tokens=0, window_size=None),
        dict(window_size=5, out_indices=(0, 2)),
        dict(out_type='tokens', out_indices=(1,)),
    ],
)
def test_our_files_of_any_ablation_convert(backbone, tmp_path, ablation):
    model = backbone(1, 'tiny', **ablation)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'file.pth')
    _, differences = convert(tmp_path / 'file.pth', tmp_path / 'file.safetensors')
    assert not differences
    assert differences.unchecked == ()
    assert load_file(tmp_path / 'file.safetensors').keys() == model.state_dict().keys()


def test_a_variant_of_the_user_is_not_checked(tmp_path):
    from mmlightvit.models.backbones import LightViT

    arch = dict(embed_dims=[8, 8], num_heads=[1, 1], num_blocks=[1, 1], ffn_ratios=[2, 2], num_global_tokens=1)
    state = LightViT(arch, out_indices=(0, 1)).state_dict()
    torch.save({'state_dict': state}, tmp_path / 'file.pth')
    source, differences = convert(tmp_path / 'file.pth', tmp_path / 'file.safetensors')
    assert source.architecture.arch is None
    assert len(differences.unchecked) == len(state)
    torch.save({'state_dict': rename_to_published(state, 'backbone')}, tmp_path / 'file.pth')
    with pytest.raises(UserError, match='none of the published'):
        convert(tmp_path / 'file.pth', tmp_path / 'file.safetensors')
