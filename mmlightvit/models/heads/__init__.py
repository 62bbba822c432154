# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Heads, each a module that needs its own toolbox: import them by module."""
