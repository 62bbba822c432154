# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Importing this module installs the operators: for the top of a program, or a config's ``custom_imports``.

``python -m mmlightvit.operators.installed PROGRAM.py ARGUMENT...`` runs a program that cannot be edited with them.
"""

import runpy
import sys

from mmlightvit.operators import install

install()

if __name__ == '__main__':
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name='__main__')
