# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The earlier names of training and testing."""

from mmlightvit.cli.config import load_config
from mmlightvit.cli.options import use_ema, use_tta
from mmlightvit.cli.run import build_runner
from mmlightvit.cli.test import parser as test_parser
from mmlightvit.cli.test import prepare as prepare_testing
from mmlightvit.cli.test import test
from mmlightvit.cli.train import parser as train_parser
from mmlightvit.cli.train import prepare as prepare_training
from mmlightvit.cli.train import train
from mmlightvit.toolboxes import TOOLBOXES, import_toolbox

__all__ = [
    'TOOLBOXES', 'build_runner', 'import_toolbox', 'load_config', 'prepare_testing', 'prepare_training', 'test',
    'test_parser', 'train', 'train_parser', 'use_ema', 'use_tta',
]  # fmt: skip
