# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The sheet of Figure 4: its rows, its pictures, and whole images as the toolboxes prepare them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attention_sheet import choose, draw_sheet
from PIL import Image
from processes import run_program
from torch import nn
from variants import TEST_ARCH
from whole_images import prepare_image, whole_input

from mmlightvit.errors import UserError
from mmlightvit.explain.attention import collect_maps
from mmlightvit.inference.preprocess import InputSpec
from mmlightvit.models.backbones import LightViT


def _random(module: nn.Module, std: float = 0.3) -> nn.Module:
    torch.manual_seed(0)
    for param in module.parameters():
        nn.init.normal_(param, std=std)
    return module.eval()


def test_rows_of_the_sheet():
    maps = collect_maps(_random(LightViT(TEST_ARCH)), torch.randn(1, 3, 64, 64))
    assert [label for label, _ in choose(maps)] == ['stage 1, block 1', 'stage 2, block 2', 'stage 3, block 1']
    assert [label for label, _ in choose(maps, [2], 'all')] == ['stage 2, block 1', 'stage 2, block 2']
    mean = choose(maps, [2], 'mean')[0][1]
    torch.testing.assert_close(mean.aggregation[0], (maps[1].aggregation.mean(0) + maps[2].aggregation.mean(0)) / 2)
    heads = choose(maps, [3], '1', 'all')
    assert len(heads) == 4
    torch.testing.assert_close(heads[2][1].broadcast[0], maps[3].broadcast[2])
    for wrong in (dict(stages=[4]), dict(blocks='9'), dict(blocks='x', stages=[1]), dict(heads='0')):
        with pytest.raises(UserError, match='expected'):
            choose(maps, **wrong)


@pytest.mark.parametrize('gates', [True, False])
def test_a_sheet_is_drawn(tmp_path, gates):
    backbone = _random(LightViT(TEST_ARCH, num_global_tokens=9, spatial_attention=gates, channel_attention=gates))
    maps = collect_maps(backbone, torch.randn(1, 3, 64, 96))
    pixels = np.zeros((60, 90, 3), dtype=np.uint8)
    draw_sheet(pixels, choose(maps, [1]), tmp_path / 'new' / 'sheet.png', 'title')
    with Image.open(tmp_path / 'new' / 'sheet.png') as sheet:
        assert min(sheet.size) > 200
    with pytest.raises(UserError, match='tokens: expected numbers from 1 to 9'):
        draw_sheet(pixels, choose(maps, [1]), tmp_path / 'sheet.png', tokens=[10])


@pytest.mark.parametrize('name, resize', [
    ('lightvit_t_imagenet', dict(short=224)), ('mask_rcnn_lightvit_t_1x', dict(short=800, long=1333)),
    ('upernet_lightvit_t_ade20k', dict(short=512, long=2048)),
])  # fmt: skip
def test_images_are_prepared_as_the_toolbox_does(repo, tmp_path, name, resize):
    """Size, colour order, normalisation and padding of each task, on one colour that tells the channels apart."""
    from mmlightvit.cli.config import load_config
    from mmlightvit.toolboxes import build_model

    cfg = load_config(str(repo / f'configs/{name}.py'))
    assert whole_input(cfg).resize == resize and whole_input(cfg).crop is None
    cfg.model.pop('auxiliary_head', None)
    Image.new('RGB', (90, 50), (255, 128, 0)).save(tmp_path / 'orange.png')
    image = prepare_image(tmp_path / 'orange.png', whole_input(cfg, 100))
    assert image.pixels.shape == (100, 180, 3) and tuple(image.pixels[0, 0]) == (255, 128, 0)
    bgr = torch.from_numpy(image.pixels[..., ::-1].copy()).permute(2, 0, 1)  # the toolboxes read images as BGR
    expected = build_model(cfg).data_preprocessor(dict(inputs=[bgr], data_samples=None))['inputs']
    height, width = (min(sides) for sides in zip(image.tensor.shape[2:], expected.shape[2:]))
    assert height >= 100 and width >= 180
    torch.testing.assert_close(image.tensor[..., :height, :width], expected[..., :height, :width], atol=1e-5, rtol=0)
    if name.startswith('mask'):
        assert (height, width) == (128, 192) and image.tensor[0, :, 100:].abs().sum() == 0


def test_a_turned_photo_stands_upright_and_16_bits_keep_their_range(tmp_path):
    photo, exif = Image.new('RGB', (40, 20)), Image.Exif()
    photo.paste((255, 255, 255), (0, 0, 20, 20))
    exif[0x0112] = 6  # to be shown turned by a quarter to the right
    photo.save(tmp_path / 'turned.png', exif=exif)
    spec = InputSpec(mean=(0.0,) * 3, std=(1.0,) * 3)
    pixels = prepare_image(tmp_path / 'turned.png', spec).pixels
    assert pixels.shape == (40, 20, 3) and pixels[:18].min() == 255 and pixels[22:].max() == 0
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / 'grey.png')
    assert np.abs(prepare_image(tmp_path / 'grey.png', spec).pixels[..., 0].astype(int) - (grey >> 8)).max() <= 1


def test_images_that_cannot_be_read(tmp_path):
    spec = InputSpec(mean=(0.0,) * 3, std=(1.0,) * 3)
    (tmp_path / 'no.jpg').write_text('text')
    for name in ('no.jpg', 'none.jpg'):
        with pytest.raises(UserError, match=name):
            prepare_image(tmp_path / name, spec)


@pytest.mark.parametrize('args, words', [
    (['x.jpg', '--config', 'none.py', '--checkpoint', 'c.pth'], 'config not found: none.py'),
    (['x.jpg', '--config', 'configs/lightvit_t_imagenet.py', '--checkpoint', 'c.pth'], 'image not found: x.jpg'),
])  # fmt: skip
def test_a_bad_path_is_one_line(repo, args, words):
    done = run_program('tools/paper/global_attention.py', *args, cwd=repo)
    assert done.returncode == 1 and done.stderr.startswith('error: ') and words in done.stderr
    assert done.stderr.count('\n') == 1
