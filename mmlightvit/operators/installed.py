# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Importing this module installs the operators: for the top of a program, or a config's ``custom_imports``."""

from mmlightvit.operators import install

install()
