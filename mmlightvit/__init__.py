# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""LightViT (arXiv 2207.05557) for the OpenMMLab ecosystem.

Importing the package imports no toolbox: the registries find what a config names when it is built.
"""

from mmlightvit.version import __version__

__all__ = ['__version__']
