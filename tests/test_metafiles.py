# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The model index names every config once and says of it what is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tracked
import yaml
from mmengine.config import Config

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')
pytest.importorskip('mmseg')

from mmlightvit.cost.counting import count

ROOT = Path(__file__).resolve().parents[1]
INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text())
FILES = [yaml.safe_load((ROOT / path).read_text()) for path in INDEX['Import']]
MODELS = {model['Config']: model for file in FILES for model in file['Models']}
COUNTED: dict[str, tuple[int, int]] = {}


def test_every_config_stands_in_the_index_once():
    listed = [model['Config'] for file in FILES for model in file['Models']]
    configs = {str(path.relative_to(ROOT)) for path in tracked.files(ROOT, 'configs') if '_base_' not in path.parts}
    assert sorted(listed) == sorted(configs)
    names = [model['Name'] for model in MODELS.values()]
    assert len(set(names)) == len(names)
    (collection,) = [item for file in FILES for item in file.get('Collections', ())]
    assert {model['In Collection'] for model in MODELS.values()} == {collection['Name']}
    assert (ROOT / collection['README']).is_file()


@pytest.mark.parametrize('path', MODELS)
def test_entry_agrees_with_its_config(path):
    entry, cfg = MODELS[path], Config.fromfile(ROOT / path)
    metadata = entry['Metadata']
    assert metadata.get('Epochs') == cfg.train_cfg.get('max_epochs')
    assert metadata.get('Iterations') == cfg.train_cfg.get('max_iters')
    assert metadata.get('Start Weights') == (cfg.model.backbone.get('init_cfg') or {}).get('checkpoint')
    # Schedules differ, models are counted once.
    model = cfg.model.to_dict()
    for setting in ('drop_path_rate', 'norm_eval', 'init_cfg'):
        model['backbone'].pop(setting, None)
    key = json.dumps(model, sort_keys=True, default=str)
    if key not in COUNTED:
        counted = count(cfg, [int(side) for side in metadata['Input Size'].split('x')])
        COUNTED[key] = (counted.params, counted.published)
    params, macs = COUNTED[key]
    assert metadata['Parameters'] == params
    assert metadata['FLOPs'] == pytest.approx(macs, rel=1e-3)


@pytest.mark.parametrize('path', MODELS)
def test_results_are_those_of_the_header(path):
    text = (ROOT / path).read_text()
    published = re.search(r'Published.*', text[: text.index('_base_')])
    printed = '' if published is None else published[0].partition('For orientation')[0]
    numbers = re.findall(r'(?:AP|AP50|AP75|top-1) (\d+\.\d)', printed)
    listed = [str(value) for result in MODELS[path].get('Results', ()) for value in result['Metrics'].values()]
    assert listed == numbers


def test_published_classifiers_live_where_the_detectors_start():
    for size in 'tsb':
        weights = MODELS[f'configs/lightvit_{size}_imagenet.py']['Weights']
        assert weights == MODELS[f'configs/mask_rcnn_lightvit_{size}_1x.py']['Metadata']['Start Weights']
        released = [path for path in MODELS if f'_lightvit_{size}_' in path and path.endswith('_released.py')]
        assert len(released) == 2
        assert all('github.com/hunto/LightViT' in MODELS[path]['Metadata']['Published Weights'] for path in released)


def test_weights_have_a_size_and_a_hash_or_say_that_they_are_not_known():
    for model in MODELS.values():
        metadata = model['Metadata']
        assert ('Weights' in model) == ('Size' in metadata) == ('SHA256' in metadata)
        assert metadata.get('SHA256') is None or re.fullmatch('[0-9a-f]{64}', metadata['SHA256'])
        assert metadata.get('Size') is None or metadata['Size'] > 1_000_000
