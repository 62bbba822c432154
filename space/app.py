# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A Space on Hugging Face: every exported model beside this file, to try out."""

from pathlib import Path

from mmlightvit import load_model
from mmlightvit.deploy.demo import demo

files = sorted(Path(__file__).resolve().parent.glob('*.onnx'))
if not files:
    raise SystemExit('error: put a file of `mmlightvit export` beside app.py')
page = demo({file.stem: load_model(file) for file in files})
if __name__ == '__main__':
    page.launch()
