# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The benchmark: what it computes from times, and the tool in each of its modes."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import time

import pytest
import steps
import torch
from processes import run_program
from roofline import Machine, floor_line
from torch import nn
from variants import TEST_ARCH

from mmlightvit.cli.config import load_config
from mmlightvit.errors import UserError
from mmlightvit.models.backbones import LightViT
from mmlightvit.toolboxes import import_toolbox


class Sleeper(nn.Module):
    """A model that takes a known time."""

    def __init__(self, seconds):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seconds = seconds

    def forward(self, image):
        time.sleep(self.seconds)
        return image.mean() * self.scale


@pytest.mark.parametrize('mode', steps.MODES)
def test_ratio_of_known_times(mode):
    models = dict(slow=Sleeper(0.03), fast=Sleeper(0.01))
    case = steps.Case(mode=mode, height=8, width=8)
    slow, fast = steps.compare(models, case, rounds=5, seconds=0.0)
    assert slow.ratios == (1.0,) * 5 and len(fast.seconds) == 5
    # Three in truth; a busy machine adds to both.
    assert slow.median >= 0.03 and fast.median >= 0.01 and 1.5 < fast.ratio < 3.2
    assert fast.interval[0] <= fast.ratio <= fast.interval[1]
    assert fast.images_per_second == pytest.approx(1 / fast.median)
    assert all(model.scale.grad is None for model in models.values())


def test_casts_belong_to_each_training_step():
    casts = []

    class Linear(nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            casts.append(out.dtype)
            return out

    model = nn.Sequential(nn.Flatten(), Linear(48, 2))
    step = steps.make_step(model, steps.Case(mode='training', dtype='bf16', height=4, width=4))
    counts = []
    for _ in range(2):
        with torch.profiler.profile(acc_events=True) as profile:
            step()
        counts.append(sum(event.count for event in profile.key_averages() if event.key == 'aten::_to_copy'))
    assert casts == [torch.bfloat16] * 2 and counts[0] == counts[1] > 0


def test_peak_memory_is_that_of_the_step():
    class Large(nn.Module):
        def forward(self, image):
            return torch.ones(32, 2**20).sum()

    case = steps.Case(height=8, width=8)
    (timing,) = steps.compare(dict(large=Large()), case, 1, 0.0)
    if timing.peak_bytes is None:
        pytest.skip('the system does not tell the peak memory of a process')
    assert 0.9 * 2**27 < timing.peak_bytes < 1.3 * 2**27


def test_one_model_in_another_form(monkeypatch):
    models = dict(reference=LightViT(TEST_ARCH), mmlightvit=LightViT(TEST_ARCH))
    compiled = []
    monkeypatch.setattr(torch, 'compile', lambda model, **kwargs: compiled.append((model, kwargs)) or model)
    case = steps.Case(form='compiled', height=32, width=32)
    timings = steps.compare(models, case, 1, 0.0, forms=dict(reference='eager'))
    assert [timing.case.form for timing in timings] == ['eager', 'compiled']
    assert compiled == [(models['mmlightvit'], dict(dynamic=False))]


@pytest.mark.parametrize('wrong, message', [
    (dict(form='graph'), 'form graph: expected inference on a CUDA device'),
    (dict(mode='testing'), "mode: expected one of inference, training, got 'testing'"),
    (dict(dtype='float64'), 'dtype: expected one of float32, bf16, fp16'),
    (dict(batch=0), 'expected at least 1, got 0'),
])  # fmt: skip
def test_cases_that_do_not_exist(wrong, message):
    with pytest.raises(UserError, match=re.escape(message)):
        steps.Case(**wrong)


def test_floor_is_the_slower_of_arithmetic_and_memory():
    machine = Machine(bytes_per_second=1e9, flops_per_second=1e10)
    assert machine.floor(macs=10**9, num_bytes=10**6) == pytest.approx(0.2)
    assert machine.floor(macs=10**3, num_bytes=10**9) == pytest.approx(1.0)


def test_floor_counts_the_weights_once():
    model, machine = LightViT(TEST_ARCH), Machine(bytes_per_second=1e9, flops_per_second=1e18)
    floors = {}
    for batch in (1, 3, 17):
        case = steps.Case(batch=batch, height=64, width=64)
        line = floor_line(model, steps.Timing('m', case, (1.0,), (1.0,), None), machine)
        floors[batch] = float(re.search(r'floor ([\d.]+) ms', line)[1])
    weights = 4e-6 * sum(p.numel() for p in model.parameters())  # ms at 1 GB/s
    per_image = (floors[17] - floors[1]) / 16
    assert floors[1] == pytest.approx(weights + per_image, abs=0.02)
    assert floors[3] == pytest.approx(weights + 3 * per_image, abs=0.02)


def tool(repo, *args):
    """The tool in a forked process."""
    return run_program('tools/paper/benchmark.py', *args, cwd=repo)


QUICK = ('--size', '64x64', '--rounds', 2, '--seconds', 0.01)


@pytest.mark.slow
def test_tool_against_another_form(repo, tmp_path):
    reference = tmp_path / 'reference.py'
    reference.write_text('from mmlightvit.models.backbones import LightViT\n\nclass Other(LightViT):\n    pass\n')
    files = [tmp_path / name for name in ('t.csv', 't.md', 't.png')]
    done = tool(
        repo, 'tiny', '--reference', f'{reference}:Other', '--mode', 'inference', 'training',
        '--dtype', 'float32', 'bf16', '--stages', *QUICK, '--csv', files[0], '--markdown', files[1],
        '--plot', files[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(files[0].read_text().splitlines()))
    assert [row['model'] for row in rows] == ['reference', 'mmlightvit'] * 4
    assert {(row['mode'], row['dtype']) for row in rows} == {
        (mode, dtype) for mode in steps.MODES for dtype in ('float32', 'bf16')
    }
    assert all(float(row['images/s']) > 0 and float(row['ratio']) > 0 for row in rows)
    assert re.search(r'mmlightvit is [\d.]+ \([\d.]+ to [\d.]+\) times as fast as reference \(eager\)', done.stdout)
    assert 'torch' in files[1].read_text() and files[2].stat().st_size > 1000
    assert done.stdout.count('floor') == 2 and done.stdout.count('stage 3') == 4
    assert 'round 2 of 2' in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    'config', ['lightvit_t_imagenet.py', 'mask_rcnn_lightvit_t_1x.py', 'semantic_fpn_lightvit_t_ade20k.py']
)
def test_tool_with_a_config(repo, config):
    import_toolbox(load_config(str(repo / 'configs' / config)).default_scope)  # before the tool is forked
    done = tool(repo, f'configs/{config}', *QUICK)
    assert done.returncode == 0, done.stderr
    assert 'mmlightvit' in done.stdout and 'reached' in done.stdout


@pytest.mark.slow
def test_sizes_with_batches_of_their_own(repo, tmp_path):
    done = tool(
        repo, 'tiny', *QUICK[2:], '--size', '4x32x32', '1x64x64', '64x32', '--batch', 2, '--csv', tmp_path / 't'
    )
    assert done.returncode == 0, done.stderr
    assert [(row['batch'], row['size']) for row in csv.DictReader((tmp_path / 't').read_text().splitlines())] == [
        ('4', '32x32'), ('1', '64x64'), ('2', '64x32'),
    ]  # fmt: skip


@pytest.mark.slow
def test_tool_against_a_peer(repo):
    pytest.importorskip('timm')
    done = tool(repo, 'tiny', '--against', 'pvt_v2_b0', *QUICK)
    assert done.returncode == 0, done.stderr
    assert 'pvt_v2_b0' in done.stdout


@pytest.mark.parametrize('args, message', [
    (('--size', '64'), "--size: expected HEIGHTxWIDTH or BATCHxHEIGHTxWIDTH such as 224x224, got '64'"),
    (('--reference', 'no.py:Model'), "expected FILE.py:CLASS with an existing file, got 'no.py:Model'"),
    (('--reference-form', 'eager'), '--reference-form: expected together with --reference FILE.py:CLASS'),
    (('--device', 'gpu'), "device: expected a torch device such as cpu or cuda, got 'gpu'"),
    (('--csv', 'no/such/folder/t.csv'), 'does not exist'),
    (('--form', 'graph'), 'form graph: expected inference on a CUDA device'),
])  # fmt: skip
def test_tool_says_what_is_wrong(repo, args, message):
    done = tool(repo, 'tiny', *args)
    assert done.returncode == 1 and message in done.stderr and 'Traceback' not in done.stderr


def test_tool_where_no_gpu_is_visible(repo):
    """In a process of its own."""
    command = [sys.executable, 'tools/paper/benchmark.py', 'tiny', '--device', 'cuda']
    env = {**os.environ, 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1 and 'device cuda: no GPU is visible; use cpu' in done.stderr
    assert 'Traceback' not in done.stderr
