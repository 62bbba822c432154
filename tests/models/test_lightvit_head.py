# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The classification head against its formula written token by token, and its arguments."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip('mmpretrain')

from mmpretrain.structures import DataSample

from mmlightvit.models.heads.lightvit_head import LightViTHead


@pytest.fixture
def head() -> LightViTHead:
    torch.manual_seed(0)
    head = LightViTHead(num_classes=5, in_channels=8, hidden_channels=12).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return head


def layer_norm(x: list[float], weight, bias, eps: float) -> list[float]:
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return [(value - mean) / math.sqrt(variance + eps) * w + b for value, w, b in zip(x, weight, bias)]


def linear(x: list[float], weight, bias) -> list[float]:
    return [sum(w * value for w, value in zip(row, x)) + b for row, b in zip(weight, bias)]


def gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def test_scores_are_the_formula_token_by_token(head):
    # Small features, so that the two epsilons (1e-6, 1e-5) are felt.
    tokens = 1e-3 * torch.randn(2, 7, 8, dtype=torch.float64)
    p = {key: value.tolist() for key, value in head.state_dict().items()}
    expected = []
    for sample in tokens.tolist():
        projected = []
        for token in sample:
            x = layer_norm(token, p['norm.weight'], p['norm.bias'], 1e-6)
            x = linear(x, p['proj.weight'], p['proj.bias'])
            x = layer_norm(x, p['proj_norm.weight'], p['proj_norm.bias'], 1e-5)
            projected.append([gelu(value) for value in x])
        mean = [sum(column) / len(projected) for column in zip(*projected)]
        expected.append(linear(mean, p['fc.weight'], p['fc.bias']))
    expected = torch.tensor(expected, dtype=torch.float64)
    # Of several stages the last one counts.
    torch.testing.assert_close(head((torch.randn(2, 3, 4), tokens)), expected, rtol=0, atol=1e-10)


def test_token_order_does_not_matter(head):
    tokens = torch.randn(1, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(head((tokens,)), head((tokens[:, torch.randperm(9)],)))


def test_initialisation_is_the_published_one():
    torch.manual_seed(0)
    head = LightViTHead(num_classes=300, in_channels=64, hidden_channels=300)
    head.init_weights()
    for layer in (head.proj, head.fc):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert torch.count_nonzero(layer.bias) == 0
    assert torch.equal(head.norm.weight, torch.ones(64))


def test_accuracy_is_logged_on_request():
    samples = [DataSample().set_gt_label(label) for label in (0, 1)]
    feats = (torch.randn(2, 4, 8),)
    assert set(LightViTHead(5, 8).loss(feats, samples)) == {'loss'}
    logged = LightViTHead(5, 8, topk=(1, 2), cal_acc=True).loss(feats, samples)
    assert set(logged) == {'loss', 'accuracy_top-1', 'accuracy_top-2'}


def test_number_of_classes_is_checked():
    with pytest.raises(ValueError, match='num_classes: expected an integer >= 1, got 0'):
        LightViTHead(num_classes=0, in_channels=8)
